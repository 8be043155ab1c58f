#pragma once

#include <cstdint>

#include "cpu/shared/tiles.hpp"

namespace modalign {

// products[r, c] = <x_i, x_j> for i = items[r], j = others[r, c], rows of the table, both in 0 .. rows - 1, rows <
// 2^31: in float64, summed in the order of the features. items [m], others and products [m, k]. 8 d + 4 k bytes a
// thread.
void edge_products(const Rows& table, const int64_t* items, const int64_t* others, int64_t m, int64_t k,
                   double* products, int threads);

}  // namespace modalign
