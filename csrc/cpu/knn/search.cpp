#include "cpu/knn/search.hpp"

namespace modalign {
namespace {

// Return a number that at least `count` of the values reach, and few more: bisection, without a branch on the values.
float bound_reached_by(const std::vector<float>& values, int64_t count) {
  const auto count_reaching = [&](float bound) {
    int32_t total = 0;
    for (float value : values) total += value >= bound;
    return total;
  };
  float low = values[0], high = values[0];
  for (float value : values) low = value < low ? value : low, high = value > high ? value : high;
  for (int64_t reaching_low = static_cast<int64_t>(values.size()); reaching_low > count + count / 16;) {
    const float middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;  // equal but for rounding
    const int64_t reaching = count_reaching(middle);
    if (reaching >= count)
      low = middle, reaching_low = reaching;
    else
      high = middle;
  }
  return low;
}

// Convert an exact score of row i to the units of the screen, rounded down.
float in_screen_units(const Search& search, const Table& table, int64_t i, double score) {
  double units = 1;
  if (search.call.metric != Metric::cosine) units = search.factor * search.factor;
  if (search.call.metric == Metric::euclidean) units /= 2;
  return rounded_down(score * units - table.base[i]);
}

// Keep the accepted candidates of a row that are better than its worst neighbour, sorted.
void keep_better(const Search& search, Scratch& scratch, const SearchingRow& row, int64_t count) {
  const auto& [table, gallery, i] = row;
  const int64_t k = search.call.k;
  const int64_t* indices = table.best.indices + i * k;
  const double* scores = table.best.scores + i * k;
  scratch.accepted.clear();
  for (int64_t c = 0; c < count; ++c) {
    double score = scratch.scores[c];
    if (search.call.metric == Metric::cosine)
      score = score * table.inverse_norm[i] * gallery.inverse_norm[scratch.ids[c]];
    const Scored scored{score, gallery.rows.first + scratch.ids[c]};
    if (indices[k - 1] < 0 || scored < Scored{scores[k - 1], indices[k - 1]}) scratch.accepted.push_back(scored);
  }
  std::sort(scratch.accepted.begin(), scratch.accepted.end());
}

// Merge the accepted candidates into the neighbours of row i.
void merge_accepted(const Search& search, Scratch& scratch, const Table& table, int64_t i) {
  const int64_t k = search.call.k, fresh_count = static_cast<int64_t>(scratch.accepted.size());
  int64_t* indices = table.best.indices + i * k;
  double* scores = table.best.scores + i * k;
  int64_t old_count = k;
  while (old_count > 0 && indices[old_count - 1] < 0) --old_count;
  scratch.merged.clear();
  for (int64_t old = 0, fresh = 0; static_cast<int64_t>(scratch.merged.size()) < k;) {
    const bool has_fresh = fresh < fresh_count;
    if (old < old_count && (!has_fresh || Scored{scores[old], indices[old]} < scratch.accepted[fresh]))
      scratch.merged.push_back({scores[old], indices[old]}), ++old;
    else if (has_fresh)
      scratch.merged.push_back(scratch.accepted[fresh++]);
    else
      break;
  }
  for (size_t rank = 0; rank < scratch.merged.size(); ++rank)
    scores[rank] = scratch.merged[rank].score, indices[rank] = scratch.merged[rank].id;
}

// Score the first `count` candidates of scratch.ids against the row in scratch.row, and keep the best k.
void score_exactly(const Search& search, Scratch& scratch, const SearchingRow& row, int64_t count) {
  row.table.scored[row.i] += static_cast<int32_t>(count);
  search.score_in_float64({.query = scratch.row.data(),
                           .table = search.rows_of(row.gallery),
                           .ids = scratch.ids.data(),
                           .count = count,
                           .euclidean = search.call.metric == Metric::euclidean,
                           .scores = scratch.scores.data()});
  keep_better(search, scratch, row, count);
  if (scratch.accepted.empty()) return;
  merge_accepted(search, scratch, row.table, row.i);
  raise_threshold(search, row.table, row.i);
}

// Make room in a full list: the k-th best of the known lower bounds raises the threshold, and candidates below it go.
// If many are still in doubt (ties, duplicates), float64 decides. Not inlined into offer_candidate, which would
// otherwise save all registers.
__attribute__((noinline)) void thin_list(const Search& search, Scratch& scratch, const SearchingRow& row) {
  const auto& [table, gallery, i] = row;
  Candidate* list = &table.candidate_list[i * search.list_size];
  const int64_t k = search.call.k;
  const float norm = table.code_norm[i], error = table.error[i];
  scratch.lower_bounds.resize(table.waiting[i]);
  for (int64_t c = 0; c < table.waiting[i]; ++c) {
    const int32_t id = list[c].id;
    // 2.5 and not 2: the difference is rounded too
    scratch.lower_bounds[c] =
        list[c].bound - 2.5f * (norm * gallery.error[id] + error * gallery.code_norm[id] + gallery.doubt(id));
  }
  for (int64_t rank = 0; rank < k && table.best.indices[i * k + rank] >= 0; ++rank)
    scratch.lower_bounds.push_back(in_screen_units(search, table, i, table.best.scores[i * k + rank]));
  table.threshold[i] = std::max(table.threshold[i], bound_reached_by(scratch.lower_bounds, k));
  const float threshold = table.threshold[i];
  int32_t kept = 0;
  for (int32_t c = 0; c < table.waiting[i]; ++c) {  // without a branch, which nobody could predict
    const Candidate candidate = list[c];
    list[kept] = candidate;
    kept += candidate.bound >= threshold;
  }
  table.waiting[i] = kept;
  if (table.waiting[i] > (search.list_size + k) / 2) score_candidates(search, scratch, row);
}

}  // namespace

void offer_candidate(void* context, bool right_searches, int64_t searcher, int64_t candidate, float bound) {
  StripePair& pair = *static_cast<StripePair*>(context);
  Table& table = right_searches ? pair.right : pair.left;
  const Table& gallery = right_searches ? pair.left : pair.right;
  const int64_t i = searcher + (right_searches ? pair.right_start : pair.left_start);
  const int64_t j = candidate + (right_searches ? pair.left_start : pair.right_start);
  if (table.rows.group && table.rows.group[i] == gallery.rows.group[j]) return;
  const int64_t list_size = pair.search.list_size;
  table.candidate_list[i * list_size + table.waiting[i]++] = {static_cast<int32_t>(j), bound};
  if (table.waiting[i] == list_size) thin_list(pair.search, pair.scratch, {table, gallery, i});
}

void raise_threshold(const Search& search, Table& table, int64_t i) {
  const int64_t last = (i + 1) * search.call.k - 1;
  if (table.best.indices[last] >= 0)
    table.threshold[i] = std::max(table.threshold[i], in_screen_units(search, table, i, table.best.scores[last]));
}

void score_candidates(const Search& search, Scratch& scratch, const SearchingRow& row) {
  const auto& [table, gallery, i] = row;
  const Candidate* list = &table.candidate_list[i * search.list_size];
  scratch.candidates.assign(list, list + table.waiting[i]);
  table.waiting[i] = 0;
  std::sort(scratch.candidates.begin(), scratch.candidates.end(),
            [](const Candidate& first, const Candidate& second) { return first.bound > second.bound; });
  search.read(table, i, scratch.row.data());
  const size_t step = scratch.ids.size();
  for (size_t start = 0; start < scratch.candidates.size(); start += step) {
    int64_t count = 0;
    for (size_t c = start; c < std::min(scratch.candidates.size(), start + step); ++c)
      if (scratch.candidates[c].bound >= table.threshold[i]) scratch.ids[count++] = scratch.candidates[c].id;
    if (count == 0) return;
    score_exactly(search, scratch, row, count);
  }
}

}  // namespace modalign
