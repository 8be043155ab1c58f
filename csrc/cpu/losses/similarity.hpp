// The inputs that both losses share, in the caller's memory.
#pragma once

#include "cpu/losses/tiles.hpp"

namespace modalign {

// b problems; x is [b, n, d] and y [b, m, d], row-major in `dtype`; y is null for one stream, y = x. All other arrays
// are in T: float, or double for float64 inputs. Sums are taken in an order that the sizes alone determine, so that
// results have the same bits for every number of threads.
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
  int threads;
};

// The products of a backward pass: by_row = W v [b, n, v_width] and by_col = W' u [b, m, u_width], for v [b, m,
// v_width] and u [b, n, u_width] in `dtype`, either of which may be null.
template <class T>
struct Products {
  const void* v;
  const void* u;
  int64_t v_width, u_width;
  T* by_row;
  T* by_col;
};

}  // namespace modalign
