#pragma once

#include "cpu/tiles.hpp"

namespace modalign {

enum class Metric : int { cosine, dot, euclidean };

// gallery [n, d]; queries [m, d], or null to search the gallery for itself (m = n, a row is not its own neighbour).
// indices and scores are [m, k]: float64 scores as python/modalign/ops/knn.py defines them, best first, ties to the
// lower index. Working memory: 12 max(64, 2 k + 32) bytes a query row, and a few packed stripes a thread.
struct Knn {
  const void* gallery;
  const void* queries;
  Dtype dtype;
  int64_t n, m, d, k;
  Metric metric;
};

void knn(const Knn& call, int64_t* indices, double* scores, int threads);

}  // namespace modalign
