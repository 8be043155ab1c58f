// InfoNCE on one block, for one instruction set.
//
//   forward    strips of kRows x kGroup logits, added to the running sums of their rows and columns
//   backward   the weights W of a part of a block, from its logits
#pragma once

#include <type_traits>

#include "cpu/losses/loss_sums.hpp"
#include "cpu/losses/weights.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

// Write the positives and the stored logits of a strip, and leave out the entries that do not count.
template <class T>
void filter_strip(T* strip, const Window& window, const ForwardBlock<T>& block) {
  const int64_t col = window.col, cols = window.cols;
  for (int64_t r = 0; r < window.rows; ++r) {
    T* logits = strip + r * kGroup;
    const int64_t i = window.row + r, pair = i + block.diagonal_shift - col;  // the column of its pair in the strip
    if (block.positive && pair >= 0 && pair < cols) block.positive[i] = logits[pair];
    if (i < block.stored_rows)
      for (int64_t c = 0; c < cols; ++c) block.stored[i * block.stored_ld + col + c] = logits[c];
    leave_out(logits, i, window, block);
  }
}

// Add a strip to its rows and columns, with an exponential for each.
template <class T, bool capped, bool weighted>
void add_apart(const T* strip, const Window& window, const ForwardBlock<T>& block) {
  for (int64_t r = 0; r < window.rows; ++r)
    add_row<T, capped, weighted>(strip + r * kGroup, window.padded, capped ? block.row_cap[window.row + r] : T(0),
                                 block.row.shifted(window.row + r));
  if (block.col.max)
    for (int64_t c = 0; c < window.padded; c += Simd<T>::width)
      add_columns<T, capped, weighted>(strip + c, window.rows, capped ? block.col_cap + window.col + c : nullptr,
                                       block.col.shifted(window.col + c));
}

template <class P, bool capped, bool weighted>
void forward_with(const PackedOperands& operands, const ForwardBlock<typename P::Sum>& block) {
  using T = typename P::Sum;
  alignas(64) T strip[kRows * kGroup];
  const Panels<P> panels(operands, block.d);
  for (int64_t col = 0; col < block.cols; col += kGroup) {
    const Window group = window_of(block, 0, kRows, col, kGroup);
    ColumnSums<T> columns(block.col.shifted(col), group.cols, group.padded);
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const Window window = window_of(block, row, kRows, col, kGroup);
      logits_strip<P, kGroup>(panels, block.scale, window, strip);
      filter_strip(strip, window, block);
      if (!capped && !weighted && add_together<T>(strip, window.rows, block.row.shifted(row), columns)) continue;
      if (!capped && !weighted) columns.finish();
      add_apart<T, capped, weighted>(strip, window, block);
      if (!capped && !weighted) columns.start();
    }
    columns.finish();
  }
}

template <class P>
void info_nce_forward(const PackedOperands& operands, const ForwardBlock<typename P::Sum>& block) {
  if (block.row_cap)
    return block.row.weighted ? forward_with<P, true, true>(operands, block)
                              : forward_with<P, true, false>(operands, block);
  return block.row.weighted ? forward_with<P, false, true>(operands, block)
                            : forward_with<P, false, false>(operands, block);
}

// Replace the logits of row i by its weights. `rowwise` and `colwise`: that gradient is not zero; `selective`: ids or
// caps leave entries out, whose weights are exactly 0 whatever their exponentials are.
template <class T, bool rowwise, bool colwise, bool selective>
void weigh_row(T* line, int64_t i, const Window& window, const BackwardBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const int64_t col = window.col, padded = window.padded;
  const T lse = rowwise ? block.row_lse[i] : T(0), grad = rowwise ? block.grad_row[i] : T(0), scale = block.scale[i];
  const T cap = selective && block.row_cap ? block.row_cap[i] : -kNever<T>;
  for (int64_t c = 0; c < padded; c += S::width) {
    const V logit = S::load(line + c);
    V by_row = {}, by_col = {};
    if (rowwise) by_row = Exp<T>::of(logit - lse) * grad;
    if (colwise) by_col = Exp<T>::of(logit - S::load(block.col_lse + col + c)) * S::load(block.grad_col + col + c);
    if (selective) {
      if (rowwise) by_row = where<T>(logit <= cap, by_row, V{});
      if (colwise && block.col_cap) by_col = where<T>(logit <= S::load(block.col_cap + col + c), by_col, V{});
    }
    V weight = by_row + by_col;
    if (selective && block.row_id)
      weight = where<T>(counted<T>(block.row_id[i], block.col_id + col + c, block.mask), weight, V{});
    S::store(line + c, weight * scale);
  }
}

// Replace logits by weights with one exponential an entry, if every log-sum-exp of the window is near one shift; return
// whether that was so.
template <class T>
bool weigh_together(T* weights, const Window& window, const BackwardBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const auto [row, rows, col, cols, padded] = window;
  Span<T> span;
  for (int64_t r = 0; r < rows; ++r) span.include(block.row_lse[row + r]);
  for (int64_t c = 0; c < cols; ++c) span.include(block.col_lse[col + c]);
  const T shift = span.middle();
  if (!span.is_near(shift)) return false;
  alignas(kVectorBytes) T by_col[kWeightCols];
  for (int64_t c = 0; c < padded; c += S::width)
    S::store(by_col + c, Exp<T>::of(S::min(shift - S::load(block.col_lse + col + c), S::broadcast(kNear<T>))) *
                             S::load(block.grad_col + col + c));
  for (int64_t r = 0; r < rows; ++r) {
    T* line = weights + r * kWeightCols;
    const T scale = block.scale[row + r];
    const T by_row = Exp<T>::of(S::broadcast(shift - block.row_lse[row + r]))[0] * block.grad_row[row + r];
    for (int64_t c = 0; c < padded; c += S::width) {
      const V share = Exp<T>::of(S::load(line + c) - shift);
      S::store(line + c, share * (S::load(by_col + c) + by_row) * scale);
    }
  }
  return true;
}

// Replace the logits of a window by its weights.
template <class T>
void weigh(T* weights, const Window& window, const BackwardBlock<T>& block) {
  const bool rowwise = block.grad_row, colwise = block.grad_col, selective = block.row_id || block.row_cap;
  const auto kernel_of = [&](auto a, auto b, auto c) { return &weigh_row<T, a.value, b.value, c.value>; };
  constexpr std::true_type yes;
  constexpr std::false_type no;
  const auto kernel = selective ? (rowwise ? (colwise ? kernel_of(yes, yes, yes) : kernel_of(yes, no, yes))
                                           : (colwise ? kernel_of(no, yes, yes) : kernel_of(no, no, yes)))
                                : (rowwise ? (colwise ? kernel_of(yes, yes, no) : kernel_of(yes, no, no))
                                           : (colwise ? kernel_of(no, yes, no) : kernel_of(no, no, no)));
  const bool done = rowwise && colwise && !selective && weigh_together(weights, window, block);
  for (int64_t r = 0; r < window.rows; ++r) {
    T* line = weights + r * kWeightCols;
    const int64_t i = window.row + r, pair = i + block.diagonal_shift - window.col;
    if (!done) kernel(line, i, window, block);
    if (pair >= 0 && pair < window.cols) {
      if (block.mask == Mask::diagonal) line[pair] = 0;
      if (block.grad_positive) line[pair] += block.grad_positive[i] * block.scale[i];
    }
    for (int64_t c = window.cols; c < window.padded; ++c) line[c] = 0;
  }
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
