#pragma once

#include <atomic>
#include <string>

#include "cpu/shared/tiles.hpp"

namespace modalign {

enum class Metric : int { cosine, dot, euclidean };

// Rows first, first + 1, .. of a set: data [n, d]; group [n] or null: rows of one group are no neighbours.
struct RowSet {
  const void* data;
  int64_t n, first;
  const int64_t* group;
};

// The best neighbours so far of each row, [n, k], best first; -1 and -inf where there is none yet. Null: not wanted.
struct Best {
  int64_t* indices;
  double* scores;
};

// Folds the pairs of rows of x with rows of y into the lists of either. y.data null: x with itself, a row being no
// neighbour of its own. Scores are those that python/modalign/ops/knn.py defines, ties go to the lower index.
// Working memory: codes (d bytes a row in int8, 2 d in int16, 4 d in float32), 8 max(64, 2 k + 32) + 60 bytes a
// searching row, packed stripes a thread.
struct Knn {
  RowSet x, y;
  Dtype dtype;
  int64_t d, k;
  Metric metric;
  Best x_best, y_best;
  std::atomic<int64_t>* done;        // pairs of rows dealt with, or null
  const std::atomic<int64_t>* stop;  // not 0: give up; null: never
};

struct KnnReport {
  std::string precision;
  int64_t scored;  // pairs that float64 decided
  int64_t redone;  // searching rows for which the screen excluded less than half of their candidates
};

KnnReport knn(const Knn& call, int threads);

// bytes that knn of n with m rows (0: with itself) holds at most beyond its arguments
int64_t knn_bytes(int64_t n, int64_t m, int64_t d, int64_t k, int threads);

}  // namespace modalign
