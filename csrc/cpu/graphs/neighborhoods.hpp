#pragma once

#include <cstdint>

namespace modalign {

// What two lists of neighbours of one item are compared by; python/modalign/reference/neighborhoods.py defines each.
enum class NeighborhoodScore { mutual, jaccard, rank, lcs, edit_distance, cycle, reciprocity };

// scores[i] of rows i of int64 indices a, b [n, k], distinct in each row. cycle and reciprocity follow the indices into
// a: they must lie in 0 .. n - 1. O(k) memory a thread.
void neighborhood_scores(const int64_t* a, const int64_t* b, int64_t n, int64_t k, NeighborhoodScore score,
                         double* scores, int threads);

// totals[p] = number of edges (i, j) of a for which (s(i), s(j)) is an edge of b, s = relabellings[p], a permutation of
// 0 .. n - 1. a, b [n, k] in 0 .. n - 1, n < 2^31; relabellings [count, n]. Memory 4 n k bytes.
void relabelled_overlap(const int64_t* a, const int64_t* b, int64_t n, int64_t k, const int64_t* relabellings,
                        int64_t count, int64_t* totals, int threads);

}  // namespace modalign
