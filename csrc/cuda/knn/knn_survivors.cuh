// The screen of the exact k-NN on sm_90a, for a gallery in float16 or bfloat16: every pair whose upper bound reaches a
// threshold is appended to the list of its row; `python/modalign/kernels/knn/survivors.py` has the task and its definition.
//
// A bound costs more than a comparison, and few pairs reach their threshold. Each row therefore gets, for the 256
// columns of a tile, the least product with which any of them could: with u = t a_i a_j + b_j + c_i e_j + f_i g_j,
//     t >= (threshold_i - max b - c_i max e - f_i max g) / a_i a,  a the largest a_j, or the least if that is negative.
// A thread compares its sums with it, and only what passes is put into a queue of its warp, to have its bound taken. A
// gallery that is searched for itself meets each pair once, j > i, and compares its product with row j's least too.
#pragma once

#include "cuda/knn/survivors.hpp"
#include "cuda/shared/tile_products.cuh"

namespace modalign::cuda {

constexpr int kExtremeRows = 128;  // gallery rows that have their extremes together
constexpr int kSquare = kTileColumns;
constexpr int kChunk = 16;           // columns looked at together
constexpr int kQueue = 16 * kChunk;  // what of them a warp can find
constexpr unsigned kAllLanes = 0xffffffffu;

struct Tile {
  int first_row, first_column;
  bool wanted;
};

struct Found {
  float product;
  int place;  // row * kTileColumns + column of the tile
};

struct SurvivorsShared {
  Ring ring;
  float row_least[kTileRows], col_least[kTileColumns];
  Found queue[kConsumers / 32][kQueue];
};

// Squares of 256 x 256, kTogether rows of them side by side so that their columns stay in the cache, in two tiles each.
// Those on and above the diagonal are folded into a rectangle: row i of them beside row squares - 1 - i.
template <bool kSymmetric>
__host__ __device__ inline int64_t tiles(int m, int n) {
  const int64_t down = (m + kSquare - 1) / kSquare, across = (n + kSquare - 1) / kSquare;
  return 2 * (kSymmetric ? (down + 1) / 2 * (down + 1) : down * across);
}

template <bool kSymmetric>
__device__ inline Tile tile_at(int64_t number, int m, int n) {
  constexpr int kTogether = 8;
  const int squares = (m + kSquare - 1) / kSquare;
  const int height = kSymmetric ? (squares + 1) / 2 : squares;
  const int width = kSymmetric ? squares + 1 : (n + kSquare - 1) / kSquare;
  const int half = number % 2;
  const int64_t square = number / 2;
  const int top = square / (int64_t(kTogether) * width) * kTogether;
  const int together = height - top < kTogether ? height - top : kTogether;
  const int inside = square % (int64_t(kTogether) * width);
  int i = top + inside % together, j = inside / together;
  bool wanted = true;
  if (kSymmetric) {
    const bool folded = j <= i;
    wanted = !folded || squares - 1 - i != i;
    i = folded ? squares - 1 - i : i;
    j = folded ? squares - 1 - j : j - 1;
  }
  return {i * kSquare + half * kTileRows, j * kSquare, wanted && i * kSquare + half * kTileRows < m};
}

__device__ inline Extremes both(Extremes a, Extremes b) {
  return {fmaxf(a.offset, b.offset), fmaxf(a.slack, b.slack), fmaxf(a.error, b.error),
          fmaxf(a.most_scale, b.most_scale), fminf(a.least_scale, b.least_scale)};
}

// No product below it has a bound that reaches the threshold, as float32 rounds it, with any column of these extremes.
__device__ inline float least_product(float threshold, float scale, float slack, float norm, Extremes of) {
  constexpr float kInfinity = __builtin_inff();
  constexpr float kRounding = 1e-6f;  // six roundings of the bound, and these
  if (fabsf(threshold) == kInfinity) return threshold;
  const float slacks = slack * of.slack + norm * of.error;
  const float rounding = kRounding * (fabsf(threshold) + fabsf(of.offset) + slacks);
  const float room = threshold - of.offset - slacks - rounding;
  const float factor = scale * (room > 0 ? of.most_scale : of.least_scale);
  if (!(factor > 0)) return room > 0 ? kInfinity : -kInfinity;
  const float least = room / factor;
  return least - kRounding * fabsf(least);
}

// Appends the gallery row `other` to the list of `owner` if its bound reaches the threshold.
__device__ inline void append(const Survivors& on, float product, int owner, int other) {
  float bound = product * on.row_scale[owner] * on.col_scale[other] + on.col_offset[other];
  bound += on.row_slack[owner] * on.col_slack[other] + on.row_norm[owner] * on.col_error[other];
  if (!(bound >= on.threshold[owner])) return;
  const int32_t slot = atomicAdd(on.counts + owner, 1);
  if (slot >= on.capacity) return;
  // ordered as (bound, lower row first)
  const int32_t bits = __float_as_int(bound);
  const int32_t ordered = bits < 0 ? bits ^ 0x7fffffff : bits;
  on.keys[int64_t(owner) * on.capacity + slot] = int64_t(uint64_t(uint32_t(ordered)) << 32 | (0xffffffffu - other));
}

template <bool kSymmetric>
__device__ inline void take(const Survivors& on, const Tile& tile, Found found) {
  const int row = tile.first_row + found.place / kTileColumns, column = tile.first_column + found.place % kTileColumns;
  if (row >= on.m || column >= on.n) return;
  if (on.row_group && on.row_group[row] == on.col_group[column]) return;
  if (kSymmetric) {
    if (column <= row) return;
    append(on, found.product, row, column);
    append(on, found.product, column, row);
  } else if (on.excluded[row] != column) {
    append(on, found.product, row, column);
  }
}

// What of a warpgroup's sums may survive. Every lane has 2 rows and, of every 8 columns, 2.
template <bool kSymmetric>
__device__ inline void look_through(const Survivors& on, const Tile& tile, SurvivorsShared& shared,
                                    const float (&sums)[hopper::kSums], int thread) {
  const int warp = thread / 32, lane = thread % 32;
  const int row = warp * 16 + lane / 4, pair = 2 * (lane % 4);
  const float least[2] = {shared.row_least[row], shared.row_least[row + 8]};
  Found* queue = shared.queue[warp];
#pragma unroll
  for (int chunk = 0; chunk < kTileColumns / kChunk; ++chunk) {
    bool passes[kChunk / 2], any = false;
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) {
      const float sum = sums[chunk * (kChunk / 2) + e];
      const int column = chunk * kChunk + e / 4 * 8 + pair + e % 2;
      passes[e] = sum >= least[e / 2 % 2] || (kSymmetric && sum >= shared.col_least[column]);
      any |= passes[e];
    }
    if (!__any_sync(kAllLanes, any)) continue;
    int waiting = 0;
#pragma unroll
    for (int e = 0; e < kChunk / 2; ++e) {
      const unsigned passing = __ballot_sync(kAllLanes, passes[e]);
      if (passes[e]) {
        const int column = chunk * kChunk + e / 4 * 8 + pair + e % 2;
        queue[waiting + __popc(passing & ((1u << lane) - 1))] = {sums[chunk * (kChunk / 2) + e],
                                                                 (row + e / 2 % 2 * 8) * kTileColumns + column};
      }
      waiting += __popc(passing);
    }
    __syncwarp();
    for (int i = lane; i < waiting; i += 32) take<kSymmetric>(on, tile, queue[i]);
    __syncwarp();
  }
}

template <bool kSymmetric, bool kBfloat16>
__global__ void __launch_bounds__(kThreads, 1)
    knn_survivors_kernel(const __grid_constant__ CUtensorMap rows, const __grid_constant__ CUtensorMap columns,
                         const __grid_constant__ Survivors on) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr float kInfinity = __builtin_inff();
  SurvivorsShared& shared = *reinterpret_cast<SurvivorsShared*>(hopper::shared_memory());
  if (threadIdx.x == 0) shared.ring.make();
  __syncthreads();
  const int64_t last = tiles<kSymmetric>(on.m, on.n);
  Place place;
  if (threadIdx.x >= kConsumers) {
    hopper::give_registers<kProducerRegisters>();
    if (threadIdx.x > kConsumers) return;
    for (int64_t number = blockIdx.x; number < last; number += gridDim.x) {
      const Tile tile = tile_at<kSymmetric>(number, on.m, on.n);
      if (tile.wanted) copy_products(shared.ring, place, &rows, &columns, tile.first_row, tile.first_column, on.d);
    }
    return;
  }
  hopper::take_registers<kConsumerRegisters>();
  const int thread = threadIdx.x;
  float sums[hopper::kSums];
  for (int64_t number = blockIdx.x; number < last; number += gridDim.x) {
    const Tile tile = tile_at<kSymmetric>(number, on.m, on.n);
    if (!tile.wanted) continue;
    hopper::meet(1, kConsumers);  // nobody looks at the last tile's least products any more
    const Extremes* of_columns = on.extremes + tile.first_column / kExtremeRows;
    if (thread < kTileRows) {
      const int row = tile.first_row + thread;
      shared.row_least[thread] = row < on.m ? least_product(on.threshold[row], on.row_scale[row], on.row_slack[row],
                                                            on.row_norm[row], both(of_columns[0], of_columns[1]))
                                            : kInfinity;
    }
    if (kSymmetric) {
      const int column = tile.first_column + thread;
      shared.col_least[thread] = column < on.n
                                     ? least_product(on.threshold[column], on.row_scale[column], on.row_slack[column],
                                                     on.row_norm[column], on.extremes[tile.first_row / kExtremeRows])
                                     : kInfinity;
    }
    hopper::meet(1, kConsumers);
    multiply_tile<kBfloat16>(shared.ring, place, sums, on.d, thread / hopper::kWarpgroup);
    look_through<kSymmetric>(on, tile, shared, sums, thread);
  }
#else
  __trap();  // built without sm_90a
#endif
}

}  // namespace modalign::cuda
