// Reads one row of a table of any type in float64.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/shared/types.hpp"

namespace modalign {

inline double half_to_double(uint16_t half) {
  const uint32_t bits = half & 0x7fff;
  const float magnitude =
      bits < 0x400 ? static_cast<float>(bits) * 0x1p-24f : std::bit_cast<float>((bits << 13) + (uint32_t{112} << 23));
  return (half & 0x8000) ? -magnitude : magnitude;
}

inline void read_row(const Rows& table, int64_t row, double* out) {
  const int64_t d = table.d, start = (table.start + row) * d;
  const auto copy = [&](const auto* source) {
    for (int64_t c = 0; c < d; ++c) out[c] = static_cast<double>(source[start + c]);
  };
  switch (table.dtype) {
    case Dtype::float16:
      for (int64_t c = 0; c < d; ++c) out[c] = half_to_double(static_cast<const uint16_t*>(table.data)[start + c]);
      break;
    case Dtype::bfloat16:
      for (int64_t c = 0; c < d; ++c)
        out[c] = std::bit_cast<float>(static_cast<uint32_t>(static_cast<const uint16_t*>(table.data)[start + c]) << 16);
      break;
    case Dtype::float32:
      return copy(static_cast<const float*>(table.data));
    case Dtype::float64:
      return copy(static_cast<const double*>(table.data));
    case Dtype::int8:
      return copy(static_cast<const int8_t*>(table.data));
  }
}

}  // namespace modalign
