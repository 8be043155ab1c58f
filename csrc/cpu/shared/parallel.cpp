#include "cpu/shared/parallel.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <thread>

namespace modalign {
namespace {

// The entry points that GCC's and LLVM's OpenMP runtimes share.
struct OpenMP {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
  int (*thread)();
  int (*team_size)();
  int (*max_threads)();
};

const OpenMP* find_openmp() {
  static OpenMP found{};
  const auto find = [](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
    return function != nullptr;
  };
  const bool complete = find(found.parallel, "GOMP_parallel") && find(found.thread, "omp_get_thread_num") &&
                        find(found.team_size, "omp_get_num_threads") && find(found.max_threads, "omp_get_max_threads");
  return complete ? &found : nullptr;
}

// A forked child has the runtime's memory but not its threads, and would wait for them for ever.
std::atomic<bool> forked = false;
[[maybe_unused]] const int watching = pthread_atfork(nullptr, nullptr, forget_openmp);  // before anybody forks

const OpenMP* openmp() {
  static const OpenMP* found = find_openmp();
  return forked ? nullptr : found;
}

// Where the threads of a team meet. They arrive within microseconds of each other, so they look before they sleep.
class Meeting {
 public:
  void wait_for(int all) {
    const int mine = ++arrived_, wanted = (mine + all - 1) / all * all;
    if (mine == wanted) return arrived_.notify_all();
    for (int look = 0; look < 2000; ++look) {
      if (arrived_ >= wanted) return;
      relax();
    }
    for (int seen = arrived_; seen < wanted; seen = arrived_) arrived_.wait(seen);
  }

 private:
  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::atomic<int> arrived_ = 0;
};

}  // namespace

void forget_openmp() { forked = true; }

void run_team(int threads, const std::function<void(int, const std::function<void()>&)>& body) {
  Meeting meeting;
  const std::function<void(int, int)> work = [&](int thread, int all) {
    body(thread, [&meeting, all] { meeting.wait_for(all); });
  };
  if (const OpenMP* runtime = openmp()) {
    struct Team {
      const OpenMP& runtime;
      const std::function<void(int, int)>& work;
      int threads;
    } team{*runtime, work, threads};
    const auto join = [](void* context) {
      const Team& team = *static_cast<Team*>(context);
      const int thread = team.runtime.thread(), all = std::min(team.threads, team.runtime.team_size());
      if (thread < all) team.work(thread, all);
    };
    // not a smaller team than torch's: the runtime would end the threads that are too many and start them again
    runtime->parallel(join, &team, static_cast<unsigned>(std::max(threads, runtime->max_threads())), 0);
    return;
  }
  std::atomic<int> all = 0;  // how many there are in the end: the system may give fewer threads
  std::vector<std::jthread> others;
  others.reserve(threads - 1);
  try {
    for (int thread = 1; thread < threads; ++thread)
      others.emplace_back([&, thread] {
        all.wait(0);
        work(thread, all);
      });
  } catch (const std::system_error&) {
  }
  all = static_cast<int>(others.size()) + 1;
  all.notify_all();
  work(0, all);
}

}  // namespace modalign
