// A common neighbour counts from the larger of its two ranks on: merge the two lists sorted by id, count each match at
// that rank, and sum the counts along the ranks. O(k log k) for each row.
#include "cpu/graphs/neighbor_overlap.hpp"

#include <vector>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

// Count the matches of two lists sorted by id, each at the larger of its ranks.
void count_matches(const Ranked* left, const Ranked* right, int64_t k, int32_t* count) {
  for (int64_t i = 0, j = 0; i < k && j < k;) {
    if (left[i].id == right[j].id) {
      ++count[std::max(left[i].rank, right[j].rank)];
      ++i;
      ++j;
    } else {
      left[i].id < right[j].id ? ++i : ++j;
    }
  }
}

}  // namespace

void neighbor_overlap(const GraphPair& graphs, int32_t* counts, int threads) {
  constexpr int64_t kRows = 256;
  const auto [a, b, n, k] = graphs;
  std::vector<std::vector<Ranked>> scratch(threads, std::vector<Ranked>(2 * k));
  run_phases(threads, 1, (n + kRows - 1) / kRows, [&, a = a, b = b, n = n, k = k](int thread, int64_t, int64_t job) {
    Ranked *left = scratch[thread].data(), *right = left + k;
    for (int64_t row = job * kRows; row < std::min(n, (job + 1) * kRows); ++row) {
      sort_by_id(a + row * k, k, left);
      sort_by_id(b + row * k, k, right);
      int32_t* count = counts + row * k;
      std::fill_n(count, k, 0);
      count_matches(left, right, k, count);
      for (int64_t rank = 1; rank < k; ++rank) count[rank] += count[rank - 1];
    }
  });
}

}  // namespace modalign
