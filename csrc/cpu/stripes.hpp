// How the rows of a matrix are cut into stripes: the unit of work, of packing and of ownership.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/tiles.hpp"

namespace modalign {

struct Stripes {
  int64_t n, rows, count;
  int64_t start(int64_t stripe) const { return stripe * rows; }
  int64_t size(int64_t stripe) const { return std::min(rows, n - start(stripe)); }
  int64_t padded() const { return count * rows; }  // every stripe holds whole panels
};

// About 1,000 rows, so that packing (O(rows d)) is small beside the work (O(rows^2 d)); fewer where n is small, so that
// there are jobs for several threads, or d is large, so that a packed stripe stays a few megabytes.
inline Stripes stripes(int64_t n, int64_t d) {
  const auto up = [](int64_t rows) { return (rows + kStripeMultiple - 1) / kStripeMultiple * kStripeMultiple; };
  const int64_t most = std::clamp<int64_t>((1 << 19) / d / kStripeMultiple * kStripeMultiple, kStripeMultiple, 960);
  const int64_t rows = std::min(most, up((n + 7) / 8));
  return {n, rows, (n + rows - 1) / rows};
}

}  // namespace modalign
