#pragma once

#include <cuda_runtime_api.h>

#include "cuda/knn/survivors.hpp"

namespace modalign::cuda {

// queries [m, d] and gallery [n, d] on the device, in float16 or bfloat16; d is a multiple of 8, and both start at
// multiples of 16 bytes. In a symmetric search the queries are the gallery, and no row is a neighbour of itself.
struct ScreenInputs {
  const void* queries;
  const void* gallery;
  bool bfloat16, symmetric;
};

// Append the pairs that survive to tables.keys and tables.counts, in `stream` of the current device, which must have
// compute capability 9.0.
cudaError_t knn_survivors(const ScreenInputs& inputs, const Survivors& tables, cudaStream_t stream);

}  // namespace modalign::cuda
