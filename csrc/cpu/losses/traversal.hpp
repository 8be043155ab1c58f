// The traversal of the losses: which thread works on which block of S, and when.
//
// Rows are cut into P stripes, columns into Q. In phase p, job i takes row stripe i and column stripe (i + p) mod Q
// (the other way round if P > Q). No two jobs of a phase share a row or a column, so row sums, column sums, W v and W'
// u are all accumulated in place, without copies and without atomics, in an order that does not depend on the threads.
//
//        p = 0      p = 1      p = 2
//       0 . .      . 0 .      . . 0
//       . 1 .      . . 1      1 . .
//       . . 2      2 . .      . 2 .
//
// In one stream S is symmetric: phases up to P / 2 meet every pair of stripes once, each block serves its rows and its
// columns, and the sums of both sides are added at the end. Blocks on the diagonal serve their rows alone.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/losses/operand.hpp"
#include "cpu/losses/padded.hpp"
#include "cpu/losses/similarity.hpp"
#include "cpu/shared/parallel.hpp"

namespace modalign {

// Cut n rows of d features into stripes of about 1,000 rows: packing (O(rows d)) is then small beside the products
// (O(rows^2 d)), and a packed stripe takes a few megabytes.
inline Cut cut_rows(int64_t n, int64_t d, int64_t problems, int64_t multiple) {
  constexpr int64_t kManyProblems = 16;  // this many problems keep the threads busy without stripes
  const auto parts = [](int64_t whole, int64_t size) { return (whole + size - 1) / size; };
  const int64_t most = std::clamp<int64_t>((1 << 19) / d, 96, 960);
  const int64_t fewest = problems >= kManyProblems ? 1 : std::min<int64_t>(8, parts(n, 96));
  const int64_t count = std::max(parts(n, most), fewest);
  return {.n = n, .multiple = multiple, .count = std::min(count, parts(n, multiple))};
}

// One block of S as a thread meets it.
template <class T>
struct Visit {
  Block<T> block;
  PackedOperands operands;
  int64_t problem, row, col;  // row and col: the first ones of the block
  bool on_diagonal;           // of one stream
  void* scratch;              // null in a forward pass
};

// One call: how it is cut, its operands, and the parts of every block.
template <class T>
class Traversal {
 public:
  using Integer = typename IntegerOf<T>::type;

  Traversal(const Similarity<T>& call, const Products<T>& products, T* stored, int64_t stored_rows)
      : call_(call),
        one_stream_(call.y == nullptr),
        has_products_(products.v || products.u),
        needs_logits_(!has_products_ || stored_rows < call.problems * call.n),
        tiles(loss_tiles<T>(call.dtype)),
        rows(cut_rows(call.n, call.d, call.problems, one_stream_ ? kStripeMultiple : kRowMultiple)),
        cols(one_stream_ ? rows : cut_rows(call.m, call.d, call.problems, kColMultiple)),
        threads_(useful_threads()),
        scale_(call.logit_scale, call.problems, rows, T(0)),
        ids_(call.row_id, call.problems * call.n, one_stream_ ? call.row_id : call.col_id, call.problems * call.m),
        row_id_(ids_.row(), call.problems, rows, Integer(-1)),
        col_id_(ids_.col(), call.problems, cols, Integer(-1)),
        row_cap_(call.row_cap, call.problems, rows, std::numeric_limits<T>::max()),
        col_cap_(one_stream_ ? call.row_cap : call.col_cap, call.problems, cols, std::numeric_limits<T>::max()),
        no_cap_(call.row_cap || call.col_cap ? std::max(rows.padded(), cols.padded()) : 0,
                std::numeric_limits<T>::max()),
        stored_(stored),
        stored_rows_(stored_rows),
        left_(operand_by_rows(call.x, rows, tiles.pack_left)),
        right_(operand_by_rows(one_stream_ ? call.x : call.y, cols, tiles.pack_right)),
        v_(operand_by_features(products.v, products.v_width, cols)),
        u_(operand_by_features(products.u, products.u_width, rows)) {
    if (has_products_)
      for (int thread = 0; thread < threads_; ++thread) scratch_.push_back(allocate(tiles.scratch_bytes));
  }

  // Call work(visit) for every block, in an order that no two threads disturb.
  void each_block(auto work) {
    pack_operands();
    const int64_t jobs = std::min(rows.count, cols.count), turns = std::max(rows.count, cols.count);
    const int64_t phases = one_stream_ ? rows.count / 2 + 1 : turns;
    run_phases(threads_, phases, call_.problems * jobs, [&](int thread, int64_t phase, int64_t job) {
      const int64_t problem = job / jobs, first = job % jobs, second = (first + phase) % turns;
      // in one stream with an even number of stripes the last phase would meet every pair twice
      if (one_stream_ && phase > 0 && 2 * phase == rows.count && first >= phase) return;
      const int64_t i = rows.count <= cols.count ? first : second, j = rows.count <= cols.count ? second : first;
      work(Visit<T>{.block = block_of(problem, i, j),
                    .operands = {.left = left_.get(problem, i, thread),
                                 .right = right_.get(problem, j, thread),
                                 .v = v_.get(problem, j, thread),
                                 .u = u_.get(problem, i, thread),
                                 .padded_rows = rows.largest(),
                                 .padded_cols = cols.largest()},
                    .problem = problem,
                    .row = rows.start(i),
                    .col = cols.start(j),
                    .on_diagonal = one_stream_ && i == j,
                    .scratch = scratch_.empty() ? nullptr : scratch_[thread].get()});
    });
  }

 private:
  static constexpr int64_t kRowMultiple = 12, kColMultiple = 32;  // whole panels of every instruction set
  static constexpr int64_t kPackedBeforehand = int64_t{1} << 22;  // numbers of the operands that are packed beforehand

  static int64_t parts(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple; }

  // A thread costs tens of microseconds to start: below a few million operations for each, fewer threads are faster.
  int useful_threads() const {
    const double work = 8.0 * static_cast<double>(call_.problems) * call_.n * call_.m * call_.d;
    return static_cast<int>(std::clamp(work / 1.6e7, 1.0, static_cast<double>(call_.threads)));
  }

  // A backward pass in which all logits are stored needs no operand by rows.
  Operand operand_by_rows(const void* data, const Cut& cut, void (*pack)(Rows, void*)) {
    return operand({.data = needs_logits_ ? data : nullptr,
                    .dtype = call_.dtype,
                    .width = call_.d,
                    .cut = cut,
                    .stripe_bytes = stripe_bytes(parts(call_.d, tiles.per_word) * cut.largest()),
                    .copies = 0,
                    .packed_beforehand = false,
                    .pack = pack});
  }
  Operand operand_by_features(const void* data, int64_t width, const Cut& cut) {
    const int64_t numbers = parts(width, tiles.col_panel) * tiles.col_panel * cut.largest();
    return operand({.data = data,
                    .dtype = call_.dtype,
                    .width = width,
                    .cut = cut,
                    .stripe_bytes = stripe_bytes(numbers / tiles.per_word),
                    .copies = 0,
                    .packed_beforehand = false,
                    .pack = [pack = tiles.pack_features, padded = cut.largest()](Rows source, void* out) {
                      pack(source, padded, out);
                    }});
  }
  int64_t stripe_bytes(int64_t words) const { return parts(words * tiles.word_bytes + kPackedBeyond, kLine) * kLine; }
  Operand operand(OperandPlan plan) {
    const int64_t numbers = plan.data ? call_.problems * plan.cut.n * plan.width : 0;
    plan.packed_beforehand = numbers <= packing_budget_;
    if (plan.packed_beforehand) packing_budget_ -= numbers;
    plan.copies = plan.packed_beforehand ? call_.problems * plan.cut.count : threads_;
    return Operand(std::move(plan));
  }

  void pack_operands() {
    Operand* operands[] = {&left_, &right_, &v_, &u_};
    if (std::ranges::none_of(operands, &Operand::is_packed_beforehand)) return;
    const int64_t stripes = std::max(rows.count, cols.count);
    run_phases(threads_, 1, call_.problems * stripes, [&](int, int64_t, int64_t job) {
      for (Operand* operand : operands) operand->prepare(job / stripes, job % stripes);
    });
  }

  Block<T> block_of(int64_t problem, int64_t i, int64_t j) {
    const int64_t row = rows.start(i), col = cols.start(j), first = problem * call_.n + row;
    Block<T> block{.rows = rows.rows(i),
                   .cols = cols.rows(j),
                   .d = call_.d,
                   .diagonal_shift = row - col,
                   .scale = scale_.pointer(problem, row),
                   .mask = call_.mask,
                   .row_id = row_id_.pointer(problem, row),
                   .col_id = col_id_.pointer(problem, col),
                   .row_cap = caps_from(row_cap_, problem, row),
                   .col_cap = caps_from(col_cap_, problem, col),
                   .stored = nullptr,
                   .stored_rows = 0,
                   .stored_ld = call_.m};
    if (stored_ && first < stored_rows_) {
      block.stored = stored_ + first * call_.m + col;
      block.stored_rows = std::min(stored_rows_ - first, block.rows);
    }
    return block;
  }

  // If one side has caps, the other gets caps that no logit exceeds.
  T* caps_from(Padded<T>& caps, int64_t problem, int64_t i) {
    if (no_cap_.empty()) return nullptr;
    T* values = caps.pointer(problem, i);
    return values ? values : no_cap_.data();
  }

  Similarity<T> call_;
  bool one_stream_, has_products_;
  bool needs_logits_;  // false in a backward pass in which all of them are stored

 public:
  LossTiles<T> tiles;
  Cut rows, cols;

 private:
  int threads_;
  Padded<T> scale_;
  Ids ids_;
  Padded<Integer> row_id_, col_id_;
  Padded<T> row_cap_, col_cap_;
  std::vector<T> no_cap_;
  T* stored_;
  int64_t stored_rows_;
  int64_t packing_budget_ = kPackedBeforehand;
  Operand left_, right_, v_, u_;
  std::vector<Memory> scratch_;
};

// Set the results of a backward pass to zero.
template <class T>
void clear(const Products<T>& products, const Similarity<T>& call) {
  if (products.v) std::fill_n(products.by_row, call.problems * call.n * products.v_width, T(0));
  if (products.u) std::fill_n(products.by_col, call.problems * call.m * products.u_width, T(0));
}

// Point a block at its part of the products and at the scratch memory of the thread.
template <class T>
void set_products(WeightedBlock<T>& block, const Products<T>& products, const Similarity<T>& call,
                  const Visit<T>& visit) {
  if (products.v) block.by_row = products.by_row + (visit.problem * call.n + visit.row) * products.v_width;
  if (products.u && !visit.on_diagonal)
    block.by_col = products.by_col + (visit.problem * call.m + visit.col) * products.u_width;
  block.row_width = products.v_width;
  block.col_width = products.u_width;
  block.scratch = visit.scratch;
}

}  // namespace modalign
