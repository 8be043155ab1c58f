// The leaves of the CPU kernels: work on one block of the similarity matrix by one thread. Plain functions over
// pointers and sizes, compiled once for every instruction set; `tiles(...)` in isa.hpp hands out the set chosen at run
// time.
#pragma once

#include <cstdint>

namespace modalign {

// How the caller's rows are stored. Values are converted to the type a kernel computes in while they are packed.
enum class Dtype : int { float16, bfloat16, float32, float64 };

// Rows start to start + rows of a row-major [n, d] matrix in the caller's memory.
struct Rows {
  const void* data;
  Dtype dtype;
  int64_t d;
  int64_t start;
  int64_t rows;
};

// What one block of info_nce needs besides the packed operands. Row pointers start at the block's first row, column
// pointers at its first column; `diagonal_shift` is (first row) - (first column) of the block in the whole matrix.
template <class T>
struct ForwardBlock {
  int64_t rows, cols, d, diagonal_shift;
  T scale;
  T* row_max;  // running maximum and sum of exp(logit - maximum), [rows]
  T* row_sum;
  T* col_max;  // the same for columns; readable and writable up to the next multiple of col_panel
  T* col_sum;
  T* positive;  // [rows]; written where the diagonal crosses this block
};

template <class T>
struct BackwardBlock {
  int64_t rows, cols, d, diagonal_shift;
  T scale;
  const T* row_lse;  // [rows]
  const T* col_lse;  // readable up to the next multiple of col_panel, like grad_col
  const T* grad_row;
  const T* grad_col;
  const T* grad_positive;
  T* dx;  // [rows, d] and [cols, d], row-major, added to
  T* dy;
  T* weights;  // scratch, [weight_rows * weight_cols]
};

// The knn screen: upper_ij = a_j <x_i, y_j> + b_j + r_i e_j bounds from above the score that i gives j.
struct ScreenBlock {
  int64_t rows, cols, d;
  int64_t row_start, col_start;  // ids of the block's first row and column
  const float* a;  // of the candidates, by id; readable up to the next multiple of col_panel, like all here
  const float* b;
  const float* e;
  const float* r;          // of the searching rows, by id
  const float* threshold;  // of the searching rows: the best proved lower bound of the k-th score; `offer` moves it
  bool both_sides;         // one set searched for itself: offer row i to column j too
  void (*offer)(void* context, int64_t searching, int64_t candidate, float upper);
  void* context;
};

template <class T>
struct Tiles {
  int64_t row_panel, col_panel;  // rows in a panel of a left and of a right operand
  int64_t weight_rows, weight_cols;
  // out[panel][c][row in panel] = value, zero beyond the last row: the operand of a product over d
  void (*pack_left)(Rows rows, const double* row_factor, T* out);
  void (*pack_right)(Rows rows, const double* row_factor, T* out);
  // out[panel of features][row][feature in panel], zero beyond the last feature: the operand of a product over rows
  void (*pack_features)(Rows rows, int64_t padded_rows, T* out);
  void (*forward)(const T* left, const T* right, const ForwardBlock<T>& block);
  void (*backward)(const T* left, const T* right, const T* left_features, const T* right_features, int64_t padded_rows,
                   const BackwardBlock<T>& block);
  void (*screen)(const T* left, const T* right, const ScreenBlock& block);  // float only
};

// Both operands come in stripes of a multiple of this many rows: it holds whole panels of every instruction set.
constexpr int64_t kStripeMultiple = 96;

}  // namespace modalign
