#include "cpu/shared/parallel.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <latch>
#include <system_error>
#include <thread>

#include "cpu/shared/floating_point.hpp"

namespace modalign {
namespace {

// The functions that the OpenMP runtimes of GCC and LLVM have in common.
struct OpenMP {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
  int (*thread)();
  int (*team_size)();
  int (*max_threads)();
};

const OpenMP* find_openmp() {
  static OpenMP runtime{};
  const auto find = [](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(RTLD_DEFAULT, name));
    return function != nullptr;
  };
  const bool complete = find(runtime.parallel, "GOMP_parallel") && find(runtime.thread, "omp_get_thread_num") &&
                        find(runtime.team_size, "omp_get_num_threads") &&
                        find(runtime.max_threads, "omp_get_max_threads");
  return complete ? &runtime : nullptr;
}

// A forked child has the memory of the runtime but not its threads, and would wait for them for ever.
std::atomic<bool> forked = false;
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, forget_openmp);  // set when this is loaded

// Start threads until there are `most` with the calling one, or the system gives no more.
std::vector<std::jthread> start_threads(int most, const std::function<void(int thread)>& body) {
  std::vector<std::jthread> others;
  others.reserve(most - 1);
  try {
    for (int thread = 1; thread < most; ++thread) others.emplace_back(body, thread);  // copies it
  } catch (const std::system_error&) {
  }
  return others;
}

// Return whether the system gives this thread a team of so many. An OpenMP runtime ends the process where it does not,
// and it starts the threads of a team once for each thread that calls it.
bool system_gives(int threads) {
  thread_local int given = 1;
  if (threads <= given) return true;
  std::latch tried(1);
  const std::vector<std::jthread> others = start_threads(threads, [&](int) { tried.wait(); });
  tried.count_down();
  if (static_cast<int>(others.size()) + 1 < threads) return false;
  given = threads;
  return true;
}

// The runtime, where it has a team of so many threads for this one.
const OpenMP* openmp(int threads) {
  static const OpenMP* runtime = find_openmp();
  if (forked || runtime == nullptr) return nullptr;
  return system_gives(std::max(threads, runtime->max_threads())) ? runtime : nullptr;
}

// A barrier for the threads of a team. They arrive within microseconds of each other, so they spin before they sleep.
class Barrier {
 public:
  void wait_for(int all) {
    const int arrival = ++arrived_, last_arrival = (arrival + all - 1) / all * all;
    if (arrival == last_arrival) return arrived_.notify_all();
    for (int spin = 0; spin < 2000; ++spin) {
      if (arrived_ >= last_arrival) return;
      relax();
    }
    for (int seen = arrived_; seen < last_arrival; seen = arrived_) arrived_.wait(seen);
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
  Barrier barrier;
  const std::function<void(int, int)> work = [&](int thread, int all) {
    const StandardArithmetic arithmetic;
    body(thread, [&barrier, all] { barrier.wait_for(all); });
  };
  if (const OpenMP* runtime = openmp(threads)) {
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
    // never a smaller team than that of torch: the runtime would end the surplus threads and start them again later
    runtime->parallel(join, &team, static_cast<unsigned>(std::max(threads, runtime->max_threads())), 0);
    return;
  }
  std::atomic<int> all = 0;  // the number of threads that start in the end: the system may give fewer
  const std::function<void(int)> join = [&](int thread) {
    all.wait(0);
    work(thread, all);
  };
  const std::vector<std::jthread> others = start_threads(threads, join);
  all = static_cast<int>(others.size()) + 1;
  all.notify_all();
  work(0, all);
}

}  // namespace modalign
