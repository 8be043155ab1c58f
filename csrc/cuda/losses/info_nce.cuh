// InfoNCE in bfloat16 on sm_90a, tile by tile of 128 x 256 logits: what a tile adds to the log-sum-exps of its rows and
// columns (forward), and its weights in bfloat16 (backward), whose products with the tables are a matrix product's
// work. `kernels/losses/info_nce.py` has the definition, what becomes of the parts, and the bands.
//
// One exponential serves a row and a column wherever that is safe. Forward, exp(S - the row's largest in the tile) is
// summed along the row, and times exp(that - the warp's largest) down the column, unless the logits of the warp's 16
// rows differ by so much that a column's sum could be lost. Backward, exp(S - c) (u_i + v_j), unless the log-sum-exps
// of the tile are too far apart for one c.
//
// The warpgroups meet nowhere: one multiplies while the other takes exponentials.
#pragma once

#include "cuda/losses/info_nce_tables.hpp"
#include "cuda/shared/tile_products.cuh"

namespace modalign::cuda {

constexpr int kOwnRows = kTileRows / 2;  // of a warpgroup
constexpr int kWarps = kConsumers / 32, kOwnWarps = kWarps / 2;
constexpr int kWarpRows = 16;
constexpr unsigned kEveryLane = 0xffffffffu;
constexpr float kNothing = -__builtin_inff();
constexpr float kSpread = 80;  // exp(-kSpread) is a normal number, and so are its products with sums below exp(kSpread)

struct SumsShared {
  Ring ring;
  float largest[kWarps][kTileColumns], sum[kWarps][kTileColumns];  // of each column in the 16 rows of a warp
};

struct WeightsShared {
  Ring ring;
  alignas(hopper::kTileAlignment) uint16_t staged[kWarps][kWarpRows * hopper::kFeatures];
  float col_lse[2][kTileColumns], col_factor[2][kTileColumns];  // for each warpgroup
  float least[kWarps], most[kWarps];
};

// What a thread holds: sums[4 g + 2 h + e] is of row 8 h and column 8 g + e, counted from these.
struct Held {
  int warp, lane, row, column;

  __device__ explicit Held(unsigned thread)
      : warp(thread / 32),
        lane(thread % 32),
        row(thread / 32 * kWarpRows + thread % 32 / 4),
        column(2 * (thread % 4)) {}
};

__host__ __device__ inline int tiles(const Part& part) {
  return (part.rows + kTileRows - 1) / kTileRows * ((part.cols + kTileColumns - 1) / kTileColumns);
}

// The tiles of a block, those of one column after the other. A warpgroup calls prepare(first row, first column), then
// use(first row, first column, sums).
template <class Prepare, class Use>
__device__ inline void each_tile(Ring& ring, const CUtensorMap& x, const CUtensorMap& y, const Part& part, int d,
                                 Prepare prepare, Use use) {
  if (threadIdx.x == 0) ring.make();
  __syncthreads();
  const unsigned down = (part.rows + kTileRows - 1) / kTileRows;
  Place place;
  if (threadIdx.x >= kConsumers) {
    hopper::give_registers<kProducerRegisters>();
    if (threadIdx.x > kConsumers) return;
    for (unsigned tile = blockIdx.x; tile < unsigned(tiles(part)); tile += gridDim.x)
      copy_products(ring, place, &x, &y, part.row + tile % down * kTileRows, part.col + tile / down * kTileColumns, d);
    return;
  }
  hopper::take_registers<kConsumerRegisters>();
  const int warpgroup = threadIdx.x / hopper::kWarpgroup;
  if (blockIdx.x < unsigned(tiles(part))) fall_behind(ring, d, warpgroup);
  float sums[hopper::kSums];
  for (unsigned tile = blockIdx.x; tile < unsigned(tiles(part)); tile += gridDim.x) {
    const int row = part.row + tile % down * kTileRows, column = part.col + tile / down * kTileColumns;
    prepare(row, column);
    multiply_tile<true>(ring, place, sums, d, warpgroup);
    use(row, column, sums);
  }
}

__device__ inline void meet_own(int warp) { hopper::meet(1 + warp / kOwnWarps, hopper::kWarpgroup); }

// Whether a tile has pairs of its diagonal.
__device__ inline bool has_positives(int first_row, int first_column) {
  return first_row < first_column + kTileColumns && first_column < first_row + kTileRows;
}

// values[2 g + e] of a lane are of column 8 g + e, as Held has it, and lanes that differ in lane / 4 have other rows.
// Afterwards its first eight are of all rows, those of column kept_column(k).
template <int kBit = 16, class Combine>
__device__ inline void across_rows(float (&values)[hopper::kSums / 2], int lane, Combine combine) {
  constexpr int kHalf = 2 * kBit;
  const bool upper = lane & kBit;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const float sent = upper ? values[k] : values[k + kHalf], kept = upper ? values[k + kHalf] : values[k];
    values[k] = combine(kept, __shfl_xor_sync(kEveryLane, sent, kBit));
  }
  if constexpr (kBit > 4) across_rows<kBit / 2>(values, lane, combine);
}

__device__ inline int kept_column(const Held& held, int k) {
  return 8 * (held.lane / 4 * 4 + k / 2) + held.column + k % 2;
}

// Over the lanes that differ in the bits from kFirst up to kLast.
template <int kFirst, int kLast, class Combine>
__device__ inline float across(float value, Combine combine) {
#pragma unroll
  for (int bit = kFirst; bit < kLast; bit *= 2) value = combine(value, __shfl_xor_sync(kEveryLane, value, bit));
  return value;
}

__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float smaller(float a, float b) { return fminf(a, b); }
__device__ inline float added(float a, float b) { return a + b; }

// exp(logit - reference), and 0, not NaN, if both are -inf.
__device__ inline float exponential(float logit, float reference) {
  return __expf(logit - (reference == kNothing ? 0 : reference));
}

// Each column of a warp on its own: its largest logit, and the sum of the exponentials below it.
template <class Counts>
__device__ inline void sum_columns_apart(const Sums& on, SumsShared& shared, int row,
                                         const float (&dots)[hopper::kSums], const Held& held, const bool (&real)[2],
                                         Counts counts) {
  const float scale[2] = {real[0] ? on.scale[row] : 0, real[1] ? on.scale[row + 8] : 0};
#pragma unroll
  for (int k = 0; k < hopper::kSums / 2; ++k) {
    const int i = k / 2 * 4 + k % 2, column = 8 * (k / 2) + held.column + k % 2;
    const float logit[2] = {real[0] && counts(i) ? __fmul_rn(dots[i], scale[0]) : kNothing,
                            real[1] && counts(i + 2) ? __fmul_rn(dots[i + 2], scale[1]) : kNothing};
    const float largest = across<4, 32>(fmaxf(logit[0], logit[1]), larger);
    const float sum = across<4, 32>(exponential(logit[0], largest) + exponential(logit[1], largest), added);
    if (held.lane < 4) {
      shared.largest[held.warp][column] = largest;
      shared.sum[held.warp][column] = sum;
    }
    if (k % 4 == 3) __syncwarp();  // no more of them at once: their registers
  }
}

// The parts of the rows and columns of this warpgroup's half of a tile. kAll: every entry counts. `dots`, not yet
// scaled, are lost.
template <bool kAll>
__device__ inline void sum_up(const Sums& on, SumsShared& shared, int first_row, int first_column,
                              float (&dots)[hopper::kSums], const Held& held) {
  const int last_row = on.part.row + on.part.rows;
  const int own_row = first_row + held.warp / kOwnWarps * kOwnRows;
  if (own_row >= last_row) return;
  const int row = first_row + held.row, column = first_column + held.column;
  const bool real[2] = {row < last_row, row + 8 < last_row};
  const float scale[2] = {real[0] ? on.scale[row] : 0, real[1] ? on.scale[row + 8] : 0};
  if (on.positive && has_positives(first_row, first_column)) {
    float dot[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < hopper::kSums; ++i)
      if (row - column == i / 4 * 8 + i % 2 - i / 2 % 2 * 8) dot[i / 2 % 2] = dots[i];
#pragma unroll
    for (int of = 0; of < 2; ++of) {
      const int ahead = row + 8 * of - column;
      if (real[of] && ahead >= 0 && ahead < kTileColumns && ahead % 8 < 2)
        on.positive[row + 8 * of] = __fmul_rn(dot[of], scale[of]);
    }
  }
  const auto counts = [&](int i) {
    const int across = i / 4 * 8 + i % 2;
    return kAll || (across < on.m - column && !(on.pairs_left_out && row - column == across - i / 2 % 2 * 8));
  };
  // scales are positive: the largest product is the largest logit
  float least[2] = {-kNothing, -kNothing}, largest[2] = {kNothing, kNothing};
#pragma unroll
  for (int i = 0; i < hopper::kSums; ++i) {
    least[i / 2 % 2] = fminf(least[i / 2 % 2], dots[i]);
    largest[i / 2 % 2] = fmaxf(largest[i / 2 % 2], counts(i) ? dots[i] : kNothing);
  }
#pragma unroll
  for (int of = 0; of < 2; ++of) {
    largest[of] = __fmul_rn(across<1, 4>(largest[of], larger), scale[of]);
    least[of] = __fmul_rn(least[of], scale[of]);
  }
  const float top = across<1, 32>(fmaxf(real[0] ? largest[0] : kNothing, real[1] ? largest[1] : kNothing), larger);
  const bool together = top - across<1, 32>(fminf(least[0], least[1]), smaller) <= kSpread;

  if (on.col_parts) {
    meet_own(held.warp);  // nobody reads the last tile's columns any more
    if (!together) sum_columns_apart(on, shared, row, dots, held, real, counts);
  }
  float total[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < hopper::kSums; ++i) {
    const int of = i / 2 % 2;
    dots[i] = counts(i) ? __expf(__fmul_rn(dots[i], scale[of]) - largest[of]) : 0;
    total[of] += dots[i];
  }
  float* row_parts = on.row_parts + first_column / kTileColumns * 2 * on.row_stride - on.part.row;
#pragma unroll
  for (int of = 0; of < 2; ++of) {
    total[of] = across<1, 4>(total[of], added);
    if (held.lane % 4 == 0 && real[of]) {
      row_parts[row + 8 * of] = largest[of];
      row_parts[row + 8 * of + on.row_stride] = total[of];
    }
  }
  if (!on.col_parts) return;
  if (together) {
    const float factor[2] = {real[0] ? exponential(largest[0], top) : 0, real[1] ? exponential(largest[1], top) : 0};
    float values[hopper::kSums / 2];
#pragma unroll
    for (int k = 0; k < hopper::kSums / 2; ++k)
      values[k] = dots[k / 2 * 4 + k % 2] * factor[0] + dots[k / 2 * 4 + 2 + k % 2] * factor[1];
    across_rows(values, held.lane, added);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      shared.largest[held.warp][kept_column(held, k)] = top;
      shared.sum[held.warp][kept_column(held, k)] = values[k];
    }
  }
  meet_own(held.warp);
  const int first_warp = held.warp / kOwnWarps * kOwnWarps;
  float* col_parts = on.col_parts + (1 + (own_row - on.part.row) / kOwnRows) * int64_t(2) * on.m;
  for (int c = threadIdx.x % hopper::kWarpgroup; c < kTileColumns && first_column + c < on.m; c += hopper::kWarpgroup) {
    float most = kNothing, sum = 0;
    for (int warp = first_warp; warp < first_warp + kOwnWarps; ++warp) most = fmaxf(most, shared.largest[warp][c]);
    for (int warp = first_warp; warp < first_warp + kOwnWarps; ++warp)
      sum += shared.sum[warp][c] * exponential(shared.largest[warp][c], most);
    col_parts[first_column + c] = most;
    col_parts[first_column + c + on.m] = sum;
  }
}

// Of a tile, what its weights need beside its logits. `near`: the log-sum-exps lie within kSpread, `middle` between
// them.
struct Middle {
  float value;
  bool near;
};

// A log-sum-exp that gives weights of 0 where nothing counts.
__device__ inline float counted(float lse) { return lse == kNothing ? -kNothing : lse; }

__device__ inline Middle prepare_weights(const Weights& on, WeightsShared& shared, int first_row, int first_column,
                                         const Held& held) {
  const int thread = threadIdx.x % hopper::kWarpgroup, warpgroup = threadIdx.x / hopper::kWarpgroup;
  const int row = first_row + warpgroup * kOwnRows + thread;
  float least = -kNothing, most = kNothing, lse[2] = {-kNothing, -kNothing};
  if (thread < kOwnRows && row < on.n) least = most = counted(on.row_lse[row]);
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int column = first_column + thread + part * hopper::kWarpgroup;
    if (column >= on.m || !on.col_grad) continue;
    lse[part] = counted(on.col_lse[column]);
    least = fminf(least, lse[part]);
    most = fmaxf(most, lse[part]);
  }
  least = across<1, 32>(least, smaller);
  most = across<1, 32>(most, larger);
  if (held.lane == 0) {
    shared.least[held.warp] = least;
    shared.most[held.warp] = most;
  }
  meet_own(held.warp);  // and nobody reads the last tile's columns any more
  for (int warp = warpgroup * kOwnWarps; warp < (warpgroup + 1) * kOwnWarps; ++warp) {
    least = fminf(least, shared.least[warp]);
    most = fmaxf(most, shared.most[warp]);
  }
  const Middle middle = {least / 2 + most / 2, most - least <= kSpread};
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int c = thread + part * hopper::kWarpgroup, column = first_column + c;
    const float grad = on.col_grad && column < on.m ? on.col_grad[column] : 0;
    shared.col_lse[warpgroup][c] = lse[part];
    shared.col_factor[warpgroup][c] = middle.near ? grad * __expf(middle.value - lse[part]) : grad;
  }
  meet_own(held.warp);
  return middle;
}

// The weights of this warpgroup's half of a tile, 64 columns of a warp at a time.
template <bool kNear>
__device__ inline void write_weights(const Weights& on, WeightsShared& shared, const CUtensorMap& weights,
                                     int first_row, int first_column, const float (&sums)[hopper::kSums],
                                     const Held& held, float middle) {
  const int warpgroup = held.warp / kOwnWarps, row = first_row + held.row, column = first_column + held.column;
  float scale[2], lse[2], grad[2], positive[2];  // grad: times scale, and if kNear exp(middle - lse)
#pragma unroll
  for (int of = 0; of < 2; ++of) {
    const int i = row + 8 * of;
    const bool real = i < on.n;
    scale[of] = real ? on.scale[i] : 0;
    lse[of] = real ? counted(on.row_lse[i]) : 0;
    grad[of] = real && on.row_grad ? scale[of] * on.row_grad[i] : 0;
    positive[of] = real && on.positive_grad ? scale[of] * on.positive_grad[i] : 0;
    if (kNear && real) grad[of] *= __expf(middle - lse[of]);
  }
  const bool diagonal = (on.positive_grad || on.pairs_left_out) && has_positives(first_row, first_column);
  unsigned char* staged = reinterpret_cast<unsigned char*>(shared.staged[held.warp]);
#pragma unroll
  for (int chunk = 0; chunk < kTileColumns / hopper::kFeatures; ++chunk) {
    constexpr int kPairs = hopper::kFeatures / 8 * 2;  // of a lane: its two rows of every 8 columns
    uint32_t pairs[kPairs];
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int group = chunk * (hopper::kFeatures / 8) + k / 2, of = k % 2;
      float weight[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int c = group * 8 + held.column + e;
        const float logit = __fmul_rn(sums[group * 4 + of * 2 + e], scale[of]);
        const float factor = shared.col_factor[warpgroup][c];
        if constexpr (kNear)
          weight[e] = __expf(logit - middle) * (grad[of] + scale[of] * factor);
        else
          weight[e] =
              grad[of] * __expf(logit - lse[of]) + scale[of] * factor * __expf(logit - shared.col_lse[warpgroup][c]);
        if (diagonal && row - column == group * 8 + e - 8 * of)
          weight[e] = on.pairs_left_out ? positive[of] : weight[e] + positive[of];
      }
      pairs[k] = hopper::bfloat16_pair(weight[0], weight[1]);
    }
    if (held.lane == 0) hopper::stores_wait();
    __syncwarp();
#pragma unroll
    for (int k = 0; k < kPairs; ++k) {
      const int offset = (held.lane / 4 + 8 * (k % 2)) * hopper::kFeatures * 2 + (k / 2 * 8 + held.column) * 2;
      *reinterpret_cast<uint32_t*>(staged + hopper::swizzled(offset)) = pairs[k];
    }
    hopper::stores_begin();
    __syncwarp();
    if (held.lane == 0)
      hopper::store_tile(&weights, first_column - on.part.col + chunk * hopper::kFeatures,
                         first_row - on.part.row + held.warp * kWarpRows, staged);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    info_nce_sums_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                         const __grid_constant__ Sums on) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  SumsShared& shared = *reinterpret_cast<SumsShared*>(hopper::shared_memory());
  const Held held(threadIdx.x);
  each_tile(
      shared.ring, x, y, on.part, on.d, [](int, int) {},
      [&](int row, int column, float (&dots)[hopper::kSums]) {
        if (column + kTileColumns <= on.m && !(on.pairs_left_out && has_positives(row, column)))
          sum_up<true>(on, shared, row, column, dots, held);
        else
          sum_up<false>(on, shared, row, column, dots, held);
      });
#else
  __trap();  // built without sm_90a
#endif
}

__global__ void __launch_bounds__(kThreads, 1)
    info_nce_weights_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                            const __grid_constant__ CUtensorMap weights, const __grid_constant__ Weights on) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  WeightsShared& shared = *reinterpret_cast<WeightsShared*>(hopper::shared_memory());
  const Held held(threadIdx.x);
  Middle middle;
  each_tile(
      shared.ring, x, y, on.part, on.d,
      [&](int row, int column) { middle = prepare_weights(on, shared, row, column, held); },
      [&](int row, int column, float (&sums)[hopper::kSums]) {
        if (middle.near)
          write_weights<true>(on, shared, weights, row, column, sums, held, middle.value);
        else
          write_weights<false>(on, shared, weights, row, column, sums, held, middle.value);
      });
  if (threadIdx.x < kConsumers && held.lane == 0) hopper::stores_wait();
#else
  __trap();  // built without sm_90a
#endif
}

}  // namespace modalign::cuda
