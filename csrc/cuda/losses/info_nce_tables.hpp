// The tables that the kernels of InfoNCE read and write, in device memory.
#pragma once

#include <cstdint>

namespace modalign::cuda {

// A part of S: rows and columns from `row` and `col` on.
struct Part {
  int row, rows, col, cols;
};

// n rows, m columns, d features; scale [n]. The part has all m columns.
//
// For every 256 columns of a row, and every 64 rows of the part in a column, the kernel writes two numbers: a reference
// that no logit exceeds, and the sum of exp(logit - reference); -inf and 0 if no entry counts.
struct Sums {
  const float* scale;
  float* row_parts;  // [ceil(m / 256), 2, row_stride]: for the rows of the part
  float* col_parts;  // [1 + ceil(rows / 64), 2, m], of which the first is not written; or null
  float* positive;   // [n]: S_ii, or null
  int64_t row_stride;
  Part part;
  int n, m, d;
  bool pairs_left_out;  // S_ii does not count
};

// W_ij = scale_i (row_grad_i exp(S_ij - row_lse_i) + col_grad_j exp(S_ij - col_lse_j) + [i = j] positive_grad_i). The
// exponentials are zero where S_ij does not count, and in all of a row or column whose log-sum-exp is -inf.
struct Weights {
  const float *scale, *row_lse, *row_grad;  // [n]; a gradient that is null is zero
  const float *col_lse, *col_grad;          // [m]
  const float* positive_grad;               // [n]
  Part part;
  int n, m, d;
  bool pairs_left_out;
};

}  // namespace modalign::cuda
