// Exact k nearest neighbours of the rows of one set in another, or in itself.
#pragma once

#include <atomic>
#include <string>

#include "cpu/shared/types.hpp"

namespace modalign {

enum class Metric : int { cosine, dot, euclidean };

// n rows of a set, the first of which has the index `first`: data [n, d]; group [n], or null. Rows of one group are not
// neighbours of each other.
struct RowSet {
  const void* data;
  int64_t n, first;
  const int64_t* group;
};

// The best neighbours of each row so far, [n, k], best first; -1 and -inf where there is none yet. Null if this set
// does not search.
struct Best {
  int64_t* indices;
  double* scores;
};

// A search of x in y and of y in x, or of x in itself if y.data is null; then no row is a neighbour of itself. Scores
// are those that python/modalign/ops/knn.py defines, and equal scores are ordered by index. Working memory: codes (d
// bytes a row in int8, 2 d in int16, 4 d in float32), 8 max(64, 2 k + 32) + 60 bytes a searching row, and packed
// stripes for each thread.
struct Knn {
  RowSet x, y;
  Dtype dtype;
  int64_t d, k;
  Metric metric;
  Best x_best, y_best;
  std::atomic<int64_t>* done;        // number of pairs screened so far, or null
  const std::atomic<int64_t>* stop;  // the search gives up when this is not 0; null: never
};

struct KnnReport {
  std::string precision;
  int64_t scored;  // pairs that were scored in float64
  int64_t redone;  // searching rows for which the screen excluded less than half of their candidates
};

// Merge the neighbours that x and y are to each other into the lists x_best and y_best.
KnnReport knn(const Knn& call, int threads);

// Return an upper bound of the bytes that knn allocates for n and m rows (m = 0: a set with itself).
int64_t knn_bytes(int64_t n, int64_t m, int64_t d, int64_t k, int threads);

}  // namespace modalign
