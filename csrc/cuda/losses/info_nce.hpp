#pragma once

#include <cuda_runtime_api.h>

#include "cuda/losses/info_nce_tables.hpp"

namespace modalign::cuda {

// x [n, d] and y [m, d] in bfloat16 on the device; d is a multiple of 8, and both start at multiples of 16 bytes.
struct InfoNceInputs {
  const void* x;
  const void* y;
};

// The weights of a part in bfloat16: rows `stride` numbers apart, a multiple of 8; `data` is a multiple of 16 bytes.
struct WeightsOutput {
  void* data;
  int64_t stride;
};

// Both run in `stream` of the current device, which must have compute capability 9.0.
cudaError_t info_nce_sums(const InfoNceInputs& inputs, const Sums& tables, cudaStream_t stream);
cudaError_t info_nce_weights(const InfoNceInputs& inputs, const WeightsOutput& output, const Weights& tables,
                             cudaStream_t stream);

}  // namespace modalign::cuda
