// Exact k nearest neighbours: a screen in low precision discards what a proved bound excludes, float64 decides the
// rest.
//
// Every metric is brought to one form. With z the rows at a common scale (unit rows for the cosine) and y = z - mu, the
// score of j for i is, up to a number that only i knows, s_ij = <y_i, y_j> + shift_j. The screen works with codes of y
// (codes.hpp), which bound s_ij from above. A candidate whose bound is below the k-th best score found so far is not a
// neighbour; the others wait in the row's list. When it is full they are scored as the definition has it, in float64,
// the best k are kept, and the threshold rises. However stale a threshold is, nothing is lost: the order of the blocks
// and the precision of the screen change only the work.
//
// x with itself: S is symmetric, each pair of stripes is multiplied once and serves both. The pairs are drawn as in a
// round-robin tournament, x and y as in a Latin square, so that the jobs of a phase never share a row.
#include "cpu/knn/knn.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "cpu/knn/codes.hpp"
#include "cpu/shared/isa.hpp"
#include "cpu/shared/parallel.hpp"
#include "cpu/shared/stored_row.hpp"

namespace modalign {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kChunk = 256;    // rows that a thread measures or codes at once
constexpr int64_t kSample = 1024;  // rows that tell where the middle is

// candidates scored before the threshold is looked at again: k make the first one
int64_t at_once(int64_t k) { return std::max<int64_t>(16, k); }
int64_t room_for(int64_t k) { return std::max<int64_t>(64, 2 * k + 32); }  // candidates that may wait

// products a second, in those of float32
double speed_of(Precision precision) {
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

float rounded_down(double x) { return std::nextafter(static_cast<float>(x), -kInfinity); }
float rounded_up(double x) { return std::nextafter(static_cast<float>(x), kInfinity); }

// A number that at least `count` of the values reach, and few more: bisection, without a branch that depends on them.
float reached_by(const std::vector<float>& values, int64_t count) {
  const auto reaching = [&](float bar) {
    int32_t total = 0;
    for (float value : values) total += value >= bar;
    return total;
  };
  float low = values[0], high = values[0];
  for (float value : values) low = value < low ? value : low, high = value > high ? value : high;
  for (int64_t many = static_cast<int64_t>(values.size()); many > count + count / 16;) {
    const float middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;  // equal but for rounding
    const int64_t reached = reaching(middle);
    if (reached >= count)
      low = middle, many = reached;
    else
      high = middle;
  }
  return low;
}

struct Scored {
  double score;
  int64_t id;
  bool operator<(const Scored& other) const { return score != other.score ? score > other.score : id < other.id; }
};

// A candidate that the screen could not exclude, and the upper bound of its score in the screen's units.
struct Waiting {
  int32_t id;
  float bound;
};

// How rows are cut: the unit of work, of packing and of ownership.
struct Stripes {
  int64_t n = 0, rows = 1, count = 0;
  int64_t start(int64_t stripe) const { return stripe * rows; }
  int64_t size(int64_t stripe) const { return std::min(rows, n - start(stripe)); }
  int64_t padded() const { return count * rows; }
};

// About 1,000 rows, so that packing is small beside the work; fewer where n is small, so that there are jobs for
// several threads, or rows are long, so that a packed stripe stays near the second-level cache.
Stripes stripes(int64_t n, int64_t row_bytes) {
  const auto whole = [](int64_t rows) { return std::max<int64_t>(1, rows / kStripeMultiple) * kStripeMultiple; };
  const int64_t most = std::min<int64_t>(whole((1 << 20) / row_bytes), 960);
  const int64_t rows = std::min(most, whole((n + 15) / 16 + kStripeMultiple - 1));
  return {n, rows, (n + rows - 1) / rows};
}

// One set of rows, and what the search learns of it.
struct Table {
  RowSet rows;
  Best best;
  Stripes cut;
  std::vector<double> inverse_norm;  // 1 / |x| as defined, 0 for a zero row
  std::vector<double> base;          // what only the row knows of its scores
  std::vector<float> scale, code_norm, error, shift, threshold;
  std::vector<int32_t> offset;
  std::unique_ptr<std::byte[]> codes;
  float slack = 0;                       // of float64's own rounding
  std::vector<int32_t> waiting, scored;  // how many of its candidates wait, and were scored in float64
  std::vector<Waiting> waiting_list;     // [n, room]

  // what was added to a shift, at most
  float doubt(int64_t row) const { return slack + 0x1p-21f * std::abs(shift[row]); }
  ScreenSide side(int64_t stripe) const {
    const int64_t at = cut.start(stripe);
    return {cut.size(stripe), &scale[at], &offset[at], &code_norm[at], &error[at], &shift[at], &threshold[at]};
  }
};

class Search {
 public:
  Search(const Knn& call, int threads)
      : call_(call), threads_(threads), itself_(call.y.data == nullptr), room_(room_for(call.k)) {
    x_.rows = call.x, x_.best = call.x_best;
    y_.rows = call.y, y_.best = call.y_best;
    for (int thread = 0; thread < threads; ++thread) own_.emplace_back(call.d, call.k);
    for (Table* table : tables()) measure(*table);
    place();
    precision_ = wanted_screen() ? *wanted_screen() : cheapest();
    tiles_ = &screen_tiles(precision_);
    coding_ = std::make_unique<Coding>(precision_, call.d);
    for (Table* table : tables()) encode(*table);
    for (Own& own : own_) {
      own.left.reset(new std::byte[x_.cut.rows * coding_->row_bytes() + kPackedBeyond]);
      own.right.reset(new std::byte[(itself_ ? x_ : y_).cut.rows * coding_->row_bytes() + kPackedBeyond]);
    }
  }

  KnnReport run() {
    itself_ ? tournament() : latin_square();
    for (Table* table : tables()) {
      if (!table->best.indices) continue;
      const Table& other = itself_ || table == &y_ ? x_ : y_;
      run_phases(threads_, 1, table->cut.count, [&](int thread, int64_t, int64_t stripe) {
        for (int64_t i = table->cut.start(stripe); i < table->cut.start(stripe) + table->cut.size(stripe); ++i)
          settle(own_[thread], *table, other, i);
      });
    }
    KnnReport report{precision_name(precision_), 0, 0};
    for (Table* table : tables()) {
      const int64_t candidates = (itself_ ? x_.rows.n - 1 : table == &x_ ? y_.rows.n : x_.rows.n);
      for (int32_t scored : table->scored) {
        report.scored += scored;
        report.redone += scored * int64_t{2} > candidates && candidates > 4 * room_;
      }
    }
    return report;
  }

 private:
  // what a thread works with
  struct Own {
    Search* search = nullptr;
    Table *left_table = nullptr, *right_table = nullptr;
    int64_t left_start = 0, right_start = 0;
    std::vector<double> row, other;
    std::unique_ptr<std::byte[]> left, right;
    std::vector<Waiting> waiting;
    std::vector<float> lower;
    std::vector<int32_t> ids;
    std::vector<double> scores;
    std::vector<Scored> found, merged;
    Own(int64_t d, int64_t k) : row(d), other(d), ids(at_once(k)), scores(at_once(k)) {  // jobs must not throw
      waiting.reserve(room_for(k));
      lower.reserve(room_for(k) + k);
      found.reserve(at_once(k));
      merged.reserve(k);
    }
  };

  std::vector<Table*> tables() { return itself_ ? std::vector<Table*>{&x_} : std::vector<Table*>{&x_, &y_}; }

  Rows rows_of(const Table& table) const { return {table.rows.data, call_.dtype, call_.d, 0, table.rows.n}; }

  void read(const Table& table, int64_t row, double* out) const { read_row(rows_of(table), row, out); }

  void each_row(int64_t n, auto work) {
    run_phases(threads_, 1, (n + kChunk - 1) / kChunk, [&](int thread, int64_t, int64_t chunk) {
      for (int64_t row = chunk * kChunk; row < std::min(n, (chunk + 1) * kChunk); ++row) work(own_[thread], row);
    });
  }

  void measure(Table& table) {
    const int64_t n = table.rows.n;
    std::vector<double> norms(n);
    table.inverse_norm.resize(n);
    each_row(n, [&](Own& own, int64_t row) {
      read(table, row, own.row.data());
      double squares = 0;
      for (int64_t c = 0; c < call_.d; ++c) squares += own.row[c] * own.row[c];
      norms[row] = std::sqrt(squares);
      table.inverse_norm[row] = squares > 0 ? 1 / std::sqrt(squares) : 0.0;
    });
    for (double norm : norms) {
      if (!std::isfinite(norm)) throw std::domain_error("knn: rows must be finite and their squares fit float64");
      largest_ = std::max(largest_, norm);
    }
  }

  // z: at most 1 long
  void scaled(const Table& table, int64_t row, double* z) const {
    read(table, row, z);
    const double factor = call_.metric == Metric::cosine ? table.inverse_norm[row] : factor_;
    for (int64_t c = 0; c < call_.d; ++c) z[c] *= factor;
  }

  // the common scale, and mu: the mean of a sample where taking it away makes most rows shorter, else 0
  void place() {
    factor_ = largest_ > 0 ? std::ldexp(1.0, -std::ilogb(largest_) - 1) : 1.0;
    middle_.assign(call_.d, 0.0);
    std::vector<double> z(call_.d);
    int64_t count = 0;
    const auto each = [&](auto work) {
      for (Table* table : tables())
        for (int64_t row = 0; row < table->rows.n; row += (table->rows.n + kSample - 1) / kSample) {
          scaled(*table, row, z.data());
          work();
        }
    };
    each([&] {
      for (int64_t c = 0; c < call_.d; ++c) middle_[c] += z[c];
      ++count;
    });
    for (double& value : middle_) value /= static_cast<double>(count);
    double before = 0, after = 0, shorter = 0;
    each([&] {
      double own = 0, moved = 0;
      for (int64_t c = 0; c < call_.d; ++c) {
        own += z[c] * z[c];
        moved += (z[c] - middle_[c]) * (z[c] - middle_[c]);
      }
      before += std::sqrt(own);
      after += std::sqrt(moved);
      shorter += moved < own;
    });
    if (after > 0.95 * before || shorter < 0.9 * static_cast<double>(count)) middle_.assign(call_.d, 0.0);
  }

  // y and, in what the definition's rounding leaves in doubt, shift and base
  void centred(const Table& table, int64_t row, double* y, double& shift, double& base) const {
    scaled(table, row, y);
    double with_middle = 0, along = 0, squares = 0;
    for (int64_t c = 0; c < call_.d; ++c) {
      with_middle += y[c] * middle_[c];
      y[c] -= middle_[c];
      along += y[c] * middle_[c];
      squares += y[c] * y[c];
    }
    const bool euclidean = call_.metric == Metric::euclidean;
    shift = euclidean ? -squares / 2 : with_middle;  // <y_i, y_j> + <mu, z_j> + <y_i, mu> = <z_i, z_j>
    base = euclidean ? -squares / 2 : along;
  }

  void encode(Table& table) {
    const int64_t n = table.rows.n, bytes = coding_->row_bytes();
    table.cut = stripes(n, bytes);
    const int64_t padded = table.cut.padded();
    table.codes.reset(new std::byte[n * bytes]);
    table.base.resize(n);
    for (auto* values : {&table.scale, &table.code_norm, &table.error}) values->assign(padded, 0);
    table.shift.assign(padded, std::numeric_limits<float>::quiet_NaN());  // what is not there reaches no threshold
    table.threshold.assign(padded, kInfinity);
    table.offset.assign(padded, 0);
    // The definition's float64 score, `base` and `shift` are each off by less than (d + 4) 2^-53 of what they sum,
    // which is at most 4 (euclidean: |z_i - z_j|^2 <= 4); products in float32 may lose 2^-149 each.
    const double doubt = 32 * static_cast<double>(call_.d + 8) * 0x1p-53 + static_cast<double>(call_.d) * 0x1p-140;
    table.slack = rounded_up(doubt);
    each_row(n, [&](Own& own, int64_t row) {
      double shift;
      centred(table, row, own.row.data(), shift, table.base[row]);
      const CodeFacts facts = coding_->code(own.row.data(), table.codes.get() + row * bytes);
      table.scale[row] = facts.scale;
      table.offset[row] = facts.offset;
      table.code_norm[row] = facts.norm;
      table.error[row] = facts.error;
      table.shift[row] = rounded_up(shift + doubt + 0x1p-22 * std::abs(shift));
      if (!table.best.indices) return;
      table.threshold[row] = -kInfinity;
      raise(table, row);
    });
    if (!table.best.indices) return;
    table.waiting.assign(n, 0);
    table.scored.assign(n, 0);
    table.waiting_list.resize(n * room_);
  }

  // raises the threshold of a row to its k-th best score
  void raise(Table& table, int64_t i) const {
    const int64_t last = (i + 1) * call_.k - 1;
    if (table.best.indices[last] >= 0)
      table.threshold[i] = std::max(table.threshold[i], in_screen_units(table, i, table.best.scores[last]));
  }

  float in_screen_units(const Table& table, int64_t i, double score) const {
    double units = 1;
    if (call_.metric != Metric::cosine) units = factor_ * factor_;
    if (call_.metric == Metric::euclidean) units /= 2;
    return rounded_down(score * units - table.base[i]);
  }

  void tournament() {
    const int64_t count = x_.cut.count, players = count + count % 2;
    // phase 0 has the diagonal; phase p > 0 is round p - 1 of a tournament, its game 0 played by the last player
    run_phases(threads_, std::max<int64_t>(players, 1), count, [&](int thread, int64_t phase, int64_t game) {
      if (phase == 0) return meet(own_[thread], x_, game, x_, game, true, true);
      if (game >= players / 2) return;
      const int64_t others = players - 1, round = phase - 1;
      const int64_t one = game == 0 ? players - 1 : (round + game) % others;
      const int64_t two = game == 0 ? round : (round - game + others) % others;
      if (one < count && two < count) meet(own_[thread], x_, one, x_, two, true, true);
    });
  }

  void latin_square() {
    const int64_t p = x_.cut.count, q = y_.cut.count, jobs = std::min(p, q), turns = std::max(p, q);
    run_phases(threads_, turns, jobs, [&](int thread, int64_t phase, int64_t job) {
      const int64_t other = (job + phase) % turns;
      meet(own_[thread], x_, p <= q ? job : other, y_, p <= q ? other : job, x_.best.indices, y_.best.indices);
    });
  }

  void meet(Own& own, Table& left, int64_t i, Table& right, int64_t j, bool left_searches, bool right_searches) {
    if (call_.stop && *call_.stop) return;
    const int64_t bytes = coding_->row_bytes(), words = coding_->words();
    own.search = this;
    own.left_table = &left, own.right_table = &right;
    own.left_start = left.cut.start(i), own.right_start = right.cut.start(j);
    const ScreenSide one = left.side(i), two = right.side(j);
    tiles_->pack_left(left.codes.get() + own.left_start * bytes, one.rows, words, own.left.get());
    tiles_->pack_right(right.codes.get() + own.right_start * bytes, two.rows, words, own.right.get());
    tiles_->screen(own.left.get(), own.right.get(),
                   {words, one, two, left_searches, right_searches, &left == &right && i == j,
                    [](void* context, bool right_searches, int64_t searcher, int64_t candidate, float bound) {
                      Own& own = *static_cast<Own*>(context);
                      Table& table = right_searches ? *own.right_table : *own.left_table;
                      const Table& others = right_searches ? *own.left_table : *own.right_table;
                      const int64_t start = right_searches ? own.right_start : own.left_start;
                      const int64_t other = right_searches ? own.left_start : own.right_start;
                      own.search->offer(own, table, others, start + searcher, other + candidate, bound);
                    },
                    &own});
    if (call_.done) *call_.done += one.rows * two.rows;
  }

  void offer(Own& own, Table& table, const Table& others, int64_t i, int64_t candidate, float bound) {
    if (table.rows.group && table.rows.group[i] == others.rows.group[candidate]) return;
    table.waiting_list[i * room_ + table.waiting[i]++] = {static_cast<int32_t>(candidate), bound};
    if (table.waiting[i] == room_) compact(own, table, others, i);
  }

  // Makes room: the k-th best lower bound of what is known raises the threshold, what lies under it goes. If much is
  // still in doubt (ties, duplicates), float64 decides. Apart from `offer`, which would save all registers otherwise.
  __attribute__((noinline)) void compact(Own& own, Table& table, const Table& others, int64_t i) {
    Waiting* list = &table.waiting_list[i * room_];
    const int64_t k = call_.k;
    const float norm = table.code_norm[i], error = table.error[i];
    own.lower.resize(table.waiting[i]);
    for (int64_t at = 0; at < table.waiting[i]; ++at) {
      const int32_t id = list[at].id;
      // 2.5 and not 2: the difference is rounded too
      own.lower[at] =
          list[at].bound - 2.5f * (norm * others.error[id] + error * others.code_norm[id] + others.doubt(id));
    }
    for (int64_t at = 0; at < k && table.best.indices[i * k + at] >= 0; ++at)
      own.lower.push_back(in_screen_units(table, i, table.best.scores[i * k + at]));
    table.threshold[i] = std::max(table.threshold[i], reached_by(own.lower, k));
    const float threshold = table.threshold[i];
    int32_t left = 0;
    for (int32_t at = 0; at < table.waiting[i]; ++at) {  // without a branch, which nobody could predict
      const Waiting one = list[at];
      list[left] = one;
      left += one.bound >= threshold;
    }
    table.waiting[i] = left;
    if (table.waiting[i] > (room_ + k) / 2) settle(own, table, others, i);
  }

  // scores the candidates that wait, the most promising first, and keeps the best k
  void settle(Own& own, Table& table, const Table& others, int64_t i) {
    const Waiting* list = &table.waiting_list[i * room_];
    own.waiting.assign(list, list + table.waiting[i]);
    table.waiting[i] = 0;
    std::sort(own.waiting.begin(), own.waiting.end(),
              [](const Waiting& one, const Waiting& two) { return one.bound > two.bound; });
    read(table, i, own.row.data());
    const size_t step = own.ids.size();
    for (size_t start = 0; start < own.waiting.size(); start += step) {
      int64_t count = 0;
      for (size_t at = start; at < std::min(own.waiting.size(), start + step); ++at)
        if (own.waiting[at].bound >= table.threshold[i]) own.ids[count++] = own.waiting[at].id;
      if (count == 0) return;
      score(own, table, others, i, count);
    }
  }

  // the `count` candidates in own.ids against row i, which is in own.row
  void score(Own& own, Table& table, const Table& others, int64_t i, int64_t count) {
    const int64_t k = call_.k;
    table.scored[i] += static_cast<int32_t>(count);
    exact_scores()(own.row.data(), rows_of(others), own.ids.data(), count, call_.metric == Metric::euclidean,
                   own.scores.data());
    int64_t* indices = table.best.indices + i * k;
    double* scores = table.best.scores + i * k;
    int64_t full = k;  // how many it has already
    while (full > 0 && indices[full - 1] < 0) --full;
    own.found.clear();
    for (int64_t c = 0; c < count; ++c) {
      double score = own.scores[c];
      if (call_.metric == Metric::cosine) score = score * table.inverse_norm[i] * others.inverse_norm[own.ids[c]];
      const Scored one{score, others.rows.first + own.ids[c]};
      if (full < k || one < Scored{scores[k - 1], indices[k - 1]}) own.found.push_back(one);
    }
    if (own.found.empty()) return;
    std::sort(own.found.begin(), own.found.end());
    own.merged.clear();
    for (int64_t old = 0, fresh = 0; static_cast<int64_t>(own.merged.size()) < k;) {
      const bool more = fresh < static_cast<int64_t>(own.found.size());
      if (old < full && (!more || Scored{scores[old], indices[old]} < own.found[fresh]))
        own.merged.push_back({scores[old], indices[old]}), ++old;
      else if (more)
        own.merged.push_back(own.found[fresh++]);
      else
        break;
    }
    for (size_t at = 0; at < own.merged.size(); ++at)
      scores[at] = own.merged[at].score, indices[at] = own.merged[at].id;
    raise(table, i);
  }

  // What a sample says a search will cost in each precision, in multiply-adds of float32: the products, and the float64
  // scores of what a bound that loose lets through. It changes the work alone, and takes a thousandth of it.
  Precision cheapest() {
    constexpr int64_t kSearchers = 16;
    constexpr double kWork = 4e7, kShare = 1e-3, kExact = 20, kEpilogue = 16, kOffer = 1000;
    const Table &searching = x_.best.indices ? x_ : y_, &gallery = itself_ || &searching == &y_ ? x_ : y_;
    const int64_t d = call_.d, n = gallery.rows.n, searchers = std::min(kSearchers, searching.rows.n);
    const double pairs = static_cast<double>(searching.rows.n) * static_cast<double>(n) / (itself_ ? 2 : 1);
    const double work = std::min(kWork, kShare * pairs * static_cast<double>(d));
    const int64_t sample = std::clamp<int64_t>(static_cast<int64_t>(work / static_cast<double>(kSearchers * d)), 1, n);
    const int64_t rank = std::clamp<int64_t>(call_.k * sample / n, 1, sample);
    std::vector<double> queries(searchers * d), query_norm(searchers), shift(sample), norm(sample);
    double unused, other;
    const auto length = [&](const double* y) { return std::sqrt(std::inner_product(y, y + d, y, 0.0)); };
    for (int64_t i = 0; i < searchers; ++i) {
      centred(searching, i * (searching.rows.n / searchers), &queries[i * d], unused, other);
      query_norm[i] = length(&queries[i * d]);
    }
    std::vector<double> scores(searchers * sample), sorted(sample);
    each_row(sample, [&](Own& own, int64_t j) {
      double base;
      centred(gallery, j * (n / sample), own.other.data(), shift[j], base);
      norm[j] = length(own.other.data());
      for (int64_t i = 0; i < searchers; ++i) {
        double lane[8] = {};
        const double *one = &queries[i * d], *two = own.other.data();
        int64_t c = 0;
        for (; c + 8 <= d; c += 8)
          for (int l = 0; l < 8; ++l) lane[l] += one[c + l] * two[c + l];
        for (; c < d; ++c) lane[0] += one[c] * two[c];
        scores[i * sample + j] = std::accumulate(lane, lane + 8, shift[j]);
      }
    });
    Precision best = Precision::float32;
    double least = std::numeric_limits<double>::infinity();
    for (Precision precision : screen_precisions()) {
      const double loss = 2 * Coding::typical_error(precision, d);
      double passed = 0, doubted = 0;
      for (int64_t i = 0; i < searchers; ++i) {
        const double* own = &scores[i * sample];
        std::copy(own, own + sample, sorted.begin());
        std::nth_element(sorted.begin(), sorted.begin() + (rank - 1), sorted.end(), std::greater<>());
        for (int64_t j = 0; j < sample; ++j) {
          const double allowed = loss * query_norm[i] * norm[j];
          passed += own[j] + allowed >= sorted[rank - 1];
          doubted += own[j] + 2 * allowed >= sorted[rank - 1];  // by a threshold that is a lower bound itself
        }
      }
      const double size = static_cast<double>(n), room = static_cast<double>(room_), features = static_cast<double>(d);
      const auto over_time = [&](double count) {
        const double last = count / static_cast<double>(searchers * sample) * size;
        return std::pair{last, std::min(size, last * (1 + std::log(std::max(1.0, size / last))))};
      };
      const auto [waiting, offered] = over_time(doubted);
      // the more of a full list stays in doubt, the sooner it is full again
      const double refill = room / (room - std::min(waiting, 0.9 * room));
      const double cost = size * (features / speed_of(precision) + kEpilogue) / (itself_ ? 2 : 1) +
                          over_time(passed).second * features * kExact + offered * kOffer * refill;
      if (cost < least) least = cost, best = precision;
    }
    return best;
  }

  const Knn& call_;
  const int threads_;
  const bool itself_;
  const int64_t room_;
  double largest_ = 0, factor_ = 1;
  std::vector<double> middle_;
  Precision precision_ = Precision::float32;
  const ScreenTiles* tiles_ = nullptr;
  std::unique_ptr<Coding> coding_;
  Table x_, y_;
  std::vector<Own> own_;
};

}  // namespace

KnnReport knn(const Knn& call, int threads) { return Search(call, threads).run(); }

int64_t knn_bytes(int64_t n, int64_t m, int64_t d, int64_t k, int threads) {
  // codes at their widest; norms and bounds; what waits; packed stripes
  const int64_t a_row = 4 * d + 2 * 8 + 8 + 6 * 4 + 8 + 8 * room_for(k);
  return (n + m) * a_row + threads * 2 * (int64_t{1} << 20) + threads * (4 * d + 1024) * 8;
}

}  // namespace modalign
