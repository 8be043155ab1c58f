#pragma once

#include "cpu/tiles.hpp"

namespace modalign {

// b problems; x and y are [b, n, d] row-major in `dtype`; everything else is [b] or [b, n] in T (float, or double for
// float64 inputs), dx and dy [b, n, d] in T. Sums are taken in an order that n and d fix: the same bits for every
// number of threads.
template <class T>
struct InfoNce {
  const void* x;
  const void* y;
  Dtype dtype;
  int64_t problems, n, d;
  const T* logit_scale;
};

template <class T>
void info_nce_forward(const InfoNce<T>& call, T* row_lse, T* col_lse, T* positive, int threads);

template <class T>
void info_nce_backward(const InfoNce<T>& call, const T* grad_row, const T* grad_col, const T* grad_positive,
                       const T* row_lse, const T* col_lse, T* dx, T* dy, int threads);

}  // namespace modalign
