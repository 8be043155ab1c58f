#pragma once

#include <cuda_runtime_api.h>

#include "cuda/losses/info_nce_tables.hpp"

namespace modalign::cuda {

// Both in `stream` of the current device, which must be of compute capability 9.0. x [on.n, on.d], y [on.m, on.d] in
// bfloat16, on.d a multiple of 8, the tables at multiples of 16 bytes.
cudaError_t info_nce_sums(const void* x, const void* y, const Sums& on, cudaStream_t stream);

// weights: on.part's in bfloat16, rows `stride` numbers apart, a multiple of 8; at a multiple of 16 bytes.
cudaError_t info_nce_weights(const void* x, const void* y, void* weights, int64_t stride, const Weights& on,
                             cudaStream_t stream);

}  // namespace modalign::cuda
