// Rows divided by their norms.
#pragma once

#include <cstdint>

namespace modalign {

// unit[i] = x[i] / |x[i]| for n rows of d numbers; a zero row stays zero. size [n] is a power of two near the largest
// entry of the row, by which it is divided first so that no square overflows or vanishes. norm [n] is the norm of the
// divided row. Both are 1 where they would be 0. The order of a row's sum depends on d alone.
template <class T>
struct UnitRows {
  const T* x;
  int64_t n, d;
  T* unit;
  T* size;
  T* norm;
};
template <class T>
void unit_rows(const UnitRows<T>& rows, int threads);

// dx[i] = (grad[i] - u <u, grad[i]>) / |x[i]| for u = unit[i]; dx may be grad. size and norm are those of unit_rows.
template <class T>
struct UnitRowsGradient {
  const T* grad;
  const T* x;
  int64_t n, d;
  const T* size;
  const T* norm;
  T* dx;
};
template <class T>
void unit_rows_backward(const UnitRowsGradient<T>& rows, int threads);

}  // namespace modalign
