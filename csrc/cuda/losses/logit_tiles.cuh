// Tiles of logits: which block and thread works on which logits, and combinations over the lanes of a warp.
#pragma once

#include "cuda/losses/info_nce_tables.hpp"
#include "cuda/shared/tile_products.cuh"

namespace modalign::cuda {

constexpr int kWarpgroupRows = kTileRows / 2;
constexpr int kWarps = kConsumers / 32, kWarpgroupWarps = kWarps / 2;
constexpr int kWarpRows = 16;
constexpr unsigned kEveryLane = 0xffffffffu;
constexpr float kNoLogit = -__builtin_inff();
// exp(-kSpread) is a normal number, and so are its products with sums below exp(kSpread)
constexpr float kSpread = 80;

// The logits of a thread: sums[4 g + 2 h + e] belongs to row 8 h and column 8 g + e, counted from `row` and `column`.
struct Fragment {
  int warp, lane, row, column;

  __device__ explicit Fragment(unsigned thread)
      : warp(thread / 32),
        lane(thread % 32),
        row(thread / 32 * kWarpRows + thread % 32 / 4),
        column(2 * (thread % 4)) {}
};

__host__ __device__ inline int tiles(const Part& part) {
  return (part.rows + kTileRows - 1) / kTileRows * ((part.cols + kTileColumns - 1) / kTileColumns);
}

// The first row and column of a tile in S.
struct TileOrigin {
  int row, column;

  __device__ bool has_positives() const { return row < column + kTileColumns && column < row + kTileRows; }
};

// Visit the tiles of a block in a part of S, column by column. A warpgroup calls prepare(origin), then use(origin,
// sums).
template <class Prepare, class Use>
__device__ inline void each_tile(Ring& ring, const ProductMaps& maps, const Part& part, Prepare prepare, Use use) {
  if (threadIdx.x == 0) ring.make();
  __syncthreads();
  const unsigned down = (part.rows + kTileRows - 1) / kTileRows;
  Place place;
  if (threadIdx.x >= kConsumers) {
    hopper::give_registers<kProducerRegisters>();
    if (threadIdx.x > kConsumers) return;
    for (unsigned tile = blockIdx.x; tile < unsigned(tiles(part)); tile += gridDim.x)
      copy_products(ring, place, maps, part.row + tile % down * kTileRows, part.col + tile / down * kTileColumns);
    return;
  }
  hopper::take_registers<kConsumerRegisters>();
  const int warpgroup = threadIdx.x / hopper::kWarpgroup;
  if (blockIdx.x < unsigned(tiles(part))) fall_behind(ring, maps.d, warpgroup);
  float sums[hopper::kSums];
  for (unsigned tile = blockIdx.x; tile < unsigned(tiles(part)); tile += gridDim.x) {
    const TileOrigin origin = {int(part.row + tile % down * kTileRows), int(part.col + tile / down * kTileColumns)};
    prepare(origin);
    multiply_tile<true>(ring, place, sums, maps.d, warpgroup);
    use(origin, sums);
  }
}

__device__ inline void meet_warpgroup(int warp) { hopper::meet(1 + warp / kWarpgroupWarps, hopper::kWarpgroup); }

// Combine the values of all rows of a warp. values[2 g + e] of a lane belongs to column 8 g + e, counted as in
// Fragment, and lanes that differ in lane / 4 have different rows. Afterwards values[k], k < 8, belongs to column
// kept_column(k).
template <int kBit = 16, class Combine>
__device__ inline void combine_rows(float (&values)[hopper::kSums / 2], int lane, Combine combine) {
  constexpr int kHalf = 2 * kBit;
  const bool upper = lane & kBit;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const float sent = upper ? values[k] : values[k + kHalf], kept = upper ? values[k + kHalf] : values[k];
    values[k] = combine(kept, __shfl_xor_sync(kEveryLane, sent, kBit));
  }
  if constexpr (kBit > 4) combine_rows<kBit / 2>(values, lane, combine);
}

__device__ inline int kept_column(const Fragment& fragment, int k) {
  return 8 * (fragment.lane / 4 * 4 + k / 2) + fragment.column + k % 2;
}

// Combine a value over the lanes that differ in the bits from kFirst up to kLast.
template <int kFirst, int kLast, class Combine>
__device__ inline float combine_lanes(float value, Combine combine) {
#pragma unroll
  for (int bit = kFirst; bit < kLast; bit *= 2) value = combine(value, __shfl_xor_sync(kEveryLane, value, bit));
  return value;
}

__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float smaller(float a, float b) { return fminf(a, b); }
__device__ inline float added(float a, float b) { return a + b; }

// exp(logit - reference), or 0 (not NaN) if both are -inf.
__device__ inline float exponential(float logit, float reference) {
  return __expf(logit - (reference == kNoLogit ? 0 : reference));
}

}  // namespace modalign::cuda
