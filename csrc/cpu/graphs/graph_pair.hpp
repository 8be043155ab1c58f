// Two graphs over the same items.
#pragma once

#include <algorithm>
#include <cstdint>

namespace modalign {

// Lists of k neighbours of n items: int64 indices a and b [n, k], in each row distinct and ordered by rank.
struct GraphPair {
  const int64_t* a;
  const int64_t* b;
  int64_t n, k;
};

// A neighbour and its place in the list, from 0 on.
struct Ranked {
  int64_t id;
  int32_t rank;
};

// Write the k neighbours of a list, sorted by id.
inline void sort_by_id(const int64_t* ids, int64_t k, Ranked* out) {
  for (int64_t rank = 0; rank < k; ++rank) out[rank] = {ids[rank], static_cast<int32_t>(rank)};
  std::sort(out, out + k, [](const Ranked& first, const Ranked& second) { return first.id < second.id; });
}

}  // namespace modalign
