// Exact k nearest neighbours: a screen in low precision discards pairs that a proved bound excludes, and float64
// decides the others.
//
//   preparation   one form for every metric, codes with bounds of their errors
//   precision     the cheapest precision for the screen
//   traversal     all pairs of stripes, each through the screen once
//   search        lists of candidates, thresholds, exact scores
#include "cpu/knn/knn.hpp"

#include "cpu/knn/precision.hpp"
#include "cpu/knn/preparation.hpp"
#include "cpu/knn/search.hpp"
#include "cpu/knn/traversal.hpp"

namespace modalign {
namespace {

void score_waiting_candidates(Search& search) {
  for (Table* table : search.tables()) {
    if (!table->best.indices) continue;
    const Table& gallery = search.gallery_of(*table);
    const Stripes& stripes = table->stripes;
    run_phases(search.threads, 1, stripes.count, [&](int thread, int64_t, int64_t stripe) {
      for (int64_t i = stripes.start(stripe); i < stripes.start(stripe) + stripes.size(stripe); ++i)
        score_candidates(search, search.scratch[thread], {*table, gallery, i});
    });
  }
}

KnnReport report_of(Search& search, Precision precision) {
  KnnReport report{.precision = precision_name(precision), .scored = 0, .redone = 0};
  for (Table* table : search.tables()) {
    const int64_t candidates = search.gallery_of(*table).rows.n - search.with_itself;
    for (int32_t scored : table->scored) {
      report.scored += scored;
      report.redone += scored * int64_t{2} > candidates && candidates > 4 * search.list_size;
    }
  }
  return report;
}

}  // namespace

KnnReport knn(const Knn& call, int threads) {
  Search search(call, threads);
  set_scale_and_centre(search);
  const std::optional<Precision> forced = forced_screen();
  const Precision precision = forced ? *forced : cheapest_precision(search);
  const ScreenTiles tiles = screen_tiles(precision);
  const Coding coding(precision, call.d);
  for (Table* table : search.tables()) encode(search, *table, coding);
  screen_all_pairs(search, tiles, coding);
  score_waiting_candidates(search);
  return report_of(search, precision);
}

int64_t knn_bytes(int64_t n, int64_t m, int64_t d, int64_t k, int threads) {
  // the widest codes, norms and bounds, the list of candidates; for each thread, packed stripes and buffers
  const int64_t row_bytes = 4 * d + 2 * 8 + 8 + 6 * 4 + 8 + 8 * list_size(k);
  return (n + m) * row_bytes + threads * 2 * (int64_t{1} << 20) + threads * (4 * d + 1024) * 8;
}

}  // namespace modalign
