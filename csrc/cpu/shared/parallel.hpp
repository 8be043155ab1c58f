// Threads of one call: those of the OpenMP runtime that torch brought into the process, if there is one. Between
// operations its threads wait spinning, for milliseconds, and threads of our own would have to share the cores with
// them. It is found in the process, not linked: a second runtime would fight torch's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

namespace modalign {

// Calls body(thread, meet) on at most `threads` threads at once, numbered from 0, on the caller's always; meet()
// returns when all of them have called it.
void run_team(int threads, const std::function<void(int thread, const std::function<void()>& meet)>& body);

// For a process that was forked before this module was loaded: the runtime's threads are not in it.
void forget_openmp();

// Runs job(thread, phase, index) for every phase in order and every index < jobs, a phase starting when the one before
// has ended. The jobs of a phase must not touch each other's results; then nothing depends on the number of threads.
// job must not throw: allocate before.
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
