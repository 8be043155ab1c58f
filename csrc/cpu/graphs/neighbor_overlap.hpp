#pragma once

#include "cpu/graphs/graph_pair.hpp"

namespace modalign {

// counts[i, r] = |{a_i0 .. a_ir} & {b_i0 .. b_ir}|; counts [n, k]. O(k) memory for each thread.
void neighbor_overlap(const GraphPair& graphs, int32_t* counts, int threads);

}  // namespace modalign
