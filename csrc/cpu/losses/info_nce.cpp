// The passes of InfoNCE over all blocks of the similarity matrix. What is done on one block, for each instruction
// set, is in info_nce_tiles.hpp.
#include "cpu/losses/info_nce.hpp"

#include <cmath>

#include "cpu/losses/traversal.hpp"

namespace modalign {
namespace {

// The running sums of one side: [problems, n] of rows or columns.
template <class T>
struct Sums {
  Padded<T> max, sum, weighted;
  Sums(int64_t problems, const Cut& cut, bool wanted, bool with_mean)
      : max(wanted ? problems : 0, cut, std::numeric_limits<T>::lowest()),
        sum(wanted ? problems : 0, cut, T(0)),
        weighted(wanted && with_mean ? problems : 0, cut, T(0)) {}

  Running<T> running(int64_t problem, int64_t i) {
    return {max.pointer(problem, i), sum.pointer(problem, i), weighted.pointer(problem, i)};
  }

  // Add the sums of the same rows as columns.
  void add(Sums& other, int64_t problems, int64_t n) {
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < n; ++i) {
        const Running<T> total = running(problem, i), added = other.running(problem, i);
        const T top = std::max(*total.max, *added.max);
        const T factor = std::exp(*total.max - top), added_factor = std::exp(*added.max - top);
        *total.sum = *total.sum * factor + *added.sum * added_factor;
        if (total.weighted) *total.weighted = *total.weighted * factor + *added.weighted * added_factor;
        *total.max = top;
      }
  }

  void write_summary(int64_t problems, int64_t n, const Summary<T>& summary) {
    constexpr T never = std::numeric_limits<T>::lowest(), nothing = -std::numeric_limits<T>::infinity();
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < n; ++i) {
        const Running<T> total = running(problem, i);
        const bool empty = *total.max == never;
        summary.lse[problem * n + i] = empty ? nothing : *total.max + std::log(*total.sum);
        if (summary.best) summary.best[problem * n + i] = empty ? nothing : *total.max;
        if (summary.mean) summary.mean[problem * n + i] = empty ? T(0) : *total.weighted / *total.sum;
      }
  }
};

// Log-sum-exps for the backward pass. Where no entry counts, the largest number stands for -inf and makes every weight
// 0.
template <class T>
Padded<T> finite_lse(const T* lse, int64_t problems, const Cut& cut) {
  Padded<T> padded(lse, problems, cut, std::numeric_limits<T>::max());
  padded.each([](T& value) {
    if (value == -std::numeric_limits<T>::infinity()) value = std::numeric_limits<T>::max();
  });
  return padded;
}

}  // namespace

template <class T>
void info_nce_forward(const Similarity<T>& call, const InfoNceResults<T>& results) {
  Traversal<T> traversal(call, {}, results.stored.logits, results.stored.rows);
  const bool one_stream = !call.y, with_columns = results.col.lse || one_stream, with_mean = results.row.mean;
  Sums<T> row_sums(call.problems, traversal.rows, true, with_mean);
  Sums<T> col_sums(call.problems, traversal.cols, with_columns, with_mean);
  traversal.each_block([&](const Visit<T>& visit) {
    ForwardBlock<T> block(visit.block);
    block.row = row_sums.running(visit.problem, visit.row);
    if (with_columns && !visit.on_diagonal) block.col = col_sums.running(visit.problem, visit.col);
    if (results.positive) block.positive = results.positive + visit.problem * call.n + visit.row;
    traversal.tiles.info_nce_forward(visit.operands, block);
  });
  if (one_stream) row_sums.add(col_sums, call.problems, call.n);
  row_sums.write_summary(call.problems, call.n, results.row);
  if (results.col.lse) col_sums.write_summary(call.problems, call.m, results.col);
}

template <class T>
void info_nce_backward(const Similarity<T>& call, const InfoNceGradients<T>& grads, const Products<T>& products,
                       const StoredLogits<T>& stored) {
  const bool one_stream = !call.y;
  Products<T> both_sides = products;
  std::vector<T> by_col;
  if (one_stream) {
    by_col.resize(call.problems * call.n * products.v_width);
    both_sides.u = products.v, both_sides.u_width = products.v_width, both_sides.by_col = by_col.data();
  }
  Traversal<T> traversal(call, both_sides, stored.logits, stored.rows);
  Padded<T> row_lse = finite_lse(grads.row_lse, call.problems, traversal.rows);
  Padded<T> col_lse = finite_lse(one_stream ? grads.row_lse : grads.col_lse, call.problems, traversal.cols);
  Padded<T> grad_row(grads.row, call.problems, traversal.rows, T(0));
  Padded<T> grad_col(one_stream ? grads.row : grads.col, call.problems, traversal.cols, T(0));
  Padded<T> grad_positive(grads.positive, call.problems, traversal.rows, T(0));
  clear(both_sides, call);
  traversal.each_block([&](const Visit<T>& visit) {
    BackwardBlock<T> block(visit.block);
    set_products(block, both_sides, call, visit);
    block.row_lse = row_lse.pointer(visit.problem, visit.row);
    block.col_lse = col_lse.pointer(visit.problem, visit.col);
    block.grad_row = grad_row.pointer(visit.problem, visit.row);
    block.grad_col = grad_col.pointer(visit.problem, visit.col);
    block.grad_positive = grad_positive.pointer(visit.problem, visit.row);
    traversal.tiles.info_nce_backward(visit.operands, block);
  });
  for (int64_t k = 0; k < static_cast<int64_t>(by_col.size()); ++k) products.by_row[k] += by_col[k];
}

#define MODALIGN_INSTANTIATE(T)                                                                            \
  template void info_nce_forward<T>(const Similarity<T>&, const InfoNceResults<T>&);                       \
  template void info_nce_backward<T>(const Similarity<T>&, const InfoNceGradients<T>&, const Products<T>&, \
                                     const StoredLogits<T>&);
MODALIGN_INSTANTIATE(float)
MODALIGN_INSTANTIATE(double)

}  // namespace modalign
