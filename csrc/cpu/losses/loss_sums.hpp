// Running sums of exponentials for the rows and columns of a strip of logits.
#pragma once

#include "cpu/losses/logits.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

// Add logits of one row to its running sums. Rows whose logits are all left out keep a maximum of kNever; their sum
// vanishes once a real maximum comes, because exp(kNever - maximum) is 1e-38.
template <class T, bool capped, bool weighted>
void add_row(const T* logits, int64_t padded, T cap, Running<T> running) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V never = S::broadcast(kNever<T>);
  const auto logits_from = [&](int64_t c) {
    const V logit = S::load(logits + c);
    return capped ? where<T>(logit <= cap, logit, never) : logit;
  };
  V best = logits_from(0);
  for (int64_t c = S::width; c < padded; c += S::width) best = S::max(best, logits_from(c));
  T new_max = S::horizontal_max(best);
  new_max = new_max > *running.max ? new_max : *running.max;
  V sum = {}, mean = {};
  for (int64_t c = 0; c < padded; c += S::width) {
    const V logit = logits_from(c), share = Exp<T>::of(logit - new_max);
    sum += share;
    if (weighted) mean += share * where<T>(logit > never, logit, V{});
  }
  const T rescale = Exp<T>::of(S::broadcast(*running.max - new_max))[0];
  *running.sum = *running.sum * rescale + S::horizontal_sum(sum);
  if (weighted) *running.weighted = *running.weighted * rescale + S::horizontal_sum(mean);
  *running.max = new_max;
}

// The same for a vector of columns at once, over the rows of a strip.
template <class T, bool capped, bool weighted>
void add_columns(const T* logits, int64_t rows, const T* caps, Running<T> running) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V never = S::broadcast(kNever<T>), cap = capped ? S::load(caps) : never;
  const auto row_logits = [&](int64_t r) {
    const V logit = S::load(logits + r * kGroup);
    return capped ? where<T>(logit <= cap, logit, never) : logit;
  };
  const V old_max = S::load(running.max);
  V new_max = old_max;
  for (int64_t r = 0; r < rows; ++r) new_max = S::max(new_max, row_logits(r));
  const V rescale = Exp<T>::of(old_max - new_max);
  V sum = S::load(running.sum) * rescale, mean = {};
  if (weighted) mean = S::load(running.weighted) * rescale;
  for (int64_t r = 0; r < rows; ++r) {
    const V logit = row_logits(r), share = Exp<T>::of(logit - new_max);
    sum += share;
    if (weighted) mean += share * where<T>(logit > never, logit, V{});
  }
  S::store(running.max, new_max);
  S::store(running.sum, sum);
  if (weighted) S::store(running.weighted, mean);
}

// The largest distance between a shift and the references (running maxima or log-sum-exps) that it may replace.
//
// If all references of a strip are that near, exp(logit - shift) serves a row and a column at once. It is at most
// exp(kNear), and where it is clamped at exp(-87) the entry is below exp(kNear - 87) of either sum, too little to
// change a float. The entries of a sum are at most exp(2 kNear) times its reference: ten million of them still fit a
// float.
template <class T>
constexpr T kNear = 36;

// The range of some references.
template <class T>
struct Span {
  T low = -kNever<T>, high = kNever<T>;
  void include(T value) {
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  T middle() const { return low / 2 + high / 2; }
  bool is_near(T shift) const { return shift - low <= kNear<T> && high - shift <= kNear<T>; }
};

// The sums of a group of columns relative to one shift, as long as that is near their references.
template <class T>
struct ColumnSums {
  using S = Simd<T>;
  alignas(kVectorBytes) T sum[kGroup];  // of exp(logit - shift)
  Running<T> running;                   // null if columns are not wanted
  int64_t cols, padded;
  Span<T> span;
  T shift = 0;
  bool pending = false;  // `sum` has entries that `running` lacks

  ColumnSums(Running<T> running, int64_t cols, int64_t padded) : running(running), cols(cols), padded(padded) {
    start();
  }

  void start() {
    span = {};
    if (running.max)
      for (int64_t c = 0; c < cols; ++c) span.include(running.max[c]);
    shift = running.max ? span.middle() : T(0);
    for (int64_t c = 0; c < padded; ++c) sum[c] = 0;
    pending = false;
  }
  void finish() {
    if (!running.max || !pending) return;
    for (int64_t c = 0; c < padded; c += S::width) {
      const auto factor = Exp<T>::of(S::min(shift - S::load(running.max + c), S::broadcast(kNear<T>)));
      S::store(running.sum + c, S::load(running.sum + c) + S::load(sum + c) * factor);
    }
  }
};

// Add a strip to the sums of its rows and columns, with one exponential an entry. Return false, and change no sum, if
// the shift is not near all their references and the largest logit. Rows of the strip beyond `rows` are overwritten.
template <class T>
bool add_together(T* strip, int64_t rows, Running<T> row, ColumnSums<T>& columns) {
  using S = Simd<T>;
  using V = typename S::Vector;
  Span<T> row_span;
  for (int64_t r = 0; r < rows; ++r) row_span.include(row.max[r]);
  const T shift = columns.running.max ? columns.shift : row_span.middle();
  if (!row_span.is_near(shift) || (columns.running.max && !columns.span.is_near(shift))) return false;
  V best = S::broadcast(kNever<T>);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns.padded; c += S::width) best = S::max(best, S::load(strip + r * kGroup + c));
  if (!(S::horizontal_max(best) - shift <= kNear<T>)) return false;
  for (int64_t r = rows; r < kRows; ++r)
    for (int64_t c = 0; c < columns.padded; c += S::width) S::store(strip + r * kGroup + c, S::broadcast(kNever<T>));
  V row_sum[kRows] = {};
  for (int64_t c = 0; c < columns.padded; c += S::width) {
    V sum = S::load(columns.sum + c);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V share = Exp<T>::of(S::load(strip + r * kGroup + c) - shift);
      row_sum[r] += share;
      sum += share;
    }
    S::store(columns.sum + c, sum);
  }
  for (int64_t r = 0; r < rows; ++r)
    row.sum[r] += S::horizontal_sum(row_sum[r]) * Exp<T>::of(S::broadcast(shift - row.max[r]))[0];
  columns.pending = true;
  return true;
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
