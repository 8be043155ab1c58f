// Most scores of two lists depend only on the rank of each entry of one list in the other: sort one by id, and look up
// the other's entries. O(k log k) for each row; O(k^2 / 64) for the edit distance, up to O(k^2) for cycle_knn and
// reciprocity.
#include "cpu/graphs/neighborhoods.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

constexpr int64_t kRows = 256;

// The buffers of one thread for one row.
struct Scratch {
  explicit Scratch(int64_t k)
      : sorted(k), rank_in_a(k), tails(k), up((k + 63) / 64), down((k + 63) / 64), harmonic(k + 1) {
    for (int64_t rank = 1; rank <= k; ++rank) harmonic[rank] = harmonic[rank - 1] + 1.0 / static_cast<double>(rank);
  }
  std::vector<Ranked> sorted;
  std::vector<int32_t> rank_in_a;  // of the entries of b; -1: not in a
  std::vector<int32_t> tails;      // for lcs_knn
  std::vector<uint64_t> up, down;  // for edit_distance_knn
  std::vector<double> harmonic;    // 1 + 1/2 + .. + 1/c
};

// Return the first of `count` ascending values that is not below `id`, or the last one; without a branch on the values.
template <class T, class IdOf>
const T* lower_bound_by_id(const T* first, int64_t count, int64_t id, const IdOf& id_of) {
  for (; count > 1; count -= count / 2) first += id_of(first[count / 2 - 1]) < id ? count / 2 : 0;
  return first;
}

void find_ranks(const int64_t* a, const int64_t* b, int64_t k, Scratch& scratch) {
  Ranked* sorted = scratch.sorted.data();
  sort_by_id(a, k, sorted);
  for (int64_t rank = 0; rank < k; ++rank) {
    const Ranked* entry = lower_bound_by_id(sorted, k, b[rank], [](const Ranked& ranked) { return ranked.id; });
    scratch.rank_in_a[rank] = entry->id == b[rank] ? entry->rank : -1;
  }
}

int64_t count_shared(const Scratch& scratch, int64_t k) {
  const auto first = scratch.rank_in_a.begin();
  return std::count_if(first, first + k, [](int32_t rank) { return rank >= 0; });
}

double mutual(int64_t k, Scratch& scratch) {
  return static_cast<double>(count_shared(scratch, k)) / static_cast<double>(k);
}

double jaccard(int64_t k, Scratch& scratch) {
  const int64_t shared = count_shared(scratch, k);
  return static_cast<double>(shared) / static_cast<double>(2 * k - shared);
}

double rank_similarity(int64_t k, Scratch& scratch) {
  double sum = 0;
  int64_t shared = 0;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int64_t rank_in_a = scratch.rank_in_a[rank];
    if (rank_in_a < 0) continue;
    sum += 2.0 / static_cast<double>((1 + std::abs(rank - rank_in_a)) * (rank + rank_in_a + 2));
    ++shared;
  }
  return shared ? sum / scratch.harmonic[shared] : 0.0;
}

// Entries are distinct, so a common subsequence is an increasing sequence of ranks. tails[l] is the least last rank of
// those of length l + 1.
double longest_common_subsequence(int64_t k, Scratch& scratch) {
  int32_t *first = scratch.tails.data(), *end = first;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int32_t rank_in_a = scratch.rank_in_a[rank];
    if (rank_in_a < 0) continue;
    int32_t* tail = std::lower_bound(first, end, rank_in_a);
    if (tail == end) ++end;
    *tail = rank_in_a;
  }
  return static_cast<double>(end - first) / static_cast<double>(k);
}

// The Levenshtein distance, 64 cells of a column at once (Myers 1999, with the carries between words of Hyyrö 2003). A
// bit of `up` or `down` is set if a cell is one more or one less than the cell above it; a runs down, b runs right.
double edit_distance(int64_t k, Scratch& scratch) {
  const int64_t words = (k + 63) / 64;
  const uint64_t last = uint64_t{1} << ((k - 1) % 64);
  std::fill_n(scratch.up.begin(), words, ~uint64_t{0});
  std::fill_n(scratch.down.begin(), words, 0);
  int64_t distance = k;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int64_t rank_in_a = scratch.rank_in_a[rank];
    uint64_t increase = 1, decrease = 0;  // of the cell above the word, compared with its left neighbour
    for (int64_t word = 0; word < words; ++word) {
      uint64_t &up = scratch.up[word], &down = scratch.down[word];
      const uint64_t equal = rank_in_a >= 0 && rank_in_a / 64 == word ? uint64_t{1} << (rank_in_a % 64) : 0;
      const uint64_t vertical = equal | down, match = equal | decrease;
      const uint64_t diagonal = (((match & up) + up) ^ up) | match;
      uint64_t right_increase = down | ~(diagonal | up), right_decrease = up & diagonal;
      const uint64_t bottom = word + 1 == words ? last : uint64_t{1} << 63;
      const uint64_t increase_below = (right_increase & bottom) != 0, decrease_below = (right_decrease & bottom) != 0;
      right_increase = right_increase << 1 | increase;
      right_decrease = right_decrease << 1 | decrease;
      up = right_decrease | ~(vertical | right_increase);
      down = right_increase & vertical;
      increase = increase_below;
      decrease = decrease_below;
    }
    distance += static_cast<int64_t>(increase) - static_cast<int64_t>(decrease);
  }
  return 1.0 - static_cast<double>(distance) / static_cast<double>(k);
}

// Return whether row j of a contains i.
bool has_edge_back(const GraphPair& graphs, int64_t j, int64_t i) {
  const int64_t* row = graphs.a + j * graphs.k;
  return std::find(row, row + graphs.k, i) != row + graphs.k;
}

// Return 1 if any j in b_i has i in a_j, else 0.
double cycle(const GraphPair& graphs, int64_t i, Scratch&) {
  const int64_t* row = graphs.b + i * graphs.k;
  return std::any_of(row, row + graphs.k, [&](int64_t j) { return has_edge_back(graphs, j, i); }) ? 1.0 : 0.0;
}

// Return the share of j in b_i that have i in a_j.
double reciprocity(const GraphPair& graphs, int64_t i, Scratch&) {
  const int64_t* row = graphs.b + i * graphs.k;
  const auto mutual_edges = std::count_if(row, row + graphs.k, [&](int64_t j) { return has_edge_back(graphs, j, i); });
  return static_cast<double>(mutual_edges) / static_cast<double>(graphs.k);
}

// A score of the ranks that the entries of b_i have in a_i.
template <double (*score)(int64_t k, Scratch& scratch)>
double score_ranks(const GraphPair& graphs, int64_t i, Scratch& scratch) {
  const int64_t k = graphs.k;
  find_ranks(graphs.a + i * k, graphs.b + i * k, k, scratch);
  return score(k, scratch);
}

struct Score {
  const char* name;
  double (*score)(const GraphPair& graphs, int64_t i, Scratch& scratch);
};
constexpr Score kScores[] = {
    {"mutual_knn", score_ranks<mutual>},
    {"jaccard_knn", score_ranks<jaccard>},
    {"rank_similarity", score_ranks<rank_similarity>},
    {"lcs_knn", score_ranks<longest_common_subsequence>},
    {"edit_distance_knn", score_ranks<edit_distance>},
    {"cycle_knn", cycle},
    {"reciprocity", reciprocity},
};

// Call work(thread, row) for every row.
template <class Work>
void each_row(int threads, int64_t n, const Work& work) {
  run_phases(threads, 1, (n + kRows - 1) / kRows, [&](int thread, int64_t, int64_t job) {
    for (int64_t i = job * kRows; i < std::min(n, (job + 1) * kRows); ++i) work(thread, i);
  });
}

}  // namespace

std::vector<std::string> neighborhood_score_names() {
  std::vector<std::string> names;
  for (const Score& score : kScores) names.push_back(score.name);
  return names;
}

void neighborhood_scores(const GraphPair& graphs, const std::string& name, double* scores, int threads) {
  const auto* row = std::ranges::find_if(kScores, [&](const Score& score) { return score.name == name; });
  if (row == std::end(kScores)) {
    std::string names;
    for (const Score& score : kScores) names += (names.empty() ? "" : ", ") + std::string(score.name);
    throw std::invalid_argument("the neighborhood score must be one of " + names + ", got " + name);
  }
  std::vector<Scratch> scratch(threads, Scratch(graphs.k));
  each_row(threads, graphs.n, [&](int thread, int64_t i) { scores[i] = row->score(graphs, i, scratch[thread]); });
}

void relabelled_overlap(const GraphPair& graphs, const Relabellings& relabellings, int64_t* totals, int threads) {
  const int64_t n = graphs.n, k = graphs.k, count = relabellings.count;
  std::vector<int32_t> sorted(n * k);
  each_row(threads, n, [&](int, int64_t i) {
    const int64_t* row = graphs.b + i * k;
    int32_t* ids = sorted.data() + i * k;
    std::transform(row, row + k, ids, [](int64_t id) { return static_cast<int32_t>(id); });
    std::sort(ids, ids + k);
  });
  std::vector<int64_t> shared(count * threads);  // integers, whose sum does not depend on the order
  run_phases(threads, count, (n + kRows - 1) / kRows, [&](int thread, int64_t phase, int64_t job) {
    const int64_t* labels = relabellings.labels + phase * n;
    int64_t job_shared = 0;
    for (int64_t i = job * kRows; i < std::min(n, (job + 1) * kRows); ++i) {
      const int32_t* row = sorted.data() + labels[i] * k;
      for (int64_t rank = 0; rank < k; ++rank) {
        const int64_t label = labels[graphs.a[i * k + rank]];
        job_shared += *lower_bound_by_id(row, k, label, [](int32_t id) { return id; }) == label;
      }
    }
    shared[phase * threads + thread] += job_shared;
  });
  for (int64_t phase = 0; phase < count; ++phase) {
    totals[phase] = 0;
    for (int thread = 0; thread < threads; ++thread) totals[phase] += shared[phase * threads + thread];
  }
}

}  // namespace modalign
