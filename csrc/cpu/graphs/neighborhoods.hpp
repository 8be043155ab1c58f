#pragma once

#include <string>
#include <vector>

#include "cpu/graphs/graph_pair.hpp"

namespace modalign {

// The names that neighborhood_scores takes; python/modalign/reference/neighborhoods.py defines each score.
std::vector<std::string> neighborhood_score_names();

// scores[i] = the score of this name for rows i of the two graphs. cycle_knn and reciprocity follow the indices into a,
// which must lie in 0 .. n - 1. O(k) memory for each thread. Throws std::invalid_argument for an unknown name.
void neighborhood_scores(const GraphPair& graphs, const std::string& name, double* scores, int threads);

// Permutations of 0 .. n - 1: int64 [count, n].
struct Relabellings {
  const int64_t* labels;
  int64_t count;
};

// totals[p] = the number of edges (i, j) of a for which (s(i), s(j)) is an edge of b, where s is relabelling p. Indices
// lie in 0 .. n - 1, and n < 2^31. Memory: 4 n k bytes.
void relabelled_overlap(const GraphPair& graphs, const Relabellings& relabellings, int64_t* totals, int threads);

}  // namespace modalign
