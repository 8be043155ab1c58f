// Rows come from anywhere in the table, so that memory latency limits the speed.
#include "cpu/graphs/edge_products.hpp"

#include <algorithm>
#include <vector>

#include "cpu/shared/exact_scores.hpp"
#include "cpu/shared/parallel.hpp"
#include "cpu/shared/stored_row.hpp"

namespace modalign {
namespace {

constexpr int64_t kItems = 64;

struct Scratch {
  Scratch(int64_t d, int64_t k) : row(d), ids(k) {}
  std::vector<double> row;
  std::vector<int32_t> ids;
};

}  // namespace

void edge_products(const Rows& table, const Edges& edges, double* products, int threads) {
  const ExactScores score = exact_scores();
  const int64_t k = edges.k;
  std::vector<Scratch> scratch(threads, Scratch(table.d, k));
  run_phases(threads, 1, (edges.m + kItems - 1) / kItems, [&](int thread, int64_t, int64_t job) {
    auto& [row, ids] = scratch[thread];
    for (int64_t r = job * kItems; r < std::min(edges.m, (job + 1) * kItems); ++r) {
      read_row(table, edges.items[r], row.data());
      std::copy_n(edges.others + r * k, k, ids.begin());
      score({.query = row.data(),
             .table = table,
             .ids = ids.data(),
             .count = k,
             .euclidean = false,
             .scores = products + r * k});
    }
  });
}

}  // namespace modalign
