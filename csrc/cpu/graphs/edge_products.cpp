// Inner products along the edges of a graph: rows come from anywhere in the table, so the memory sets the pace.
#include "cpu/graphs/edge_products.hpp"

#include <algorithm>
#include <vector>

#include "cpu/shared/isa.hpp"
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

void edge_products(const Rows& table, const int64_t* items, const int64_t* others, int64_t m, int64_t k,
                   double* products, int threads) {
  const ExactScores score = exact_scores();
  std::vector<Scratch> own(threads, Scratch(table.d, k));
  run_phases(threads, 1, (m + kItems - 1) / kItems, [&](int thread, int64_t, int64_t job) {
    auto& [row, ids] = own[thread];
    for (int64_t r = job * kItems; r < std::min(m, (job + 1) * kItems); ++r) {
      read_row(table, items[r], row.data());
      std::copy_n(others + r * k, k, ids.begin());
      score(row.data(), table, ids.data(), k, false, products + r * k);
    }
  });
}

}  // namespace modalign
