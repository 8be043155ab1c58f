// The screen of exact k-NN on sm_90a, for a gallery in float16 or bfloat16: every pair whose upper bound reaches a
// threshold is appended to the list of its row. `python/modalign/kernels/knn/survivors.py` defines it.
//
// A bound costs more than a comparison, and few pairs reach their threshold. Each row therefore gets, for the 256
// columns of a tile, the least product with which any of them could: with u = t a_i a_j + b_j + c_i e_j + f_i g_j,
//     t >= (threshold_i - max b - c_i max e - f_i max g) / a_i a,
// where a is the largest a_j, or the smallest if the numerator is negative. A thread compares its products with it, and
// only those that reach it go into a queue of its warp, where their bounds are computed. A gallery that is searched in
// itself meets each pair once, j > i, and compares the product with the least product of row j too.
#pragma once

#include "cuda/knn/survivors.hpp"
#include "cuda/shared/tile_products.cuh"

namespace modalign::cuda {

constexpr int kExtremeRows = 128;  // gallery rows that share one Extremes
constexpr int kSquare = kTileColumns;
constexpr int kChunk = 16;           // columns that a warp compares at once
constexpr int kQueue = 16 * kChunk;  // pairs of a warp in these columns
constexpr unsigned kAllLanes = 0xffffffffu;

struct Tile {
  int first_row, first_column;
  bool wanted;
};

struct Candidate {
  float product;
  int index;  // row * kTileColumns + column of the tile
};

struct SurvivorsShared {
  Ring ring;
  float row_least[kTileRows], col_least[kTileColumns];
  Candidate queue[kConsumers / 32][kQueue];
};

// The number of tiles. They are halves of squares of 256 x 256, which are visited in bands of kBand rows of squares, so
// that their columns stay in the cache. In a symmetric search the squares on and above the diagonal are folded into a
// rectangle: row i of squares beside row squares - 1 - i.
template <bool kSymmetric>
__host__ __device__ inline int64_t tiles(int m, int n) {
  const int64_t down = (m + kSquare - 1) / kSquare, across = (n + kSquare - 1) / kSquare;
  return 2 * (kSymmetric ? (down + 1) / 2 * (down + 1) : down * across);
}

template <bool kSymmetric>
__device__ inline Tile tile_at(int64_t number, int m, int n) {
  constexpr int kBand = 8;
  const int squares = (m + kSquare - 1) / kSquare;
  const int height = kSymmetric ? (squares + 1) / 2 : squares;
  const int width = kSymmetric ? squares + 1 : (n + kSquare - 1) / kSquare;
  const int half = number % 2;
  const int64_t square = number / 2;
  const int top = square / (int64_t(kBand) * width) * kBand;
  const int band = height - top < kBand ? height - top : kBand;
  const int inside = square % (int64_t(kBand) * width);
  int i = top + inside % band, j = inside / band;
  bool wanted = true;
  if (kSymmetric) {
    const bool folded = j <= i;
    wanted = !folded || squares - 1 - i != i;
    i = folded ? squares - 1 - i : i;
    j = folded ? squares - 1 - j : j - 1;
  }
  return {i * kSquare + half * kTileRows, j * kSquare, wanted && i * kSquare + half * kTileRows < m};
}

__device__ inline Extremes combine(Extremes a, Extremes b) {
  return {fmaxf(a.offset, b.offset), fmaxf(a.slack, b.slack), fmaxf(a.error, b.error),
          fmaxf(a.most_scale, b.most_scale), fminf(a.least_scale, b.least_scale)};
}

// Return the least product whose bound, as float32 rounds it, can reach the threshold with a column of these extremes.
__device__ inline float least_product(const Survivors& tables, int row, Extremes extremes) {
  constexpr float kInfinity = __builtin_inff();
  constexpr float kRounding = 1e-6f;  // covers six roundings of the bound, and those here
  const float threshold = tables.threshold[row];
  const float scale = tables.row_scale[row], slack = tables.row_slack[row], norm = tables.row_norm[row];
  if (fabsf(threshold) == kInfinity) return threshold;
  const float slacks = slack * extremes.slack + norm * extremes.error;
  const float rounding = kRounding * (fabsf(threshold) + fabsf(extremes.offset) + slacks);
  const float gap = threshold - extremes.offset - slacks - rounding;
  const float factor = scale * (gap > 0 ? extremes.most_scale : extremes.least_scale);
  if (!(factor > 0)) return gap > 0 ? kInfinity : -kInfinity;
  const float least = gap / factor;
  return least - kRounding * fabsf(least);
}

// Append the gallery row `candidate` to the list of `searcher` if its bound reaches the threshold.
__device__ inline void append(const Survivors& tables, float product, int searcher, int candidate) {
  float bound = product * tables.row_scale[searcher] * tables.col_scale[candidate] + tables.col_offset[candidate];
  bound += tables.row_slack[searcher] * tables.col_slack[candidate] +
           tables.row_norm[searcher] * tables.col_error[candidate];
  if (!(bound >= tables.threshold[searcher])) return;
  const int32_t slot = atomicAdd(tables.counts + searcher, 1);
  if (slot >= tables.capacity) return;
  // ordered as (bound, lower row first)
  const int32_t bits = __float_as_int(bound);
  const int32_t ordered = bits < 0 ? bits ^ 0x7fffffff : bits;
  tables.keys[int64_t(searcher) * tables.capacity + slot] =
      int64_t(uint64_t(uint32_t(ordered)) << 32 | (0xffffffffu - candidate));
}

// Append one candidate of a tile to the lists of its row and, in a symmetric search, of its column.
template <bool kSymmetric>
__device__ inline void append_pair(const Survivors& tables, const Tile& tile, Candidate candidate) {
  const int row = tile.first_row + candidate.index / kTileColumns,
            column = tile.first_column + candidate.index % kTileColumns;
  if (row >= tables.m || column >= tables.n) return;
  if (tables.row_group && tables.row_group[row] == tables.col_group[column]) return;
  if (kSymmetric) {
    if (column <= row) return;
    append(tables, candidate.product, row, column);
    append(tables, candidate.product, column, row);
  } else if (tables.excluded[row] != column) {
    append(tables, candidate.product, row, column);
  }
}

// Compare the products of a warpgroup with the least ones, and append the pairs that survive. Every lane has 2 rows and
// 2 of every 8 columns.
template <bool kSymmetric>
__device__ inline void compare_products(const Survivors& tables, const Tile& tile, SurvivorsShared& shared,
                                        const float (&sums)[hopper::kSums], int thread) {
  const int warp = thread / 32, lane = thread % 32;
  const int row = warp * 16 + lane / 4, pair = 2 * (lane % 4);
  const float least[2] = {shared.row_least[row], shared.row_least[row + 8]};
  Candidate* queue = shared.queue[warp];
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
    for (int i = lane; i < waiting; i += 32) append_pair<kSymmetric>(tables, tile, queue[i]);
    __syncwarp();
  }
}

template <bool kSymmetric, bool kBfloat16>
__global__ void __launch_bounds__(kThreads, 1)
    knn_survivors_kernel(const __grid_constant__ CUtensorMap rows, const __grid_constant__ CUtensorMap columns,
                         const __grid_constant__ Survivors tables) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr float kInfinity = __builtin_inff();
  SurvivorsShared& shared = *reinterpret_cast<SurvivorsShared*>(hopper::shared_memory());
  if (threadIdx.x == 0) shared.ring.make();
  __syncthreads();
  const int64_t last = tiles<kSymmetric>(tables.m, tables.n);
  Place place;
  if (threadIdx.x >= kConsumers) {
    hopper::give_registers<kProducerRegisters>();
    if (threadIdx.x > kConsumers) return;
    for (int64_t number = blockIdx.x; number < last; number += gridDim.x) {
      const Tile tile = tile_at<kSymmetric>(number, tables.m, tables.n);
      if (tile.wanted)
        copy_products(shared.ring, place, {&rows, &columns, tables.d}, tile.first_row, tile.first_column);
    }
    return;
  }
  hopper::take_registers<kConsumerRegisters>();
  const int thread = threadIdx.x;
  float sums[hopper::kSums];
  for (int64_t number = blockIdx.x; number < last; number += gridDim.x) {
    const Tile tile = tile_at<kSymmetric>(number, tables.m, tables.n);
    if (!tile.wanted) continue;
    hopper::meet(1, kConsumers);  // every thread has read the least products of the last tile
    const Extremes* extremes = tables.extremes + tile.first_column / kExtremeRows;
    const int row = tile.first_row + thread, column = tile.first_column + thread;
    if (thread < kTileRows)
      shared.row_least[thread] =
          row < tables.m ? least_product(tables, row, combine(extremes[0], extremes[1])) : kInfinity;
    if (kSymmetric)
      shared.col_least[thread] =
          column < tables.n ? least_product(tables, column, tables.extremes[tile.first_row / kExtremeRows]) : kInfinity;
    hopper::meet(1, kConsumers);
    multiply_tile<kBfloat16>(shared.ring, place, sums, tables.d, thread / hopper::kWarpgroup);
    compare_products<kSymmetric>(tables, tile, shared, sums, thread);
  }
#else
  __trap();  // built without sm_90a
#endif
}

}  // namespace modalign::cuda
