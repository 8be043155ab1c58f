// The forward pass of InfoNCE on tiles of logits: the sums of their rows and columns.
#pragma once

#include "cuda/losses/logit_tiles.cuh"

namespace modalign::cuda {

struct SumsShared {
  Ring ring;
  float largest[kWarps][kTileColumns], sum[kWarps][kTileColumns];  // of each column over the 16 rows of a warp
};

// The sums of this warpgroup's half of a tile. kAll: every entry counts.
template <bool kAll>
struct SumsTile {
  const Sums& tables;
  SumsShared& shared;
  const Fragment& fragment;
  TileOrigin origin;
  int last_row;
  int row, column;  // of the first logit of this thread
  bool exists[2];   // whether its two rows, 8 apart, are in the part
  float scale[2];

  __device__ SumsTile(const Sums& tables, SumsShared& shared, const Fragment& fragment, TileOrigin origin)
      : tables(tables),
        shared(shared),
        fragment(fragment),
        origin(origin),
        last_row(tables.part.row + tables.part.rows),
        row(origin.row + fragment.row),
        column(origin.column + fragment.column),
        exists{row < last_row, row + 8 < last_row},
        scale{exists[0] ? tables.scale[row] : 0, exists[1] ? tables.scale[row + 8] : 0} {}

  __device__ int first_row() const { return origin.row + fragment.warp / kWarpgroupWarps * kWarpgroupRows; }

  // Return whether logit i of this thread counts.
  __device__ bool counts(int i) const {
    const int offset = i / 4 * 8 + i % 2;
    return kAll || (offset < tables.m - column && !(tables.pairs_left_out && row - column == offset - i / 2 % 2 * 8));
  }

  __device__ void write_positives(const float (&dots)[hopper::kSums]) const {
    float dot[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < hopper::kSums; ++i)
      if (row - column == i / 4 * 8 + i % 2 - i / 2 % 2 * 8) dot[i / 2 % 2] = dots[i];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int ahead = row + 8 * half - column;
      if (exists[half] && ahead >= 0 && ahead < kTileColumns && ahead % 8 < 2)
        tables.positive[row + 8 * half] = __fmul_rn(dot[half], scale[half]);
    }
  }

  // Each column of the warp gets its own reference and exponentials.
  __device__ void sum_columns_apart(const float (&dots)[hopper::kSums]) const {
#pragma unroll
    for (int k = 0; k < hopper::kSums / 2; ++k) {
      const int i = k / 2 * 4 + k % 2, c = 8 * (k / 2) + fragment.column + k % 2;
      const float logit[2] = {exists[0] && counts(i) ? __fmul_rn(dots[i], scale[0]) : kNoLogit,
                              exists[1] && counts(i + 2) ? __fmul_rn(dots[i + 2], scale[1]) : kNoLogit};
      const float largest = combine_lanes<4, 32>(fmaxf(logit[0], logit[1]), larger);
      const float sum = combine_lanes<4, 32>(exponential(logit[0], largest) + exponential(logit[1], largest), added);
      if (fragment.lane < 4) {
        shared.largest[fragment.warp][c] = largest;
        shared.sum[fragment.warp][c] = sum;
      }
      if (k % 4 == 3) __syncwarp();  // limits the columns in flight, and so the registers
    }
  }

  // The exponentials of the rows serve the columns too, with the largest logit of the warp as the reference.
  __device__ void sum_columns_together(const float (&exponentials)[hopper::kSums], const float (&largest)[2],
                                       float top) const {
    const float factor[2] = {exists[0] ? exponential(largest[0], top) : 0,
                             exists[1] ? exponential(largest[1], top) : 0};
    float values[hopper::kSums / 2];
#pragma unroll
    for (int k = 0; k < hopper::kSums / 2; ++k)
      values[k] = exponentials[k / 2 * 4 + k % 2] * factor[0] + exponentials[k / 2 * 4 + 2 + k % 2] * factor[1];
    combine_rows(values, fragment.lane, added);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      shared.largest[fragment.warp][kept_column(fragment, k)] = top;
      shared.sum[fragment.warp][kept_column(fragment, k)] = values[k];
    }
  }

  __device__ void write_row_parts(const float (&largest)[2], float (&total)[2]) const {
    float* row_parts = tables.row_parts + origin.column / kTileColumns * 2 * tables.row_stride - tables.part.row;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] = combine_lanes<1, 4>(total[half], added);
      if (fragment.lane % 4 == 0 && exists[half]) {
        row_parts[row + 8 * half] = largest[half];
        row_parts[row + 8 * half + tables.row_stride] = total[half];
      }
    }
  }

  // Combine the columns of the four warps, which must have met.
  __device__ void write_col_parts() const {
    const int first_warp = fragment.warp / kWarpgroupWarps * kWarpgroupWarps;
    const int part = 1 + (first_row() - tables.part.row) / kWarpgroupRows;
    float* col_parts = tables.col_parts + part * int64_t(2) * tables.m;
    for (int c = threadIdx.x % hopper::kWarpgroup; c < kTileColumns && origin.column + c < tables.m;
         c += hopper::kWarpgroup) {
      float most = kNoLogit, sum = 0;
      for (int warp = first_warp; warp < first_warp + kWarpgroupWarps; ++warp)
        most = fmaxf(most, shared.largest[warp][c]);
      for (int warp = first_warp; warp < first_warp + kWarpgroupWarps; ++warp)
        sum += shared.sum[warp][c] * exponential(shared.largest[warp][c], most);
      col_parts[origin.column + c] = most;
      col_parts[origin.column + c + tables.m] = sum;
    }
  }
};

// Write the sums of this warpgroup's half of a tile. `dots`, which are not scaled yet, are overwritten.
template <bool kAll>
__device__ inline void write_sums(const SumsTile<kAll>& tile, float (&dots)[hopper::kSums]) {
  const Sums& tables = tile.tables;
  const bool (&exists)[2] = tile.exists;
  if (tile.first_row() >= tile.last_row) return;
  if (tables.positive && tile.origin.has_positives()) tile.write_positives(dots);
  // scales are positive: the largest product is the largest logit
  float least[2] = {-kNoLogit, -kNoLogit}, largest[2] = {kNoLogit, kNoLogit};
#pragma unroll
  for (int i = 0; i < hopper::kSums; ++i) {
    least[i / 2 % 2] = fminf(least[i / 2 % 2], dots[i]);
    largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], tile.counts(i) ? dots[i] : kNoLogit);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    largest[half] = __fmul_rn(combine_lanes<1, 4>(largest[half], larger), tile.scale[half]);
    least[half] = __fmul_rn(least[half], tile.scale[half]);
  }
  const float top =
      combine_lanes<1, 32>(fmaxf(exists[0] ? largest[0] : kNoLogit, exists[1] ? largest[1] : kNoLogit), larger);
  const bool together = top - combine_lanes<1, 32>(fminf(least[0], least[1]), smaller) <= kSpread;

  if (tables.col_parts) {
    meet_warpgroup(tile.fragment.warp);  // every thread has read the columns of the last tile
    if (!together) tile.sum_columns_apart(dots);
  }
  float total[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < hopper::kSums; ++i) {
    const int half = i / 2 % 2;
    dots[i] = tile.counts(i) ? __expf(__fmul_rn(dots[i], tile.scale[half]) - largest[half]) : 0;
    total[half] += dots[i];
  }
  tile.write_row_parts(largest, total);
  if (!tables.col_parts) return;
  if (together) tile.sum_columns_together(dots, largest, top);
  meet_warpgroup(tile.fragment.warp);
  tile.write_col_parts();
}

__global__ void __launch_bounds__(kThreads, 1)
    info_nce_sums_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                         const __grid_constant__ Sums tables) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  SumsShared& shared = *reinterpret_cast<SumsShared*>(hopper::shared_memory());
  const Fragment fragment(threadIdx.x);
  each_tile(
      shared.ring, {&x, &y, tables.d}, tables.part, [](TileOrigin) {},
      [&](TileOrigin origin, float (&dots)[hopper::kSums]) {
        if (origin.column + kTileColumns <= tables.m && !(tables.pairs_left_out && origin.has_positives()))
          write_sums(SumsTile<true>(tables, shared, fragment, origin), dots);
        else
          write_sums(SumsTile<false>(tables, shared, fragment, origin), dots);
      });
#else
  __trap();  // built without sm_90a
#endif
}

}  // namespace modalign::cuda
