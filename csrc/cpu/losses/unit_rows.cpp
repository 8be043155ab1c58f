// Two readings of a row while it is in the first-level cache.
#include "cpu/losses/unit_rows.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

constexpr int kLanes = 16;  // independent sums, which the compiler keeps in vector registers

// the sum over the row of term(c), lane by lane, then of the lanes
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
  const auto larger = [](T one, T two) { return one > two ? one : two; };
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] = larger(std::abs(row[c + l]), lane[l]);
  for (; c < d; ++c) lane[0] = larger(std::abs(row[c]), lane[0]);
  return *std::max_element(lane, lane + kLanes);
}

// a power of two whose inverse is a normal number too
template <class T>
T size_of(T largest) {
  if (!(largest > 0) || std::isinf(largest)) return 1;
  constexpr int most = sizeof(T) == 4 ? 126 : 1022;
  return std::ldexp(T(1), std::clamp(std::ilogb(largest), -most, most));
}

template <class Work>
void each_row(int64_t n, int64_t d, int threads, Work work) {
  const int64_t rows = std::max<int64_t>(1, 8192 / d);  // a job is worth several microseconds
  run_phases(threads, 1, (n + rows - 1) / rows, [&](int, int64_t, int64_t job) {
    for (int64_t i = job * rows; i < std::min(n, (job + 1) * rows); ++i) work(i);
  });
}

}  // namespace

template <class T>
void unit_rows(const T* x, int64_t n, int64_t d, T* unit, T* size, T* norm, int threads) {
  each_row(n, d, threads, [=](int64_t i) {
    const T* row = x + i * d;
    T* out = unit + i * d;
    const T own = size_of(largest_of(row, d)), inverse = 1 / own;
    const T squares = sum_of<T>(d, [=](int64_t c) { return (row[c] * inverse) * (row[c] * inverse); });
    const T length = squares > 0 ? std::sqrt(squares) : T(1);
    for (int64_t c = 0; c < d; ++c) out[c] = row[c] * inverse / length;
    size[i] = own;
    norm[i] = length;
  });
}

template <class T>
void unit_rows_backward(const T* grad, const T* x, const T* size, const T* norm, int64_t n, int64_t d, T* dx,
                        int threads) {
  each_row(n, d, threads, [=](int64_t i) {
    const T *row = x + i * d, *g = grad + i * d;
    T* out = dx + i * d;
    const T inverse = 1 / size[i], length = norm[i];
    const T dot = sum_of<T>(d, [=](int64_t c) { return row[c] * inverse / length * g[c]; });
    for (int64_t c = 0; c < d; ++c) out[c] = (g[c] - row[c] * inverse / length * dot) / length * inverse;
  });
}

#define MODALIGN_INSTANTIATE(T)                                            \
  template void unit_rows<T>(const T*, int64_t, int64_t, T*, T*, T*, int); \
  template void unit_rows_backward<T>(const T*, const T*, const T*, const T*, int64_t, int64_t, T*, int);
MODALIGN_INSTANTIATE(float)
MODALIGN_INSTANTIATE(double)

}  // namespace modalign
