// Sums of exponentials below their references, for the rows and columns of a strip of logits.
#pragma once

#include "cpu/shared/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int64_t kGroup = 256;  // columns of a strip: kRows x 256 floats stay in the first-level cache

template <class T>
typename Simd<T>::Vector where(typename Simd<T>::Mask mask, typename Simd<T>::Vector a, typename Simd<T>::Vector b) {
  return mask ? a : b;
}

// One more run of a row's logits into its running sums. Rows whose logits are all left out keep a maximum of kNever;
// what they sum meanwhile is forgotten when a real maximum comes: exp(kNever - maximum) is 1e-38.
template <class T, bool capped, bool weighted>
void add_row(const T* logits, int64_t padded, T cap, Running<T> running) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V never = S::broadcast(kNever<T>);
  const auto at = [&](int64_t c) {
    const V logit = S::load(logits + c);
    return capped ? where<T>(logit <= cap, logit, never) : logit;
  };
  V best = at(0);
  for (int64_t c = S::width; c < padded; c += S::width) best = S::max(best, at(c));
  T new_max = S::horizontal_max(best);
  new_max = new_max > *running.max ? new_max : *running.max;
  V sum = {}, mean = {};
  for (int64_t c = 0; c < padded; c += S::width) {
    const V logit = at(c), share = Exp<T>::of(logit - new_max);
    sum += share;
    if (weighted) mean += share * where<T>(logit > never, logit, V{});
  }
  const T rescale = Exp<T>::of(S::broadcast(*running.max - new_max))[0];
  *running.sum = *running.sum * rescale + S::horizontal_sum(sum);
  if (weighted) *running.weighted = *running.weighted * rescale + S::horizontal_sum(mean);
  *running.max = new_max;
}

// the same for a vector of columns at once, over the rows of a strip
template <class T, bool capped, bool weighted>
void add_columns(const T* logits, int64_t ld, int64_t rows, const T* caps, Running<T> running) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const V never = S::broadcast(kNever<T>), cap = capped ? S::load(caps) : never;
  const auto at = [&](int64_t r) {
    const V logit = S::load(logits + r * ld);
    return capped ? where<T>(logit <= cap, logit, never) : logit;
  };
  const V old_max = S::load(running.max);
  V new_max = old_max;
  for (int64_t r = 0; r < rows; ++r) new_max = S::max(new_max, at(r));
  const V rescale = Exp<T>::of(old_max - new_max);
  V sum = S::load(running.sum) * rescale, mean = {};
  if (weighted) mean = S::load(running.weighted) * rescale;
  for (int64_t r = 0; r < rows; ++r) {
    const V logit = at(r), share = Exp<T>::of(logit - new_max);
    sum += share;
    if (weighted) mean += share * where<T>(logit > never, logit, V{});
  }
  S::store(running.max, new_max);
  S::store(running.sum, sum);
  if (weighted) S::store(running.weighted, mean);
}

// References of log-sum-exps, and one shift for all of them that are near it: at most kNear apart.
//
// exp(logit - shift) then serves a row and a column at once. It is at most exp(kNear), and where it is clamped at
// exp(-87) the entry is below exp(kNear - 87) of either sum, which no float holds beside it. A sum's entries are at
// most exp(2 kNear) above its reference: ten million of them still are a float.
template <class T>
constexpr T kNear = 36;

template <class T>
struct Span {
  T low = -kNever<T>, high = kNever<T>;
  void take(T value) {
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  T middle() const { return low / 2 + high / 2; }
  bool near(T shift) const { return shift - low <= kNear<T> && high - shift <= kNear<T>; }
};

// The columns of a group while their sums are taken below one shift, as long as it is near to their references.
template <class T>
struct Columns {
  using S = Simd<T>;
  alignas(kVectorBytes) T sum[kGroup];  // of exp(logit - shift)
  Running<T> running;                   // null: columns are not wanted
  int64_t cols, padded;
  Span<T> span;
  T shift = 0;
  bool waiting = false;  // sums that are not where they belong

  Columns(Running<T> running, int64_t cols, int64_t padded) : running(running), cols(cols), padded(padded) { start(); }

  void start() {
    span = {};
    if (running.max)
      for (int64_t c = 0; c < cols; ++c) span.take(running.max[c]);
    shift = running.max ? span.middle() : T(0);
    for (int64_t c = 0; c < padded; ++c) sum[c] = 0;
    waiting = false;
  }
  void finish() {
    if (!running.max || !waiting) return;
    for (int64_t c = 0; c < padded; c += S::width) {
      const auto factor = Exp<T>::of(S::min(shift - S::load(running.max + c), S::broadcast(kNear<T>)));
      S::store(running.sum + c, S::load(running.sum + c) + S::load(sum + c) * factor);
    }
  }
};

// A strip's entries into the sums of its rows and columns, each with one exponential; false, and nothing is done, where
// the shift is not near to all they have so far, or to the largest logit. Rows of the strip beyond `rows` are lost.
template <class T>
bool add_both(T* strip, int64_t rows, Running<T> row, Columns<T>& columns) {
  using S = Simd<T>;
  using V = typename S::Vector;
  Span<T> of_rows;
  for (int64_t r = 0; r < rows; ++r) of_rows.take(row.max[r]);
  const T shift = columns.running.max ? columns.shift : of_rows.middle();
  if (!of_rows.near(shift) || (columns.running.max && !columns.span.near(shift))) return false;
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
  columns.waiting = true;
  return true;
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
