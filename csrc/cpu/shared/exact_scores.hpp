// Scores in float64, exactly as the definition of knn sums them (python/modalign/ops/knn.py).
#pragma once

#include "cpu/shared/types.hpp"

namespace modalign {

// scores[i] = the sum over c, in order, in float64 and without fused multiply-adds, of query_c x_c, or of
// -(query_c - x_c)^2 if `euclidean`, for the rows x = ids[i] of the table.
struct ExactTask {
  const double* query;
  Rows table;
  const int32_t* ids;
  int64_t count;
  bool euclidean;
  double* scores;
};
using ExactScores = void (*)(const ExactTask& task);

// The function for the instruction set in use.
ExactScores exact_scores();

}  // namespace modalign
