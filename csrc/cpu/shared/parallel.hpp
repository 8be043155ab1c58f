// The threads of one call. They are those of the OpenMP runtime that torch loaded into the process, if there is one:
// between operations its threads spin for milliseconds, and other threads would have to share the cores with them. The
// runtime is looked up in the process, not linked, because a second runtime would compete with that of torch.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

namespace modalign {

// Call body(thread, meet) on at most `threads` threads at once, numbered from 0; the calling thread is always one of
// them. meet() returns when all of them have called it.
void run_team(int threads, const std::function<void(int thread, const std::function<void()>& meet)>& body);

// Stop using the OpenMP runtime. A forked process calls this, because the threads of the runtime are not in it.
void forget_openmp();

// Run job(thread, phase, index) for every phase in order and every index < jobs; a phase starts when the one before has
// ended. The jobs of a phase must not touch each other's results; then no result depends on the number of threads. A
// job must not throw: allocate its memory beforehand.
template <class Job>
void run_phases(int threads, int64_t phases, int64_t jobs, const Job& job) {
  if (threads > jobs) threads = static_cast<int>(jobs);
  if (threads <= 1) {
    for (int64_t phase = 0; phase < phases; ++phase)
      for (int64_t index = 0; index < jobs; ++index) job(0, phase, index);
    return;
  }
  std::vector<std::atomic<int64_t>> next(phases);
  run_team(threads, [&](int thread, const std::function<void()>& meet) {
    for (int64_t phase = 0; phase < phases; ++phase) {
      for (int64_t index = next[phase]++; index < jobs; index = next[phase]++) job(thread, phase, index);
      meet();
    }
  });
}

}  // namespace modalign
