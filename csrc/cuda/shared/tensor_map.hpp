#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace modalign::cuda {

// How hopper::copy_tile and store_tile see a table [rows, d] of 16-bit numbers whose rows start `pitch` numbers apart:
// boxes of `box_rows` rows and hopper::kFeatures features, swizzled. pitch a multiple of 8, the table at a multiple of
// 16 bytes.
cudaError_t tensor_map(CUtensorMap* map, const void* table, int64_t rows, int64_t d, int64_t pitch, int box_rows);

// Multiprocessors of the current device; cudaErrorNotSupported if its compute capability is not 9.0.
cudaError_t hopper_multiprocessors(int* count);

}  // namespace modalign::cuda
