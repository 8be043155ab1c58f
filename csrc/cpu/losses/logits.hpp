// Logits of a part of a block, and which of them count.
#pragma once

#include "cpu/losses/tiles.hpp"
#include "cpu/shared/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int64_t kGroup =
    256;  // columns of a strip in a forward pass: kRows x 256 floats stay in the first-level cache

// Return a where the mask is set, else b.
template <class T>
typename Simd<T>::Vector where(typename Simd<T>::Mask mask, typename Simd<T>::Vector a, typename Simd<T>::Vector b) {
  return mask ? a : b;
}

template <class T>
int64_t whole_panels(int64_t cols) {
  return (cols + kCols<T> - 1) / kCols<T> * kCols<T>;
}

// The part of a block that a kernel works on at once; `padded` is `cols` rounded up to whole panels.
struct Window {
  int64_t row, rows, col, cols, padded;
};

// The window of at most `rows` x `cols` entries that starts at (row, col) of the block.
template <class T>
Window window_of(const Block<T>& block, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const int64_t some_rows = block.rows - row < rows ? block.rows - row : rows;
  const int64_t some_cols = block.cols - col < cols ? block.cols - col : cols;
  return {row, some_rows, col, some_cols, whole_panels<T>(some_cols)};
}

// The left and right operand of a block, `depth` words for each row.
template <class P>
struct Panels {
  const typename P::Word* left;
  const typename P::Word* right;
  int64_t depth;
  Panels(const PackedOperands& operands, int64_t d)
      : left(static_cast<const typename P::Word*>(operands.left)),
        right(static_cast<const typename P::Word*>(operands.right)),
        depth((d + P::per_word - 1) / P::per_word) {}
};

// out[r * ld + c] = the logits of kRows rows from window.row on, and of the padded columns of the window.
template <class P, int64_t ld>
void logits_strip(const Panels<P>& panels, const typename P::Sum* scale, const Window& window, typename P::Sum* out) {
  using T = typename P::Sum;
  const int64_t depth = panels.depth, row = window.row, col = window.col;
  for (int64_t c = 0; c < window.padded; c += kCols<T>)
    logits_tile<P>(panels.left + row * depth, panels.right + (col + c) * depth, depth, scale + row, out + c, ld);
}

// Return which entries of one row count for a vector of columns, by their ids.
template <class T>
typename Simd<T>::Mask counted(typename IntegerOf<T>::type row_id, const typename IntegerOf<T>::type* col_ids,
                               Mask mask) {
  using Ids = typename Simd<T>::Mask;
  typedef typename IntegerOf<T>::type Unaligned
      __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
  const Ids ids = *reinterpret_cast<const Unaligned*>(col_ids);
  const Ids none = {};
  if (row_id < 0) return none;
  Ids keep = ids >= 0;
  if (mask == Mask::same) keep &= ids != row_id;
  if (mask == Mask::different) keep &= ids == row_id;
  return keep;
}

// Set the logits of `row` that are left out, and those beyond the last column of the window, to kNever.
template <class T>
void leave_out(T* logits, int64_t row, const Window& window, const Block<T>& block) {
  using S = Simd<T>;
  const int64_t col = window.col, cols = window.cols, padded = window.padded;
  if (block.row_id)
    for (int64_t c = 0; c < padded; c += S::width)
      S::store(logits + c, where<T>(counted<T>(block.row_id[row], block.col_id + col + c, block.mask),
                                    S::load(logits + c), S::broadcast(kNever<T>)));
  const int64_t pair = row + block.diagonal_shift - col;
  if (block.mask == Mask::diagonal && pair >= 0 && pair < cols) logits[pair] = kNever<T>;
  for (int64_t c = cols; c < padded; ++c) logits[c] = kNever<T>;
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
