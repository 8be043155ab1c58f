#pragma once

#include "cpu/shared/tiles.hpp"

namespace modalign {

// b problems; x is [b, n, d] and y [b, m, d], row-major in `dtype`; everything else is in T: float, or double for
// float64 inputs. y null: one stream, y = x. Sums are taken in an order that the sizes fix: the same bits for every
// number of threads.
template <class T>
struct Similarity {
  const void* x;
  const void* y;
  Dtype dtype;
  int64_t problems, n, m, d;
  const T* logit_scale;  // [b, n]
  Mask mask;
  const int64_t* row_id;  // [b, n] and [b, m]; both or neither null
  const int64_t* col_id;
  const T* row_cap;  // [b, n] and [b, m], or null
  const T* col_cap;
};

// One side's results: [b, n] of rows or [b, m] of columns; best and mean null unless wanted.
template <class T>
struct Summary {
  T* lse;
  T* best;
  T* mean;
};

// `stored` [stored_rows, m]: the first rows of S over all problems. `col.lse` and `positive` may be null.
template <class T>
void info_nce_forward(const Similarity<T>& call, Summary<T> row, Summary<T> col, T* positive, T* stored,
                      int64_t stored_rows, int threads);

// W v [b, n, v_width] and W' u [b, m, u_width]; v [b, m, v_width] and u [b, n, u_width] in `dtype`, or null. Gradients
// may be null. One stream: grad_row and row_lse alone, W v alone.
template <class T>
struct Gradients {
  const T* row;
  const T* col;
  const T* positive;
  const T* row_lse;
  const T* col_lse;
};
template <class T>
struct Products {
  const void* v;
  const void* u;
  int64_t v_width, u_width;
  T* by_row;
  T* by_col;
};
template <class T>
void info_nce_backward(const Similarity<T>& call, const Gradients<T>& grads, const Products<T>& products,
                       const T* stored, int64_t stored_rows, int threads);

// row_loss [b, n]; bias [b]
template <class T>
void sigmoid_loss_forward(const Similarity<T>& call, const T* bias, T* row_loss, int threads);

// products as above, and slope [b, n]
template <class T>
void sigmoid_loss_backward(const Similarity<T>& call, const T* bias, const T* grad_row, const Products<T>& products,
                           T* slope, int threads);

}  // namespace modalign
