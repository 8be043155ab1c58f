#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace modalign::cuda {

// A table [rows, d] of 16-bit numbers whose rows start `pitch` numbers apart, a multiple of 8; `data` is a multiple of
// 16 bytes.
struct HalfTable {
  const void* data;
  int64_t rows, d, pitch;
};

// Make the map with which hopper::copy_tile and store_tile access a table: swizzled boxes of `box_rows` rows and
// hopper::kFeatures features.
cudaError_t tensor_map(CUtensorMap* map, const HalfTable& table, int box_rows);

// The number of multiprocessors of the current device; cudaErrorNotSupported if its compute capability is not 9.0.
cudaError_t hopper_multiprocessors(int* count);

}  // namespace modalign::cuda
