// The traversal of info_nce: which thread works on which block of S, and when.
//
// Rows and columns are cut into the same P stripes. In phase p, job i takes row stripe i and column stripe (i + p) mod
// P: no two jobs of a phase share a row or a column, so row sums, column sums, dx and dy are all accumulated in place,
// without copies and without atomics, and in an order that does not depend on the number of threads.
//
//        p = 0      p = 1      p = 2
//       0 . .      . 0 .      . . 0
//       . 1 .      . . 1      1 . .
//       . . 2      2 . .      . 2 .
#include "cpu/info_nce.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/parallel.hpp"
#include "cpu/isa.hpp"
#include "cpu/stripes.hpp"

namespace modalign {
namespace {

// Packed operands of one job.
template <class T>
struct Scratch {
  std::vector<T> left, right, left_features, right_features, weights;
};

template <class T>
std::vector<Scratch<T>> scratch(int threads, const Stripes& cut, int64_t d, bool backward) {
  const int64_t features = (d + tiles<T>().col_panel - 1) / tiles<T>().col_panel * tiles<T>().col_panel;
  std::vector<Scratch<T>> all(threads);
  for (Scratch<T>& own : all) {
    own.left.resize(cut.rows * d);
    own.right.resize(cut.rows * d);
    if (!backward) continue;
    own.left_features.resize(cut.rows * features);
    own.right_features.resize(cut.rows * features);
    own.weights.resize(tiles<T>().weight_rows * tiles<T>().weight_cols);
  }
  return all;
}

// A thread costs tens of microseconds to start: below a few million operations for each, fewer are faster.
template <class T>
int useful_threads(const InfoNce<T>& call, int threads) {
  const double work = 8.0 * static_cast<double>(call.problems) * call.n * call.n * call.d;
  return static_cast<int>(std::clamp(work / 4e6, 1.0, static_cast<double>(threads)));
}

template <class T>
Rows stripe_rows(const InfoNce<T>& call, const void* data, int64_t problem, const Stripes& cut, int64_t stripe) {
  return {data, call.dtype, call.d, problem * call.n + cut.start(stripe), cut.size(stripe)};
}

}  // namespace

template <class T>
void info_nce_forward(const InfoNce<T>& call, T* row_lse, T* col_lse, T* positive, int threads) {
  threads = useful_threads(call, threads);
  const Tiles<T> kernels = tiles<T>();
  const Stripes cut = stripes(call.n, call.d);
  const int64_t total = call.problems * cut.padded();
  std::vector<T> row_max(total, std::numeric_limits<T>::lowest()), col_max(row_max), row_sum(total), col_sum(total);
  std::vector<Scratch<T>> own = scratch<T>(threads, cut, call.d, false);
  run_phases(threads, cut.count, call.problems * cut.count, [&](int thread, int64_t phase, int64_t job) {
    const int64_t problem = job / cut.count, i = job % cut.count, j = (i + phase) % cut.count;
    kernels.pack_left(stripe_rows(call, call.x, problem, cut, i), nullptr, own[thread].left.data());
    kernels.pack_right(stripe_rows(call, call.y, problem, cut, j), nullptr, own[thread].right.data());
    const int64_t row = problem * cut.padded() + cut.start(i), col = problem * cut.padded() + cut.start(j);
    kernels.forward(own[thread].left.data(), own[thread].right.data(),
                    {.rows = cut.size(i),
                     .cols = cut.size(j),
                     .d = call.d,
                     .diagonal_shift = cut.start(i) - cut.start(j),
                     .scale = call.logit_scale[problem],
                     .row_max = &row_max[row],
                     .row_sum = &row_sum[row],
                     .col_max = &col_max[col],
                     .col_sum = &col_sum[col],
                     .positive = positive + problem * call.n + cut.start(i)});
  });
  for (int64_t problem = 0; problem < call.problems; ++problem)
    for (int64_t i = 0; i < call.n; ++i) {
      const int64_t from = problem * cut.padded() + i, to = problem * call.n + i;
      row_lse[to] = row_max[from] + std::log(row_sum[from]);
      col_lse[to] = col_max[from] + std::log(col_sum[from]);
    }
}

template <class T>
void info_nce_backward(const InfoNce<T>& call, const T* grad_row, const T* grad_col, const T* grad_positive,
                       const T* row_lse, const T* col_lse, T* dx, T* dy, int threads) {
  threads = useful_threads(call, threads);
  const Tiles<T> kernels = tiles<T>();
  const Stripes cut = stripes(call.n, call.d);
  // the tile kernels read whole panels of columns
  std::vector<T> padded_lse(call.problems * cut.padded()), padded_grad(padded_lse.size());
  for (int64_t problem = 0; problem < call.problems; ++problem) {
    std::copy_n(col_lse + problem * call.n, call.n, &padded_lse[problem * cut.padded()]);
    std::copy_n(grad_col + problem * call.n, call.n, &padded_grad[problem * cut.padded()]);
  }
  std::fill_n(dx, call.problems * call.n * call.d, T(0));
  std::fill_n(dy, call.problems * call.n * call.d, T(0));
  std::vector<Scratch<T>> own = scratch<T>(threads, cut, call.d, true);
  run_phases(threads, cut.count, call.problems * cut.count, [&](int thread, int64_t phase, int64_t job) {
    const int64_t problem = job / cut.count, i = job % cut.count, j = (i + phase) % cut.count;
    const Rows left = stripe_rows(call, call.x, problem, cut, i), right = stripe_rows(call, call.y, problem, cut, j);
    Scratch<T>& mine = own[thread];
    kernels.pack_left(left, nullptr, mine.left.data());
    kernels.pack_right(right, nullptr, mine.right.data());
    kernels.pack_features(left, cut.rows, mine.left_features.data());
    kernels.pack_features(right, cut.rows, mine.right_features.data());
    const int64_t col = problem * cut.padded() + cut.start(j);
    kernels.backward(mine.left.data(), mine.right.data(), mine.left_features.data(), mine.right_features.data(),
                     cut.rows,
                     {.rows = cut.size(i),
                      .cols = cut.size(j),
                      .d = call.d,
                      .diagonal_shift = cut.start(i) - cut.start(j),
                      .scale = call.logit_scale[problem],
                      .row_lse = row_lse + left.start,
                      .col_lse = &padded_lse[col],
                      .grad_row = grad_row + left.start,
                      .grad_col = &padded_grad[col],
                      .grad_positive = grad_positive + left.start,
                      .dx = dx + left.start * call.d,
                      .dy = dy + right.start * call.d,
                      .weights = mine.weights.data()});
  });
}

template void info_nce_forward<float>(const InfoNce<float>&, float*, float*, float*, int);
template void info_nce_forward<double>(const InfoNce<double>&, double*, double*, double*, int);
template void info_nce_backward<float>(const InfoNce<float>&, const float*, const float*, const float*, const float*,
                                       const float*, float*, float*, int);
template void info_nce_backward<double>(const InfoNce<double>&, const double*, const double*, const double*,
                                        const double*, const double*, double*, double*, int);

}  // namespace modalign
