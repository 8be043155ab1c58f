#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace modalign::cuda {

// Lists of k neighbours of n items in two graphs: int64 [n, k] on the device.
struct GraphPair {
  const int64_t* a;
  const int64_t* b;
  int64_t n, k;
};

// counts[i, r] = |{a_i0 .. a_ir} & {b_i0 .. b_ir}|, int32 [n, k] on the device; runs in `stream`.
cudaError_t neighbor_overlap(const GraphPair& graphs, int32_t* counts, cudaStream_t stream);

}  // namespace modalign::cuda
