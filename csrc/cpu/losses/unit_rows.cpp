// A row is read twice or more while it is in the first-level cache.
#include "cpu/losses/unit_rows.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

constexpr int kLanes = 16;  // independent sums, which the compiler keeps in vector registers

// Return the sum of term(c) over a row: lanes first, then the sum of the lanes, in an order that d alone determines.
template <class T, class Term>
T sum_of(int64_t d, Term term) {
  T lane[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += term(c + l);
  for (int l = 0; c < d; ++c, ++l) lane[l] += term(c);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

template <class T>
T largest_of(const T* row, int64_t d) {
  T lane[kLanes] = {};
  const auto larger = [](T a, T b) { return a > b ? a : b; };
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] = larger(std::abs(row[c + l]), lane[l]);
  for (; c < d; ++c) lane[0] = larger(std::abs(row[c]), lane[0]);
  return *std::max_element(lane, lane + kLanes);
}

// Return a power of two near the largest entry, whose inverse is a normal number too.
template <class T>
T size_of(T largest) {
  if (!(largest > 0) || std::isinf(largest)) return 1;
  constexpr int most = sizeof(T) == 4 ? 126 : 1022;
  return std::ldexp(T(1), std::clamp(std::ilogb(largest), -most, most));
}

template <class Work>
void each_row(int64_t n, int64_t d, int threads, Work work) {
  const int64_t rows = std::max<int64_t>(1, 8192 / d);  // a job takes several microseconds
  run_phases(threads, 1, (n + rows - 1) / rows, [&](int, int64_t, int64_t job) {
    for (int64_t i = job * rows; i < std::min(n, (job + 1) * rows); ++i) work(i);
  });
}

}  // namespace

template <class T>
void unit_rows(const UnitRows<T>& rows, int threads) {
  const int64_t d = rows.d;
  each_row(rows.n, d, threads, [=](int64_t i) {
    const T* x = rows.x + i * d;
    T* unit = rows.unit + i * d;
    const T size = size_of(largest_of(x, d)), inverse = 1 / size;
    const T squares = sum_of<T>(d, [=](int64_t c) { return (x[c] * inverse) * (x[c] * inverse); });
    const T norm = squares > 0 ? std::sqrt(squares) : T(1);
    for (int64_t c = 0; c < d; ++c) unit[c] = x[c] * inverse / norm;
    rows.size[i] = size;
    rows.norm[i] = norm;
  });
}

template <class T>
void unit_rows_backward(const UnitRowsGradient<T>& rows, int threads) {
  const int64_t d = rows.d;
  each_row(rows.n, d, threads, [=](int64_t i) {
    const T *x = rows.x + i * d, *grad = rows.grad + i * d;
    T* dx = rows.dx + i * d;
    const T inverse = 1 / rows.size[i], norm = rows.norm[i];
    const T product = sum_of<T>(d, [=](int64_t c) { return x[c] * inverse / norm * grad[c]; });
    for (int64_t c = 0; c < d; ++c) dx[c] = (grad[c] - x[c] * inverse / norm * product) / norm * inverse;
  });
}

#define MODALIGN_INSTANTIATE(T)                        \
  template void unit_rows<T>(const UnitRows<T>&, int); \
  template void unit_rows_backward<T>(const UnitRowsGradient<T>&, int);
MODALIGN_INSTANTIATE(float)
MODALIGN_INSTANTIATE(double)

}  // namespace modalign
