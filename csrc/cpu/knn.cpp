// Exact k nearest neighbours: a float32 screen discards what a proved bound excludes, float64 decides the rest.
//
// For searching row i and candidate j the screen computes t_ij, in units where every row is at most 1 long (rows are
// scaled by powers of two, which is exact), and knows |t_ij - s_ij| <= r_i e_j + f_j for the defined score s_ij. A
// candidate whose upper bound is below the k-th best lower bound seen so far is not a neighbour; the others are
// appended to the row's list. A full list is compacted: the k-th best lower bound rises, what lies under it is dropped,
// and if that is not enough (ties, duplicates) the listed candidates are scored in float64 and the best k stay. However
// stale a threshold is, nothing is lost; the order of the blocks changes only the work.
//
// Searching one set for itself, S is symmetric: each pair of stripes is multiplied once and serves both. The pairs are
// drawn as in a round-robin tournament, so that the jobs of a phase never share a row.
#include "cpu/knn.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "common/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/stripes.hpp"

namespace modalign {
namespace {

constexpr double kUnit = 0x1p-24;  // float32 rounding
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  int32_t id;
  float upper, lower;
};

struct Scored {
  double score;
  int64_t id;
  bool operator<(const Scored& other) const { return score != other.score ? score > other.score : id < other.id; }
};

float half_to_float(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
  float magnitude;
  __builtin_memcpy(&magnitude, &bits, sizeof bits);
  magnitude *= 0x1p112f;
  return (half & 0x8000) ? -magnitude : magnitude;
}
float bfloat16_to_float(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof bits);
  return result;
}

// Float64 views of the stored rows, and the sums over features, in order, that the definition is made of.
class Table {
 public:
  Table(const void* data, Dtype dtype, int64_t rows, int64_t d) : data_(data), dtype_(dtype), rows_(rows), d_(d) {}

  int64_t rows() const { return rows_; }
  Rows stripe(const Stripes& cut, int64_t i) const { return {data_, dtype_, d_, cut.start(i), cut.size(i)}; }

  void read(int64_t row, double* out) const {
    const int64_t at = row * d_;
    switch (dtype_) {
      case Dtype::float16:
        for (int64_t c = 0; c < d_; ++c) out[c] = half_to_float(static_cast<const uint16_t*>(data_)[at + c]);
        break;
      case Dtype::bfloat16:
        for (int64_t c = 0; c < d_; ++c) out[c] = bfloat16_to_float(static_cast<const uint16_t*>(data_)[at + c]);
        break;
      case Dtype::float32:
        for (int64_t c = 0; c < d_; ++c) out[c] = static_cast<const float*>(data_)[at + c];
        break;
      case Dtype::float64:
        std::copy_n(static_cast<const double*>(data_) + at, d_, out);
        break;
    }
  }

 private:
  const void* data_;
  Dtype dtype_;
  int64_t rows_, d_;
};

// Per row: what the screen and the definition need.
struct RowFacts {
  std::vector<double> inverse_norm;  // as defined: 1 / |x|, 0 for a zero row
  std::vector<double> norm;          // |x|
  std::vector<double> factor;        // the power of two its values are scaled by for the screen
};

class Search {
 public:
  Search(const Knn& call, int threads)
      : call_(call),
        threads_(threads),
        self_(call.queries == nullptr),
        gallery_(call.gallery, call.dtype, call.n, call.d),
        queries_(self_ ? call.gallery : call.queries, call.dtype, call.m, call.d),
        gallery_cut_(stripes(call.n, call.d)),
        query_cut_(self_ ? gallery_cut_ : stripes(call.m, call.d)),
        capacity_(std::max<int64_t>(64, 2 * call.k + 32)),
        count_(call.m, 0),
        lists_(call.m * capacity_) {
    for (int thread = 0; thread < threads; ++thread) {
      Own own;
      own.search = this;
      own.left.resize(query_cut_.rows * call.d);
      own.right.resize(gallery_cut_.rows * call.d);
      own.query.resize(call.d);
      own.candidates.resize(kLanes * call.d);
      own.lower.resize(capacity_);
      own.scored.reserve(capacity_);
      own_.push_back(std::move(own));
    }
    measure();
    bound();
  }

  void run(int64_t* indices, double* scores) {
    self_ ? search_itself() : search_gallery();
    run_phases(threads_, 1, query_cut_.count, [&](int thread, int64_t, int64_t stripe) {
      for (int64_t row = query_cut_.start(stripe); row < query_cut_.start(stripe) + query_cut_.size(stripe); ++row) {
        const std::vector<Scored>& best = score_exactly(own_[thread], row);
        for (int64_t i = 0; i < call_.k; ++i) {
          indices[row * call_.k + i] = best[i].id;
          scores[row * call_.k + i] = best[i].score;
        }
      }
    });
  }

 private:
  static constexpr int kLanes = 8;  // candidates scored at once: eight independent sums hide the adder's latency

  struct Own {
    Search* search;
    std::vector<float> left, right;
    std::vector<double> query, candidates;
    std::vector<float> lower;
    std::vector<Scored> scored;
  };

  void measure() {
    for (auto [table, facts] : {std::pair{&queries_, &query_facts_}, std::pair{&gallery_, &gallery_facts_}}) {
      if (self_ && table == &gallery_) break;
      facts->norm.resize(table->rows());
      facts->inverse_norm.resize(table->rows());
      facts->factor.assign(table->rows(), 1.0);
      const int64_t chunk = 256;
      run_phases(threads_, 1, (table->rows() + chunk - 1) / chunk, [&](int thread, int64_t, int64_t index) {
        double* values = own_[thread].query.data();
        for (int64_t row = index * chunk; row < std::min(table->rows(), (index + 1) * chunk); ++row) {
          table->read(row, values);
          double squares = 0;
          for (int64_t c = 0; c < call_.d; ++c) squares += values[c] * values[c];
          facts->norm[row] = std::sqrt(squares);
          facts->inverse_norm[row] = squares > 0 ? 1 / std::sqrt(squares) : 0.0;
        }
      });
    }
    if (self_) gallery_facts_ = query_facts_;
    const auto power_of_two = [](double norm) { return norm > 0 ? std::ldexp(1.0, -std::ilogb(norm) - 1) : 1.0; };
    double largest = 0;
    for (const RowFacts* facts : {&query_facts_, &gallery_facts_})
      for (double norm : facts->norm) {
        if (!std::isfinite(norm)) throw std::domain_error("knn: rows must be finite and their squares fit float64");
        largest = std::max(largest, norm);
      }
    for (RowFacts* facts : {&query_facts_, &gallery_facts_})
      for (size_t row = 0; row < facts->norm.size(); ++row)
        facts->factor[row] = power_of_two(call_.metric == Metric::cosine ? facts->norm[row] : largest);
  }

  // a, b, e, f of the candidates and r of the searching rows (see the top of this file and docs/exactness.md).
  //
  // With u = 2^-24: a dot product of d terms in float32, in any order, fused or not, is off by at most
  // (d + 1) u / (1 - (d + 1) u) |x| |y|; rounding float64 inputs adds 2 u, and a, b and the three operations of the
  // upper bound 4 u of what they handle. The float64 score differs from the real one by less than (d + 4) 2^-53 of the
  // same terms. All of it is rounded up by a few per cent.
  void bound() {
    const int64_t padded = gallery_cut_.padded();
    const double d = static_cast<double>(call_.d);
    const double gamma = 1.05 * ((d + 8) * kUnit) / (1 - (d + 8) * kUnit);
    const double tiny = d * 0x1p-140;  // what underflow can take
    a_.assign(padded, 0);
    b_ = e_ = f_ = a_;
    for (int64_t j = 0; j < call_.n; ++j) {
      const double norm = gallery_facts_.norm[j] * gallery_facts_.factor[j];
      const double a = call_.metric != Metric::cosine ? 1.0 : norm > 0 ? 1 / norm : 0.0;
      const double b = call_.metric == Metric::euclidean ? -norm * norm / 2 : 0.0;
      const double float64_error = call_.metric == Metric::euclidean ? d * 0x1p-50 : 0.0;
      f_[j] = static_cast<float>(1.05 * (5 * kUnit * -b + tiny));
      a_[j] = static_cast<float>(a);
      b_[j] = static_cast<float>(b) + f_[j];
      e_[j] = static_cast<float>(gamma * a * norm + float64_error + tiny);
    }
    r_.assign(query_cut_.padded(), 0);
    for (int64_t i = 0; i < call_.m; ++i)
      r_[i] = static_cast<float>(query_facts_.norm[i] * query_facts_.factor[i] * (1 + 4 * kUnit));
    threshold_.assign(query_cut_.padded(), -kInfinity);
  }

  void search_itself() {
    const int64_t count = gallery_cut_.count, players = count + count % 2;
    // phase 0 has the diagonal; phase p > 0 is round p - 1 of a tournament, its game 0 played by the last player
    run_phases(threads_, players == 1 ? 1 : std::max<int64_t>(players, 1), count,
               [&](int thread, int64_t phase, int64_t game) {
                 if (phase == 0) return screen(own_[thread], game, game, false);
                 if (game >= players / 2) return;
                 const int64_t others = players - 1, round = phase - 1;
                 const int64_t one = game == 0 ? players - 1 : (round + game) % others;
                 const int64_t two = game == 0 ? round : (round - game + others) % others;
                 if (one < count && two < count) screen(own_[thread], one, two, true);
               });
  }

  void search_gallery() {
    run_phases(threads_, 1, query_cut_.count, [&](int thread, int64_t, int64_t i) {
      for (int64_t j = 0; j < gallery_cut_.count; ++j) screen(own_[thread], i, j, false);
    });
  }

  void screen(Own& own, int64_t i, int64_t j, bool both_sides) {
    const ScreenTiles& kernels = screen_tiles();
    kernels.pack_left(queries_.stripe(query_cut_, i), &query_facts_.factor[query_cut_.start(i)], own.left.data());
    kernels.pack_right(gallery_.stripe(gallery_cut_, j), &gallery_facts_.factor[gallery_cut_.start(j)],
                       own.right.data());
    kernels.screen(own.left.data(), own.right.data(),
                   {.rows = query_cut_.size(i),
                    .cols = gallery_cut_.size(j),
                    .d = call_.d,
                    .row_start = query_cut_.start(i),
                    .col_start = gallery_cut_.start(j),
                    .a = a_.data(),
                    .b = b_.data(),
                    .e = e_.data(),
                    .r = r_.data(),
                    .threshold = threshold_.data(),
                    .both_sides = both_sides,
                    .offer =
                        [](void* context, int64_t searching, int64_t candidate, float upper) {
                          Own& own = *static_cast<Own*>(context);
                          own.search->offer(own, searching, candidate, upper);
                        },
                    .context = &own});
  }

  void offer(Own& own, int64_t row, int64_t id, float upper) {
    if (self_ && row == id) return;
    // 2.5 and not 2: the difference is rounded too
    const float lower = upper - 2.5f * (r_[row] * e_[id] + f_[id]);
    lists_[row * capacity_ + count_[row]++] = {static_cast<int32_t>(id), upper, lower};
    if (count_[row] == capacity_) compact(own, row);
  }

  void compact(Own& own, int64_t row) {
    Candidate* list = &lists_[row * capacity_];
    int64_t count = count_[row];
    for (int64_t i = 0; i < count; ++i) own.lower[i] = list[i].lower;
    std::nth_element(own.lower.begin(), own.lower.begin() + (call_.k - 1), own.lower.begin() + count, std::greater<>());
    threshold_[row] = std::max(threshold_[row], own.lower[call_.k - 1]);
    count = std::remove_if(list, list + count, [&](const Candidate& c) { return c.upper < threshold_[row]; }) - list;
    count_[row] = count;
    if (count <= (capacity_ + call_.k) / 2) return;
    // too many are still in doubt
    const std::vector<Scored>& best = score_exactly(own, row);
    for (int64_t i = 0; i < call_.k; ++i) {
      const auto [low, high] = screen_units(row, best[i]);
      list[i] = {static_cast<int32_t>(best[i].id), high, low};
      if (i == call_.k - 1) threshold_[row] = std::max(threshold_[row], low);
    }
    count_[row] = call_.k;
  }

  // A defined score in the screen's units, between floats.
  std::pair<float, float> screen_units(int64_t row, const Scored& scored) const {
    const double factor = query_facts_.factor[row], length = r_[row];
    const double other = gallery_facts_.norm[scored.id] * gallery_facts_.factor[scored.id];
    double units = 0, slack = 0;
    switch (call_.metric) {
      case Metric::cosine:  // <x, y> / |x| / |y| -> <x, y> factor_x / |y|
        units = scored.score * query_facts_.norm[row] * factor;
        slack = length;
        break;
      case Metric::dot:
        units = scored.score * factor * factor;
        slack = length * other;
        break;
      case Metric::euclidean:  // -|x - y|^2 -> <x, y> - |y|^2 / 2
        units = (scored.score * factor * factor + length * length) / 2;
        slack = length * length + other * other;
        break;
    }
    slack = slack * 0x1p-20 + 0x1p-140;
    return {std::nextafter(static_cast<float>(units - slack), -kInfinity),
            std::nextafter(static_cast<float>(units + slack), kInfinity)};
  }

  // The listed candidates of a row by their defined score, best k first.
  const std::vector<Scored>& score_exactly(Own& own, int64_t row) {
    const int64_t d = call_.d;
    queries_.read(row, own.query.data());
    own.scored.clear();
    for (int64_t start = 0; start < count_[row]; start += kLanes) {
      const int64_t filled = std::min<int64_t>(kLanes, count_[row] - start);
      const Candidate* list = &lists_[row * capacity_ + start];
      for (int64_t lane = 0; lane < filled; ++lane) gallery_.read(list[lane].id, &own.candidates[lane * d]);
      double sum[kLanes] = {};
      if (call_.metric == Metric::euclidean) {
        for (int64_t c = 0; c < d; ++c)
          for (int lane = 0; lane < kLanes; ++lane) {
            const double difference = own.query[c] - own.candidates[lane * d + c];
            sum[lane] -= difference * difference;
          }
      } else {
        for (int64_t c = 0; c < d; ++c)
          for (int lane = 0; lane < kLanes; ++lane) sum[lane] += own.query[c] * own.candidates[lane * d + c];
      }
      for (int64_t lane = 0; lane < filled; ++lane) {
        const int64_t id = list[lane].id;
        if (call_.metric == Metric::cosine)
          sum[lane] = sum[lane] * query_facts_.inverse_norm[row] * gallery_facts_.inverse_norm[id];
        own.scored.push_back({sum[lane], id});
      }
    }
    std::partial_sort(own.scored.begin(), own.scored.begin() + call_.k, own.scored.end());
    return own.scored;
  }

  const Knn& call_;
  const int threads_;
  const bool self_;
  const Table gallery_, queries_;
  const Stripes gallery_cut_, query_cut_;
  const int64_t capacity_;
  std::vector<int64_t> count_;
  std::vector<Candidate> lists_;
  std::vector<Own> own_;
  RowFacts query_facts_, gallery_facts_;
  std::vector<float> a_, b_, e_, f_, r_, threshold_;
};

}  // namespace

void knn(const Knn& call, int64_t* indices, double* scores, int threads) { Search(call, threads).run(indices, scores); }

}  // namespace modalign
