// Threads of one call. No pool and no OpenMP: torch brings its own runtime, and a second one would fight it.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

namespace modalign {

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
  std::barrier between(threads);
  const auto work = [&](int thread) {
    for (int64_t phase = 0; phase < phases; ++phase) {
      for (int64_t index = next[phase]++; index < jobs; index = next[phase]++) job(thread, phase, index);
      between.arrive_and_wait();
    }
  };
  std::vector<std::jthread> others;
  others.reserve(threads - 1);
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
}

}  // namespace modalign
