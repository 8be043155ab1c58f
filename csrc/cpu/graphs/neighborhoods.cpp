// Most scores need no more of two lists than where each entry of one stands in the other: sort one by id, look the
// other up. O(k log k) a row; the edit distance k^2 / 64, cycle and reciprocity up to k^2.
#include "cpu/graphs/neighborhoods.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

constexpr int64_t kRows = 256;

struct Ranked {
  int64_t id;
  int32_t rank;
};

// What one thread needs for one row.
struct Scratch {
  explicit Scratch(int64_t k) : sorted(k), place(k), tails(k), up((k + 63) / 64), down((k + 63) / 64), harmonic(k + 1) {
    for (int64_t rank = 1; rank <= k; ++rank) harmonic[rank] = harmonic[rank - 1] + 1.0 / static_cast<double>(rank);
  }
  std::vector<Ranked> sorted;
  std::vector<int32_t> place;      // of b's entries in a, -1: not there
  std::vector<int32_t> tails;      // lcs
  std::vector<uint64_t> up, down;  // edit distance
  std::vector<double> harmonic;    // 1 + 1/2 + .. + 1/c
};

// The first of count ascending values that is not below the wanted one, or the last; no branch to mispredict.
template <class T, class Id>
const T* not_below(const T* first, int64_t count, int64_t wanted, const Id& id) {
  for (; count > 1; count -= count / 2) first += id(first[count / 2 - 1]) < wanted ? count / 2 : 0;
  return first;
}

void find_places(const int64_t* a, const int64_t* b, int64_t k, Scratch& scratch) {
  Ranked* sorted = scratch.sorted.data();
  for (int64_t rank = 0; rank < k; ++rank) sorted[rank] = {a[rank], static_cast<int32_t>(rank)};
  std::sort(sorted, sorted + k, [](const Ranked& one, const Ranked& two) { return one.id < two.id; });
  for (int64_t rank = 0; rank < k; ++rank) {
    const Ranked* found = not_below(sorted, k, b[rank], [](const Ranked& entry) { return entry.id; });
    scratch.place[rank] = found->id == b[rank] ? found->rank : -1;
  }
}

int64_t shared(const Scratch& scratch, int64_t k) {
  return std::count_if(scratch.place.begin(), scratch.place.begin() + k, [](int32_t place) { return place >= 0; });
}

double mutual(int64_t k, Scratch& scratch) { return static_cast<double>(shared(scratch, k)) / static_cast<double>(k); }

double jaccard(int64_t k, Scratch& scratch) {
  const int64_t both = shared(scratch, k);
  return static_cast<double>(both) / static_cast<double>(2 * k - both);
}

double rank_similarity(int64_t k, Scratch& scratch) {
  double sum = 0;
  int64_t both = 0;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int64_t other = scratch.place[rank];
    if (other < 0) continue;
    sum += 2.0 / static_cast<double>((1 + std::abs(rank - other)) * (rank + other + 2));
    ++both;
  }
  return both ? sum / scratch.harmonic[both] : 0.0;
}

// Entries are distinct: a common subsequence is an increasing run of places. tails[l]: the least end of one of l + 1.
double lcs(int64_t k, Scratch& scratch) {
  int32_t *first = scratch.tails.data(), *end = first;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int32_t place = scratch.place[rank];
    if (place < 0) continue;
    int32_t* spot = std::lower_bound(first, end, place);
    if (spot == end) ++end;
    *spot = place;
  }
  return static_cast<double>(end - first) / static_cast<double>(k);
}

// Levenshtein's distance, 64 cells of a column at once (Myers 1999, with the carries between words of Hyyrö 2003). Bits
// of up and down: whether a cell is one more or one less than the cell above it; a goes down, b goes right.
double edit_distance(int64_t k, Scratch& scratch) {
  const int64_t words = (k + 63) / 64;
  const uint64_t last = uint64_t{1} << ((k - 1) % 64);
  std::fill_n(scratch.up.begin(), words, ~uint64_t{0});
  std::fill_n(scratch.down.begin(), words, 0);
  int64_t distance = k;
  for (int64_t rank = 0; rank < k; ++rank) {
    const int64_t place = scratch.place[rank];
    uint64_t more = 1, less = 0;  // how the cell above the word differs from its left neighbour
    for (int64_t word = 0; word < words; ++word) {
      uint64_t &up = scratch.up[word], &down = scratch.down[word];
      const uint64_t equal = place >= 0 && place / 64 == word ? uint64_t{1} << (place % 64) : 0;
      const uint64_t vertical = equal | down, match = equal | less;
      const uint64_t diagonal = (((match & up) + up) ^ up) | match;
      uint64_t right_more = down | ~(diagonal | up), right_less = up & diagonal;
      const uint64_t bottom = word + 1 == words ? last : uint64_t{1} << 63;
      const uint64_t more_below = (right_more & bottom) != 0, less_below = (right_less & bottom) != 0;
      right_more = right_more << 1 | more;
      right_less = right_less << 1 | less;
      up = right_less | ~(vertical | right_more);
      down = right_more & vertical;
      more = more_below;
      less = less_below;
    }
    distance += static_cast<int64_t>(more) - static_cast<int64_t>(less);
  }
  return 1.0 - static_cast<double>(distance) / static_cast<double>(k);
}

bool lists(const int64_t* row, int64_t k, int64_t id) { return std::find(row, row + k, id) != row + k; }

// Of j in b_i: whether one has i in a_j, and how many have.
double cycle(const int64_t* a, const int64_t* b, int64_t k, int64_t i) {
  return std::any_of(b + i * k, b + (i + 1) * k, [&](int64_t j) { return lists(a + j * k, k, i); }) ? 1.0 : 0.0;
}

double reciprocity(const int64_t* a, const int64_t* b, int64_t k, int64_t i) {
  const auto back = std::count_if(b + i * k, b + (i + 1) * k, [&](int64_t j) { return lists(a + j * k, k, i); });
  return static_cast<double>(back) / static_cast<double>(k);
}

double of_places(NeighborhoodScore score, int64_t k, Scratch& scratch) {
  switch (score) {
    case NeighborhoodScore::mutual:
      return mutual(k, scratch);
    case NeighborhoodScore::jaccard:
      return jaccard(k, scratch);
    case NeighborhoodScore::rank:
      return rank_similarity(k, scratch);
    case NeighborhoodScore::lcs:
      return lcs(k, scratch);
    default:
      return edit_distance(k, scratch);
  }
}

template <class Row>
void for_rows(int threads, int64_t phases, int64_t n, const Row& rows) {
  run_phases(threads, phases, (n + kRows - 1) / kRows, [&](int thread, int64_t phase, int64_t job) {
    rows(thread, phase, job * kRows, std::min(n, (job + 1) * kRows));
  });
}

}  // namespace

void neighborhood_scores(const int64_t* a, const int64_t* b, int64_t n, int64_t k, NeighborhoodScore score,
                         double* scores, int threads) {
  std::vector<Scratch> own(threads, Scratch(k));
  for_rows(threads, 1, n, [&](int thread, int64_t, int64_t start, int64_t stop) {
    for (int64_t i = start; i < stop; ++i) {
      if (score == NeighborhoodScore::cycle) {
        scores[i] = cycle(a, b, k, i);
      } else if (score == NeighborhoodScore::reciprocity) {
        scores[i] = reciprocity(a, b, k, i);
      } else {
        find_places(a + i * k, b + i * k, k, own[thread]);
        scores[i] = of_places(score, k, own[thread]);
      }
    }
  });
}

void relabelled_overlap(const int64_t* a, const int64_t* b, int64_t n, int64_t k, const int64_t* relabellings,
                        int64_t count, int64_t* totals, int threads) {
  std::vector<int32_t> sorted(n * k);
  for_rows(threads, 1, n, [&](int, int64_t, int64_t start, int64_t stop) {
    for (int64_t i = start; i < stop; ++i) {
      std::transform(b + i * k, b + (i + 1) * k, sorted.data() + i * k,
                     [](int64_t id) { return static_cast<int32_t>(id); });
      std::sort(sorted.data() + i * k, sorted.data() + (i + 1) * k);
    }
  });
  std::vector<int64_t> found(count * threads);  // whole numbers: their sum has no order
  for_rows(threads, count, n, [&](int thread, int64_t phase, int64_t start, int64_t stop) {
    const int64_t* relabelled = relabellings + phase * n;
    int64_t shared = 0;
    for (int64_t i = start; i < stop; ++i) {
      const int32_t* row = sorted.data() + relabelled[i] * k;
      for (int64_t rank = 0; rank < k; ++rank) {
        const int64_t wanted = relabelled[a[i * k + rank]];
        shared += *not_below(row, k, wanted, [](int32_t id) { return id; }) == wanted;
      }
    }
    found[phase * threads + thread] += shared;
  });
  for (int64_t phase = 0; phase < count; ++phase) {
    totals[phase] = 0;
    for (int thread = 0; thread < threads; ++thread) totals[phase] += found[phase * threads + thread];
  }
}

}  // namespace modalign
