#pragma once

#include <cstdint>

namespace modalign {

// unit[i] = x[i] / |x[i]| for the n rows of d numbers; a zero row stays zero. `size` [n] is a power of two near the
// row's largest entry, divided out first so that no square overflows or vanishes, and `norm` [n] the norm of what is
// left; both are 1 where they would be 0. A row is summed in an order that d fixes.
template <class T>
void unit_rows(const T* x, int64_t n, int64_t d, T* unit, T* size, T* norm, int threads);

// dx[i] = (grad[i] - u <u, grad[i]>) / |x[i]| for u = unit[i]; dx may be grad
template <class T>
void unit_rows_backward(const T* grad, const T* x, const T* size, const T* norm, int64_t n, int64_t d, T* dx,
                        int threads);

}  // namespace modalign
