// Types and constants that all CPU kernels share.
#pragma once

#include <cstdint>

namespace modalign {

// How the caller stores its rows. Packing converts them to the type that a kernel computes in.
enum class Dtype : int { float16, bfloat16, float32, float64, int8 };

// Rows start to start + rows of a row-major [n, d] matrix in the caller's memory.
struct Rows {
  const void* data;
  Dtype dtype;
  int64_t d;
  int64_t start;
  int64_t rows;
};

// The integer type that is as wide as T, so that ids line up with logits in vector registers.
template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};

// Both operands of a product are cut into stripes whose size is a multiple of this many rows, so that a stripe holds
// whole panels for every instruction set.
constexpr int64_t kStripeMultiple = 96;

// Packing may write this many bytes beyond the last panel.
constexpr int64_t kPackedBeyond = 32;

}  // namespace modalign
