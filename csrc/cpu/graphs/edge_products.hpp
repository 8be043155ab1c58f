#pragma once

#include <cstdint>

#include "cpu/shared/types.hpp"

namespace modalign {

// Edges from items[r] to others[r, c]: items [m], others [m, k], both rows of a table, of which there are fewer than
// 2^31.
struct Edges {
  const int64_t* items;
  const int64_t* others;
  int64_t m, k;
};

// products[r, c] = <x_i, x_j> for the edge from i = items[r] to j = others[r, c]: in float64, summed in the order of
// the features. products [m, k]. 8 d + 4 k bytes for each thread.
void edge_products(const Rows& table, const Edges& edges, double* products, int threads);

}  // namespace modalign
