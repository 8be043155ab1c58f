// csrc/cuda/shared/hopper.cuh on a CPU: each instruction does what the PTX manual says, at the worst moment that it
// allows. A copy lands at once; a product reads its tiles, and a store its tile, only when it is waited for.
//
// The threads of a block are contexts that take turns in one thread of the host, in another order every round; one that
// waits checks again when its turn comes. Now and then a warp sleeps for many rounds, and the others get as far ahead
// of it as they can. A thousand rounds without progress, longer than any sleep, are a deadlock and end the process.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)

struct CUtensorMap {
  uint16_t* table;
  int64_t rows, d, pitch;
  int box_rows;
};

namespace host {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_host: %s\n", what);
  std::abort();
}

struct Index {
  unsigned x = 0;
};

// A barrier: the threads that have arrived, and how often all of them have.
struct Meeting {
  int arrived = 0, rounds = 0;
};

struct Product {
  std::function<void()> run;
  bool ends_group;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<std::byte[]> stack;
  std::vector<Product> products;
  std::vector<std::function<void()>> stores;
  unsigned exchanges = 0;  // in which it has taken part
  unsigned votes = 0;      // in which it has taken part
  bool ended = false;
};

struct Warp {
  Meeting meeting;
  int asleep = 0;          // rounds
  float exchanged[2][32];  // values of this exchange, and of the last one, which may still be read
  int fenced = 0;          // threads that have called stores_begin since the last store
  unsigned votes[3] = {};  // the last vote, which may still be read, this one, and space for the next
};

struct Block {
  unsigned char* shared;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Meeting everyone, named[16];
  ucontext_t scheduler;
  bool moved = false;  // a thread made progress in this round
};

inline Block* block;
inline Index threadIdx, blockIdx, gridDim;

inline Thread& self() { return block->threads[threadIdx.x]; }

// Let the other threads run until `ready` returns true.
template <class Ready>
inline void wait_until(Ready ready) {
  while (!ready()) swapcontext(&self().context, &block->scheduler);
  block->moved = true;
}

inline void meet(Meeting& meeting, int threads) {
  const int round = meeting.rounds;
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    ++meeting.rounds;
  }
  block->moved = true;
  wait_until([&] { return meeting.rounds != round; });
}

}  // namespace host

using host::blockIdx, host::gridDim, host::threadIdx;

inline void __syncthreads() { host::meet(host::block->everyone, host::block->threads.size()); }
inline void __syncwarp() { host::meet(host::block->warps[threadIdx.x / 32].meeting, 32); }
inline unsigned __ballot_sync(unsigned, bool yes) {
  host::Warp& warp = host::block->warps[threadIdx.x / 32];
  const unsigned vote = host::self().votes++;
  if (yes) warp.votes[vote % 3] |= 1u << threadIdx.x % 32;
  warp.votes[(vote + 1) % 3] = 0;
  __syncwarp();
  return warp.votes[vote % 3];
}
inline bool __any_sync(unsigned lanes, bool yes) { return __ballot_sync(lanes, yes) != 0; }
inline float __shfl_xor_sync(unsigned, float value, int bits) {
  host::Warp& warp = host::block->warps[threadIdx.x / 32];
  float* exchanged = warp.exchanged[host::self().exchanges++ % 2];
  exchanged[threadIdx.x % 32] = value;
  __syncwarp();
  return exchanged[(threadIdx.x % 32) ^ bits];
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __expf(float x) { return std::exp(x); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int32_t __float_as_int(float x) { return std::bit_cast<int32_t>(x); }
inline int32_t atomicAdd(int32_t* sum, int32_t value) {
  const int32_t before = *sum;
  *sum += value;
  return before;
}

namespace modalign::cuda::hopper {

constexpr int kWarpgroup = 128;
constexpr int kFeatures = 64;
constexpr int kProducts = 256;
constexpr int kSums = kProducts / 2;
constexpr int kStep = 16;
constexpr int kTileAlignment = 1024;

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - host::block->shared);
}

inline unsigned char* shared_memory() { return host::block->shared; }

// A barrier, in the 64 bits that it has on the device.
struct State {
  uint16_t phase, arrivals;  // parity of the phase, and the arrivals that end it
  int16_t left, sixteens;    // arrivals still to come, and bytes still to come in units of 16
};
using Barrier = uint64_t;
static_assert(sizeof(State) == sizeof(Barrier));
inline State& state(Barrier* barrier) { return *reinterpret_cast<State*>(barrier); }

inline void change(Barrier* barrier, int arrivals, int bytes) {
  State& now = state(barrier);
  now.left -= arrivals;
  now.sixteens += bytes / 16;
  if (now.left < 0) host::fail("more arrivals than the barrier expects in a phase");
  if (now.left == 0 && now.sixteens == 0) {
    now.phase ^= 1;
    now.left = now.arrivals;
  }
  host::block->moved = true;
}

inline void barrier_init(Barrier* barrier, int arrivals) {
  state(barrier) = {0, uint16_t(arrivals), int16_t(arrivals), 0};
}
inline void barriers_made() {}
inline void barrier_arrive(Barrier* barrier) { change(barrier, 1, 0); }
inline void barrier_arrive_for(Barrier* barrier, int bytes) { change(barrier, 1, bytes); }
inline void barrier_wait(Barrier* barrier, int parity) {
  host::wait_until([&] { return state(barrier).phase != parity; });
}

inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

inline void copy_tile(void* to, const CUtensorMap* map, int feature, int row, Barrier* barrier) {
  const uint32_t start = shared_address(to);
  if (start % kTileAlignment != 0) host::fail("a tile must start at a multiple of kTileAlignment");
  for (int r = 0; r < map->box_rows; ++r)
    for (int c = 0; c < kFeatures; ++c) {
      const bool inside = row + r < map->rows && feature + c < map->d;
      const uint16_t value = inside ? map->table[(row + r) * map->pitch + feature + c] : 0;
      std::memcpy(host::block->shared + swizzled(start + r * 2 * kFeatures + c * 2), &value, 2);
    }
  change(barrier, 0, -map->box_rows * kFeatures * 2);
}

inline void stores_begin() { ++host::block->warps[threadIdx.x / 32].fenced; }

inline void store_tile(const CUtensorMap* map, int feature, int row, const void* from) {
  const uint32_t start = shared_address(from);
  if (start % kTileAlignment != 0) host::fail("a tile must start at a multiple of kTileAlignment");
  if (feature < 0 || row < 0) host::fail("a tile is stored before the start of its table");
  if (std::exchange(host::block->warps[threadIdx.x / 32].fenced, 0) != 32)
    host::fail("a tile is stored before every thread of the warp has called stores_begin");
  host::self().stores.push_back([=] {
    for (int r = 0; r < map->box_rows && row + r < map->rows; ++r)
      for (int c = 0; c < kFeatures && feature + c < map->d; ++c)
        std::memcpy(map->table + (row + r) * map->pitch + feature + c,
                    host::block->shared + swizzled(start + r * 2 * kFeatures + c * 2), 2);
  });
}

inline void stores_wait() {
  for (const auto& store : host::self().stores) store();
  host::self().stores.clear();
}

inline uint32_t bfloat16_pair(float first, float second) {
  const auto rounded = [](float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    return std::isnan(x) ? 0x7fffu : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  return rounded(first) | rounded(second) << 16;
}

inline void meet(int id, int threads) { host::meet(host::block->named[id], threads); }

template <int>
inline void give_registers() {}
template <int>
inline void take_registers() {}

// Return a matrix descriptor, field by field.
inline uint64_t operand(const void* tile, int step) {
  const uint64_t address = shared_address(tile) + step * kStep * 2;
  return (address & 0x3ffff) >> 4 | uint64_t(1) << 16 | uint64_t(8 * kFeatures * 2) >> 4 << 32 | uint64_t(1) << 62;
}

// Return one number of the operand that a descriptor describes: rows of 128 bytes, in groups of eight.
template <bool kBfloat16>
inline float element(uint64_t descriptor, int row, int feature) {
  const uint32_t start = (descriptor & 0x3fff) << 4, group = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1) host::fail("a descriptor must have the 128-byte swizzle");
  uint16_t bits;
  std::memcpy(&bits, host::block->shared + swizzled(start + row / 8 * group + row % 8 * 128 + feature * 2), 2);
  if constexpr (kBfloat16) return std::bit_cast<float>(uint32_t(bits) << 16);
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}

inline void products_begin() {}
inline void products_end() {
  if (!host::self().products.empty()) host::self().products.back().ends_group = true;
}
template <int kLeft>
inline void products_wait() {
  std::vector<host::Product>& waiting = host::self().products;
  auto groups =
      std::count_if(waiting.begin(), waiting.end(), [](const host::Product& product) { return product.ends_group; });
  auto done = waiting.begin();
  for (; groups > kLeft; ++done) {
    done->run();
    groups -= done->ends_group;
  }
  waiting.erase(waiting.begin(), done);
  __syncwarp();  // a warp waits as one
}
inline void products_done(float (&)[kSums]) {
  if (!host::self().products.empty()) host::fail("sums are read before all products are done");
}

template <bool kBfloat16>
inline void multiply(float (&sums)[kSums], uint64_t rows, uint64_t columns, bool add) {
  const int thread = threadIdx.x % kWarpgroup;
  host::self().products.push_back({[&sums, rows, columns, add, thread] {
                                     for (int i = 0; i < kSums; ++i) {
                                       const int row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (i % 4 / 2);
                                       const int column = i / 4 * 8 + 2 * (thread % 4) + i % 2;
                                       float sum = add ? sums[i] : 0.0f;
                                       for (int c = 0; c < kStep; ++c)
                                         sum +=
                                             element<kBfloat16>(rows, row, c) * element<kBfloat16>(columns, column, c);
                                       sums[i] = sum;
                                     }
                                   },
                                   false});
}

}  // namespace modalign::cuda::hopper

namespace host {

inline const std::function<void()>* kernel_of_block;

inline void run_thread() {
  (*kernel_of_block)();
  if (!self().stores.empty()) fail("a thread ends before its tiles have been read");
  self().ended = true;
  block->moved = true;
  swapcontext(&self().context, &block->scheduler);
}

// Run the blocks of a grid one after the other, each as `threads` threads.
inline void launch(int blocks, int threads, size_t bytes, const std::function<void()>& kernel) {
  constexpr size_t kStack = 64 << 10;
  std::mt19937 generator(0);
  std::uniform_int_distribution<int> one_in_sixteen(0, 15), nap(20, 200);
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  kernel_of_block = &kernel;
  gridDim.x = blocks;
  for (blockIdx.x = 0; blockIdx.x < unsigned(blocks); ++blockIdx.x) {
    Block current;
    block = &current;
    current.shared = static_cast<unsigned char*>(std::aligned_alloc(1024, (bytes + 1023) / 1024 * 1024));
    std::memset(current.shared, 0xff, bytes);  // NaNs
    current.threads.resize(threads);
    current.warps.resize(threads / 32);
    for (Thread& thread : current.threads) {
      thread.stack = std::make_unique<std::byte[]>(kStack);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.get();
      thread.context.uc_stack.ss_size = kStack;
      thread.context.uc_link = nullptr;
      makecontext(&thread.context, run_thread, 0);
    }
    int idle_rounds = 0;
    for (int left = threads; left > 0;) {
      std::shuffle(order.begin(), order.end(), generator);
      current.moved = false;
      left = 0;
      for (Warp& warp : current.warps) {
        if (warp.asleep == 0 && one_in_sixteen(generator) == 0) warp.asleep = nap(generator);
        if (warp.asleep > 0) --warp.asleep;
      }
      for (const int t : order) {
        if (current.threads[t].ended) continue;
        if (current.warps[t / 32].asleep > 0) {
          ++left;
          continue;
        }
        threadIdx.x = t;
        swapcontext(&current.scheduler, &current.threads[t].context);
        left += !current.threads[t].ended;
      }
      idle_rounds = current.moved ? 0 : idle_rounds + 1;
      if (idle_rounds > 1000) fail("deadlock");
    }
    std::free(current.shared);
  }
}

}  // namespace host
