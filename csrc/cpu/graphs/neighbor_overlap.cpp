// A common neighbour counts from the larger of its two ranks on: merge the two lists sorted by id, put each match at
// that rank, and sum up. O(k log k) a row.
#include "cpu/graphs/neighbor_overlap.hpp"

#include <algorithm>
#include <vector>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

struct Ranked {
  int64_t id;
  int32_t rank;
};

void sort_by_id(const int64_t* ids, int64_t k, Ranked* out) {
  for (int64_t rank = 0; rank < k; ++rank) out[rank] = {ids[rank], static_cast<int32_t>(rank)};
  std::sort(out, out + k, [](const Ranked& one, const Ranked& two) { return one.id < two.id; });
}

}  // namespace

void neighbor_overlap(const int64_t* a, const int64_t* b, int64_t n, int64_t k, int32_t* counts, int threads) {
  constexpr int64_t kRows = 256;
  std::vector<std::vector<Ranked>> own(threads, std::vector<Ranked>(2 * k));
  run_phases(threads, 1, (n + kRows - 1) / kRows, [&](int thread, int64_t, int64_t job) {
    Ranked *left = own[thread].data(), *right = left + k;
    for (int64_t row = job * kRows; row < std::min(n, (job + 1) * kRows); ++row) {
      sort_by_id(a + row * k, k, left);
      sort_by_id(b + row * k, k, right);
      int32_t* count = counts + row * k;
      std::fill_n(count, k, 0);
      for (int64_t i = 0, j = 0; i < k && j < k;) {
        if (left[i].id == right[j].id) {
          ++count[std::max(left[i].rank, right[j].rank)];
          ++i;
          ++j;
        } else {
          left[i].id < right[j].id ? ++i : ++j;
        }
      }
      for (int64_t rank = 1; rank < k; ++rank) count[rank] += count[rank - 1];
    }
  });
}

}  // namespace modalign
