#pragma once

#include <cuda_runtime_api.h>

#include "cuda/knn/survivors.hpp"

namespace modalign::cuda {

// Appends what survives to on.keys and on.counts, in `stream` of the current device, which must be of compute
// capability 9.0. queries [on.m, on.d] and gallery [on.n, on.d] in float16 or bfloat16; on.d a multiple of 8, the
// tables at multiples of 16 bytes. symmetric: the queries are the gallery, and no row is to find itself.
cudaError_t knn_survivors(const void* queries, const void* gallery, bool bfloat16, bool symmetric, const Survivors& on,
                          cudaStream_t stream);

}  // namespace modalign::cuda
