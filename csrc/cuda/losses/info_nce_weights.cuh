// The backward pass of InfoNCE on tiles of logits: their weights.
#pragma once

#include "cuda/losses/logit_tiles.cuh"

namespace modalign::cuda {

struct WeightsShared {
  Ring ring;
  alignas(hopper::kTileAlignment) uint16_t staged[kWarps][kWarpRows * hopper::kFeatures];
  float col_lse[2][kTileColumns], col_factor[2][kTileColumns];  // for each warpgroup
  float least[kWarps], most[kWarps];
};

// The middle of a tile's log-sum-exps; `is_near` if all of them lie within kSpread.
struct Middle {
  float value;
  bool is_near;
};

// Replace the log-sum-exp of a row or column without entries by one that makes its weights 0.
__device__ inline float finite_lse(float lse) { return lse == kNoLogit ? -kNoLogit : lse; }

// Read the log-sum-exps of a tile, and write those of its columns and their factors to shared memory.
__device__ inline Middle prepare_weights(const Weights& tables, WeightsShared& shared, TileOrigin origin,
                                         const Fragment& fragment) {
  const int thread = threadIdx.x % hopper::kWarpgroup, warpgroup = threadIdx.x / hopper::kWarpgroup;
  const int row = origin.row + warpgroup * kWarpgroupRows + thread;
  float least = -kNoLogit, most = kNoLogit, lse[2] = {-kNoLogit, -kNoLogit};
  if (thread < kWarpgroupRows && row < tables.n) least = most = finite_lse(tables.row_lse[row]);
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = origin.column + thread + part * hopper::kWarpgroup;
    if (column >= tables.m || !tables.col_grad) continue;
    lse[part] = finite_lse(tables.col_lse[column]);
    least = fminf(least, lse[part]);
    most = fmaxf(most, lse[part]);
  }
  least = combine_lanes<1, 32>(least, smaller);
  most = combine_lanes<1, 32>(most, larger);
  if (fragment.lane == 0) {
    shared.least[fragment.warp] = least;
    shared.most[fragment.warp] = most;
  }
  meet_warpgroup(fragment.warp);  // and every thread has read the columns of the last tile
  for (int warp = warpgroup * kWarpgroupWarps; warp < (warpgroup + 1) * kWarpgroupWarps; ++warp) {
    least = fminf(least, shared.least[warp]);
    most = fmaxf(most, shared.most[warp]);
  }
  const Middle middle = {least / 2 + most / 2, most - least <= kSpread};
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int c = thread + part * hopper::kWarpgroup, column = origin.column + c;
    const float grad = tables.col_grad && column < tables.m ? tables.col_grad[column] : 0;
    shared.col_lse[warpgroup][c] = lse[part];
    shared.col_factor[warpgroup][c] = middle.is_near ? grad * __expf(middle.value - lse[part]) : grad;
  }
  meet_warpgroup(fragment.warp);
  return middle;
}

// A tile of weights: the tables that it comes from, and the map of the table that it goes to.
struct WeightsTile {
  const Weights& tables;
  WeightsShared& shared;
  const CUtensorMap& output;
  TileOrigin origin;
  const Fragment& fragment;
};

// Write the weights of this warpgroup's half of a tile, 64 columns of a warp at a time. kNear: one exponential an
// entry.
template <bool kNear>
__device__ inline void write_weights(const WeightsTile& tile, const float (&sums)[hopper::kSums], float middle) {
  const auto& [tables, shared, output, origin, fragment] = tile;
  const int warpgroup = fragment.warp / kWarpgroupWarps;
  const int row = origin.row + fragment.row, column = origin.column + fragment.column;
  float scale[2], lse[2], grad[2], positive[2];  // grad is times scale, and if kNear times exp(middle - lse)
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int i = row + 8 * half;
    const bool exists = i < tables.n;
    scale[half] = exists ? tables.scale[i] : 0;
    lse[half] = exists ? finite_lse(tables.row_lse[i]) : 0;
    grad[half] = exists && tables.row_grad ? scale[half] * tables.row_grad[i] : 0;
    positive[half] = exists && tables.positive_grad ? scale[half] * tables.positive_grad[i] : 0;
    if (kNear && exists) grad[half] *= __expf(middle - lse[half]);
  }
  const bool diagonal = (tables.positive_grad || tables.pairs_left_out) && origin.has_positives();
  unsigned char* staged = reinterpret_cast<unsigned char*>(shared.staged[fragment.warp]);
#pragma unroll
  for (int chunk = 0; chunk < kTileColumns / hopper::kFeatures; ++chunk) {
    constexpr int kPairs = hopper::kFeatures / 8 * 2;  // of a lane: its two rows of every 8 columns
    uint32_t pairs[kPairs];
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int group = chunk * (hopper::kFeatures / 8) + k / 2, half = k % 2;
      float weight[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int c = group * 8 + fragment.column + e;
        const float logit = __fmul_rn(sums[group * 4 + half * 2 + e], scale[half]);
        const float factor = shared.col_factor[warpgroup][c];
        if constexpr (kNear)
          weight[e] = __expf(logit - middle) * (grad[half] + scale[half] * factor);
        else
          weight[e] = grad[half] * __expf(logit - lse[half]) +
                      scale[half] * factor * __expf(logit - shared.col_lse[warpgroup][c]);
        if (diagonal && row - column == group * 8 + e - 8 * half)
          weight[e] = tables.pairs_left_out ? positive[half] : weight[e] + positive[half];
      }
      pairs[k] = hopper::bfloat16_pair(weight[0], weight[1]);
    }
    if (fragment.lane == 0) hopper::stores_wait();
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int offset = (fragment.lane / 4 + 8 * (k % 2)) * hopper::kFeatures * 2 + (k / 2 * 8 + fragment.column) * 2;
      *reinterpret_cast<uint32_t*>(staged + hopper::swizzled(offset)) = pairs[k];
    }
    hopper::stores_begin();
    __syncwarp();
    if (fragment.lane == 0)
      hopper::store_tile(&output, origin.column - tables.part.col + chunk * hopper::kFeatures,
                         origin.row - tables.part.row + fragment.warp * kWarpRows, staged);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    info_nce_weights_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                            const __grid_constant__ CUtensorMap output, const __grid_constant__ Weights tables) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  WeightsShared& shared = *reinterpret_cast<WeightsShared*>(hopper::shared_memory());
  const Fragment fragment(threadIdx.x);
  Middle middle;
  each_tile(
      shared.ring, {&x, &y, tables.d}, tables.part,
      [&](TileOrigin origin) { middle = prepare_weights(tables, shared, origin, fragment); },
      [&](TileOrigin origin, float (&sums)[hopper::kSums]) {
        const WeightsTile tile = {tables, shared, output, origin, fragment};
        if (middle.is_near)
          write_weights<true>(tile, sums, middle.value);
        else
          write_weights<false>(tile, sums, middle.value);
      });
  if (threadIdx.x < kConsumers && fragment.lane == 0) hopper::stores_wait();
#else
  __trap();  // built without sm_90a
#endif
}

}  // namespace modalign::cuda
