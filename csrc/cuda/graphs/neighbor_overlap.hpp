#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace modalign::cuda {

// As modalign::neighbor_overlap, on the device and in `stream`: a, b int64 [n, k], counts int32 [n, k].
cudaError_t neighbor_overlap(const int64_t* a, const int64_t* b, int64_t n, int64_t k, int32_t* counts,
                             cudaStream_t stream);

}  // namespace modalign::cuda
