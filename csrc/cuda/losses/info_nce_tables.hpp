#pragma once

#include <cstdint>

namespace modalign::cuda {

// Rows and columns of S, from `row` and `col` on.
struct Part {
  int row, rows, col, cols;
};

// Tables on the device. n rows, m columns, d features; scale [n].
//
// Of every 256 columns and every 64 rows of `part`, whose columns are all m: what the entries of a row, and of a
// column, amount to, as a reference that no logit exceeds and the sum of exp(logit - reference); -inf and 0 of none.
struct Sums {
  const float* scale;
  float* row_parts;  // [ceil(m / 256), 2, row_stride]: of the rows of the part
  float* col_parts;  // [1 + ceil(rows / 64), 2, m], the first of them left alone; or null
  float* positive;   // [n]: S_ii, or null
  int64_t row_stride;
  Part part;
  int n, m, d;
  bool pairs_left_out;  // S_ii does not count
};

// W_ij = scale_i (row_grad_i exp(S_ij - row_lse_i) + col_grad_j exp(S_ij - col_lse_j) + [i = j] positive_grad_i), the
// exponentials being zero where S_ij does not count, and a whole row's or column's where its log-sum-exp is -inf.
struct Weights {
  const float *scale, *row_lse, *row_grad;  // [n]; a gradient that is null is zero
  const float *col_lse, *col_grad;          // [m]
  const float* positive_grad;               // [n]
  Part part;
  int n, m, d;
  bool pairs_left_out;
};

}  // namespace modalign::cuda
