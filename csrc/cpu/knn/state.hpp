// The state of one search: the two sets of rows with their codes, thresholds and lists, and each thread's buffers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <vector>

#include "cpu/knn/knn.hpp"
#include "cpu/knn/screen.hpp"
#include "cpu/shared/exact_scores.hpp"
#include "cpu/shared/parallel.hpp"
#include "cpu/shared/stored_row.hpp"

namespace modalign {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline float rounded_down(double x) { return std::nextafter(static_cast<float>(x), -kInfinity); }
inline float rounded_up(double x) { return std::nextafter(static_cast<float>(x), kInfinity); }

// The number of candidates scored before the threshold is read again: k of them make the first threshold.
inline int64_t scored_at_once(int64_t k) { return std::max<int64_t>(16, k); }

// The number of candidates that a row's list holds.
inline int64_t list_size(int64_t k) { return std::max<int64_t>(64, 2 * k + 32); }

// A neighbour with its exact score; better ones come first.
struct Scored {
  double score;
  int64_t id;
  bool operator<(const Scored& other) const { return score != other.score ? score > other.score : id < other.id; }
};

// A row that the screen could not exclude, and the upper bound of its score in the units of the screen.
struct Candidate {
  int32_t id;
  float bound;
};

// The stripes into which rows are cut: units of work, of packing and of ownership.
struct Stripes {
  int64_t n = 0, rows = 1, count = 0;
  int64_t start(int64_t stripe) const { return stripe * rows; }
  int64_t size(int64_t stripe) const { return std::min(rows, n - start(stripe)); }
  int64_t padded() const { return count * rows; }
};

// One set of rows: codes, thresholds and lists of candidates.
struct Table {
  RowSet rows;
  Best best;
  Stripes stripes;
  std::vector<double> inverse_norm;  // 1 / |x| as the definition computes it, 0 for a zero row
  std::vector<double> base;          // the part of its scores that depends on the searching row alone
  std::vector<float> scale, code_norm, error, shift, threshold;
  std::vector<int32_t> offset;
  std::unique_ptr<std::byte[]> codes;
  float slack = 0;                        // bound of the rounding errors of float64
  std::vector<int32_t> waiting, scored;   // per row: candidates in its list, and candidates scored in float64
  std::vector<Candidate> candidate_list;  // [n, list_size]

  // An upper bound of what was added to a row's shift.
  float doubt(int64_t row) const { return slack + 0x1p-21f * std::abs(shift[row]); }

  ScreenSide side(int64_t stripe) const {
    const int64_t start = stripes.start(stripe);
    return {.rows = stripes.size(stripe),
            .scale = &scale[start],
            .offset = &offset[start],
            .norm = &code_norm[start],
            .error = &error[start],
            .shift = &shift[start],
            .threshold = &threshold[start]};
  }
};

// The buffers of one thread, allocated before the jobs start: jobs must not throw.
struct Scratch {
  std::vector<double> row, candidate_row;    // [d]
  std::unique_ptr<std::byte[]> left, right;  // packed stripes
  std::vector<Candidate> candidates;
  std::vector<float> lower_bounds;
  std::vector<int32_t> ids;
  std::vector<double> scores;
  std::vector<Scored> accepted, merged;
  Scratch(int64_t d, int64_t k) : row(d), candidate_row(d), ids(scored_at_once(k)), scores(scored_at_once(k)) {
    candidates.reserve(list_size(k));
    lower_bounds.reserve(list_size(k) + k);
    accepted.reserve(scored_at_once(k));
    merged.reserve(k);
  }
};

struct Search {
  const Knn& call;
  int threads;
  bool with_itself;   // x is searched in itself
  int64_t list_size;  // candidates that the list of a row holds
  ExactScores score_in_float64;
  double factor = 1;           // the common scale of all rows, unless the metric is the cosine
  std::vector<double> centre;  // [d], subtracted from every scaled row
  Table x, y;
  std::vector<Scratch> scratch;

  Search(const Knn& call, int threads)
      : call(call),
        threads(threads),
        with_itself(call.y.data == nullptr),
        list_size(modalign::list_size(call.k)),
        score_in_float64(exact_scores()) {
    x.rows = call.x, x.best = call.x_best;
    y.rows = call.y, y.best = call.y_best;
    for (int thread = 0; thread < threads; ++thread) scratch.emplace_back(call.d, call.k);
  }

  std::vector<Table*> tables() { return with_itself ? std::vector<Table*>{&x} : std::vector<Table*>{&x, &y}; }

  // The set in which a table is searched.
  Table& gallery_of(const Table& table) { return with_itself || &table == &y ? x : y; }

  Rows rows_of(const Table& table) const {
    return {.data = table.rows.data, .dtype = call.dtype, .d = call.d, .start = 0, .rows = table.rows.n};
  }

  void read(const Table& table, int64_t row, double* out) const { read_row(rows_of(table), row, out); }

  // Calls work(scratch, row) for rows 0 to n - 1.
  void each_row(int64_t n, auto work) {
    constexpr int64_t kChunk = 256;
    run_phases(threads, 1, (n + kChunk - 1) / kChunk, [&](int thread, int64_t, int64_t chunk) {
      for (int64_t row = chunk * kChunk; row < std::min(n, (chunk + 1) * kChunk); ++row) work(scratch[thread], row);
    });
  }
};

}  // namespace modalign
