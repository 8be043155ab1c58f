#include "cpu/knn/precision.hpp"

#include <functional>
#include <numeric>
#include <utility>

#include "cpu/knn/preparation.hpp"

namespace modalign {
namespace {

// The number of products a second, relative to float32.
double relative_speed(Precision precision) {
  switch (precision) {
    case Precision::int8:
      return 4;
    case Precision::bfloat16:
      return 2;
    case Precision::int16:
      return 1.6;
    case Precision::float32:
      return 1;
  }
  return 1;
}

double norm_of(const double* y, int64_t d) { return std::sqrt(std::inner_product(y, y + d, y, 0.0)); }

// start + <a, b>
double add_product(double start, const double* a, const double* b, int64_t d) {
  double lane[8] = {};
  int64_t c = 0;
  for (; c + 8 <= d; c += 8)
    for (int l = 0; l < 8; ++l) lane[l] += a[c + l] * b[c + l];
  for (; c < d; ++c) lane[0] += a[c] * b[c];
  return std::accumulate(lane, lane + 8, start);
}

// Scores of a few searching rows and a sample of the gallery.
struct Sample {
  int64_t searchers, size;
  int64_t rank;                            // of the neighbour that stands for the k-th in the whole gallery
  std::vector<double> query_norms, norms;  // [searchers], [size]
  std::vector<double> scores;              // [searchers, size]
};

Sample draw_sample(Search& search, const Table& searching, const Table& gallery) {
  constexpr int64_t kSearchers = 16;
  constexpr double kWork = 4e7, kShare = 1e-3;  // multiply-adds: at most this many, and this share of the search
  const int64_t d = search.call.d, n = gallery.rows.n;
  const double pairs = static_cast<double>(searching.rows.n) * static_cast<double>(n) / (search.with_itself ? 2 : 1);
  const double work = std::min(kWork, kShare * pairs * static_cast<double>(d));
  const int64_t size = std::clamp<int64_t>(static_cast<int64_t>(work / static_cast<double>(kSearchers * d)), 1, n);
  Sample sample{.searchers = std::min(kSearchers, searching.rows.n),
                .size = size,
                .rank = std::clamp<int64_t>(search.call.k * size / n, 1, size),
                .query_norms = {},
                .norms = std::vector<double>(size),
                .scores = {}};
  sample.scores.resize(sample.searchers * size);
  std::vector<double> queries(sample.searchers * d);
  for (int64_t i = 0; i < sample.searchers; ++i) {
    centred_row(search, searching, i * (searching.rows.n / sample.searchers), &queries[i * d]);
    sample.query_norms.push_back(norm_of(&queries[i * d], d));
  }
  search.each_row(size, [&](Scratch& scratch, int64_t j) {
    double* y = scratch.candidate_row.data();
    const double shift = centred_row(search, gallery, j * (n / size), y).shift;
    sample.norms[j] = norm_of(y, d);
    for (int64_t i = 0; i < sample.searchers; ++i)
      sample.scores[i * size + j] = add_product(shift, &queries[i * d], y, d);
  });
  return sample;
}

// How many pairs of a sample pass the screen of one precision, and how many a full list would keep in doubt, where the
// threshold is a lower bound itself.
struct Passed {
  double once = 0, in_doubt = 0;
};

Passed count_passed(const Sample& sample, double typical_error) {
  const double loss = 2 * typical_error;
  std::vector<double> sorted(sample.size);
  Passed passed;
  for (int64_t i = 0; i < sample.searchers; ++i) {
    const double* scores = &sample.scores[i * sample.size];
    std::copy(scores, scores + sample.size, sorted.begin());
    std::nth_element(sorted.begin(), sorted.begin() + (sample.rank - 1), sorted.end(), std::greater<>());
    const double threshold = sorted[sample.rank - 1];
    for (int64_t j = 0; j < sample.size; ++j) {
      const double margin = loss * sample.query_norms[i] * sample.norms[j];
      passed.once += scores[j] + margin >= threshold;
      passed.in_doubt += scores[j] + 2 * margin >= threshold;
    }
  }
  return passed;
}

// The estimated cost of one searching row, in multiply-adds of float32: the products, the float64 scores of the pairs
// that pass, and the lists.
double cost_per_row(const Search& search, const Sample& sample, int64_t n, Precision precision) {
  constexpr double kExact = 20, kEpilogue = 16, kOffer = 1000;
  const Passed passed = count_passed(sample, Coding::typical_error(precision, search.call.d));
  const double size = static_cast<double>(n), list_size = static_cast<double>(search.list_size);
  const double features = static_cast<double>(search.call.d);
  // pairs that pass with the last threshold, and while the threshold rises
  const auto over_time = [&](double count) {
    const double last = count / static_cast<double>(sample.searchers * sample.size) * size;
    return std::pair{last, std::min(size, last * (1 + std::log(std::max(1.0, size / last))))};
  };
  const auto [waiting, offered] = over_time(passed.in_doubt);
  // the more of a full list stays in doubt, the sooner it is full again
  const double refill = list_size / (list_size - std::min(waiting, 0.9 * list_size));
  return size * (features / relative_speed(precision) + kEpilogue) / (search.with_itself ? 2 : 1) +
         over_time(passed.once).second * features * kExact + offered * kOffer * refill;
}

}  // namespace

Precision cheapest_precision(Search& search) {
  const Table& searching = search.x.best.indices ? search.x : search.y;
  const Table& gallery = search.gallery_of(searching);
  const Sample sample = draw_sample(search, searching, gallery);
  Precision cheapest = Precision::float32;
  double least = std::numeric_limits<double>::infinity();
  for (Precision precision : screen_precisions()) {
    const double cost = cost_per_row(search, sample, gallery.rows.n, precision);
    if (cost < least) least = cost, cheapest = precision;
  }
  return cheapest;
}

}  // namespace modalign
