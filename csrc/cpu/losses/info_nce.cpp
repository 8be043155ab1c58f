// The traversal of the losses: which thread works on which block of S, and when.
//
// Rows are cut into P stripes, columns into Q. In phase p, job i takes row stripe i and column stripe (i + p) mod Q
// (the other way round if P > Q): no two jobs of a phase share a row or a column, so row sums, column sums, W v and W'
// u are all accumulated in place, without copies and without atomics, in an order that does not depend on the threads.
//
//        p = 0      p = 1      p = 2
//       0 . .      . 0 .      . . 0
//       . 1 .      . . 1      1 . .
//       . . 2      2 . .      . 2 .
//
// In one stream S is symmetric: phases up to P / 2 meet every pair of stripes once, each block serves its rows and its
// columns, and what both sides gathered is added at the end. Blocks on the diagonal serve their rows alone.
#include "cpu/losses/info_nce.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "cpu/shared/isa.hpp"
#include "cpu/shared/parallel.hpp"

namespace modalign {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kManyProblems = 16;  // from here on problems alone keep the threads busy
constexpr int64_t kPackedOnce = int64_t{1}
                                << 22;  // numbers of a call's operands; what is beyond is packed for each job

// Stripes of whole panels, as many in each as in any other, or one less: the threads of a phase end together.
struct Cut {
  int64_t n, multiple, count;
  int64_t panels() const { return (n + multiple - 1) / multiple; }
  int64_t start(int64_t stripe) const { return panels() * stripe / count * multiple; }
  int64_t rows(int64_t stripe) const { return std::min(start(stripe + 1), n) - start(stripe); }
  int64_t size() const { return (panels() + count - 1) / count * multiple; }  // of the largest
  int64_t padded() const { return panels() * multiple; }
};

Cut cut(int64_t n, int64_t d, int64_t problems, int64_t multiple) {
  const auto parts = [](int64_t whole, int64_t size) { return (whole + size - 1) / size; };
  // about 1,000 rows: packing (O(rows d)) is small beside the work (O(rows^2 d)) and a packed stripe is a few megabytes
  const int64_t most = std::clamp<int64_t>((1 << 19) / d, 96, 960);
  const int64_t least = problems >= kManyProblems ? 1 : std::min<int64_t>(8, parts(n, 96));
  const int64_t wanted = std::max(parts(n, most), least);
  return {n, multiple, std::min(wanted, parts(n, multiple))};
}

// [b, n] values as tile kernels read them: stripes of every problem, whole panels.
template <class T>
class Padded {
 public:
  template <class Source>
  Padded(const Source* values, int64_t problems, const Cut& cut, T beyond) : width_(cut.padded()) {
    if (!values) return;
    padded_.assign(problems * width_, beyond);
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < cut.n; ++i) padded_[problem * width_ + i] = static_cast<T>(values[problem * cut.n + i]);
  }
  Padded(int64_t problems, const Cut& cut, T value) : width_(cut.padded()), padded_(problems * width_, value) {}
  T* at(int64_t problem, int64_t i) { return padded_.empty() ? nullptr : &padded_[problem * width_ + i]; }
  T operator()(int64_t problem, int64_t i) const { return padded_[problem * width_ + i]; }
  void each(auto change) {
    for (T& value : padded_) change(value);
  }

 private:
  int64_t width_;
  std::vector<T> padded_;
};

// Ids as small integers: equal where they were equal, -1 where negative.
class Ids {
 public:
  Ids(const int64_t* row, int64_t rows, const int64_t* col, int64_t cols) {
    if (!row) return;
    std::vector<int64_t> known(row, row + rows);
    known.insert(known.end(), col, col + cols);
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    const auto compact = [&](const int64_t* from, int64_t count) {
      std::vector<int32_t> to(count);
      for (int64_t i = 0; i < count; ++i)
        to[i] = from[i] < 0
                    ? -1
                    : static_cast<int32_t>(std::lower_bound(known.begin(), known.end(), from[i]) - known.begin());
      return to;
    };
    row_ = compact(row, rows);
    col_ = compact(col, cols);
  }
  const int32_t* row() const { return row_.empty() ? nullptr : row_.data(); }
  const int32_t* col() const { return col_.empty() ? nullptr : col_.data(); }

 private:
  std::vector<int32_t> row_, col_;
};

// Starts at a cache line, as panels and the rows of weights then do.
struct Free {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kLine}); }
};
using Memory = std::unique_ptr<std::byte[], Free>;
Memory allocate(int64_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes), std::align_val_t{kLine})));
}

// An operand in panels: all of it packed beforehand, or a stripe at a time by the thread that needs it.
class Operand {
 public:
  using Pack = std::function<void(Rows, void*)>;
  Operand(const void* data, Dtype dtype, int64_t width, const Cut& cut, int64_t copies, int64_t bytes, bool at_once,
          Pack pack)
      : data_(data), dtype_(dtype), width_(width), cut_(cut), bytes_(bytes), at_once_(at_once), pack_(std::move(pack)) {
    if (data_) memory_ = allocate(bytes_ * copies);
  }
  bool at_once() const { return data_ && at_once_; }
  void prepare(int64_t problem, int64_t stripe) {
    if (at_once() && stripe < cut_.count) pack(problem, stripe, place(problem * cut_.count + stripe));
  }
  const void* get(int64_t problem, int64_t stripe, int thread) {
    if (!data_) return nullptr;
    if (at_once_) return place(problem * cut_.count + stripe);
    pack(problem, stripe, place(thread));
    return place(thread);
  }

 private:
  std::byte* place(int64_t index) { return memory_.get() + index * bytes_; }
  void pack(int64_t problem, int64_t stripe, std::byte* out) {
    pack_({data_, dtype_, width_, problem * cut_.n + cut_.start(stripe), cut_.rows(stripe)}, out);
  }
  const void* data_;
  Dtype dtype_;
  int64_t width_;
  Cut cut_;
  int64_t bytes_;
  bool at_once_;
  Pack pack_;
  Memory memory_;
};

// One call: how it is cut, its operands, and what every block of it is made of.
template <class T>
class Call {
 public:
  using Integer = typename IntegerOf<T>::type;

  Call(const Similarity<T>& call, const Products<T>& products, T* stored, int64_t stored_rows, int threads)
      : call_(call),
        one_stream_(call.y == nullptr),
        tiles(loss_tiles<T>(call.dtype)),
        rows(cut(call.n, call.d, call.problems, one_stream_ ? kStripeMultiple : kRowMultiple)),
        cols(one_stream_ ? rows : cut(call.m, call.d, call.problems, kColMultiple)),
        threads(useful_threads(threads)),
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
        recomputes_(!(products.v || products.u) || stored_rows < call.problems * call.n),
        left_(operand(recomputes_ ? call.x : nullptr, call.d, rows, whole(call.d, tiles.per_word) * rows.size(),
                      [this](Rows from, void* out) { tiles.pack_left(from, out); })),
        right_(operand(!recomputes_  ? nullptr
                       : one_stream_ ? call.x
                                     : call.y,
                       call.d, cols, whole(call.d, tiles.per_word) * cols.size(),
                       [this](Rows from, void* out) { tiles.pack_right(from, out); })),
        v_(features(products.v, products.v_width, cols)),
        u_(features(products.u, products.u_width, rows)) {
    if (products.v || products.u)
      for (int thread = 0; thread < this->threads; ++thread) scratch_.push_back(allocate(tiles.scratch_bytes));
  }

  // work(block, operands, problem, first row, first column, on the diagonal) for every block, in an order that no two
  // threads disturb
  void each_block(auto work) {
    Operand* operands[] = {&left_, &right_, &v_, &u_};
    if (std::ranges::any_of(operands, &Operand::at_once)) {
      const int64_t stripes = std::max(rows.count, cols.count);
      run_phases(threads, 1, call_.problems * stripes, [&](int, int64_t, int64_t job) {
        for (Operand* operand : operands) operand->prepare(job / stripes, job % stripes);
      });
    }
    const int64_t jobs = std::min(rows.count, cols.count), turns = std::max(rows.count, cols.count);
    const int64_t phases = one_stream_ ? rows.count / 2 + 1 : turns;
    run_phases(threads, phases, call_.problems * jobs, [&](int thread, int64_t phase, int64_t job) {
      const int64_t problem = job / jobs, own = job % jobs, other = (own + phase) % turns;
      // in one stream with an even number of stripes the last phase would meet every pair twice
      if (one_stream_ && phase > 0 && 2 * phase == rows.count && own >= phase) return;
      const int64_t i = rows.count <= cols.count ? own : other, j = rows.count <= cols.count ? other : own;
      Block<T> block{.rows = rows.rows(i),
                     .cols = cols.rows(j),
                     .d = call_.d,
                     .diagonal_shift = rows.start(i) - cols.start(j),
                     .scale = scale_.at(problem, rows.start(i)),
                     .mask = call_.mask,
                     .row_id = row_id_.at(problem, rows.start(i)),
                     .col_id = col_id_.at(problem, cols.start(j)),
                     .row_cap = cap(row_cap_, problem, rows.start(i)),
                     .col_cap = cap(col_cap_, problem, cols.start(j)),
                     .stored = nullptr,
                     .stored_rows = 0,
                     .stored_ld = call_.m};
      const int64_t first = problem * call_.n + rows.start(i);
      if (stored_ && first < stored_rows_) {
        block.stored = stored_ + first * call_.m + cols.start(j);
        block.stored_rows = std::min(stored_rows_ - first, block.rows);
      }
      work(block, left_.get(problem, i, thread), right_.get(problem, j, thread), v_.get(problem, j, thread),
           u_.get(problem, i, thread), problem, rows.start(i), cols.start(j), one_stream_ && i == j,
           scratch_.empty() ? nullptr : scratch_[thread].get());
    });
  }

 private:
  static constexpr int64_t kRowMultiple = 12, kColMultiple = 32;  // whole panels of every instruction set

  static int64_t whole(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple; }

  // A thread costs tens of microseconds to start: below a few million operations for each, fewer are faster.
  int useful_threads(int wanted) const {
    const double work = 8.0 * static_cast<double>(call_.problems) * call_.n * call_.m * call_.d;
    return static_cast<int>(std::clamp(work / 1.6e7, 1.0, static_cast<double>(wanted)));
  }
  Operand operand(const void* data, int64_t width, const Cut& by, int64_t words, Operand::Pack pack) {
    const int64_t numbers = data ? call_.problems * by.n * width : 0;
    const bool at_once = numbers <= room_;
    if (at_once) room_ -= numbers;
    const int64_t copies = at_once ? call_.problems * by.count : threads;
    const int64_t bytes = whole(words * tiles.word_bytes + kPackedBeyond, kLine) * kLine;
    return Operand(data, call_.dtype, width, by, copies, bytes, at_once, std::move(pack));
  }
  Operand features(const void* data, int64_t width, const Cut& by) {
    const int64_t words = whole(width, tiles.col_panel) * tiles.col_panel * by.size() / tiles.per_word;
    return operand(data, width, by, words,
                   [this, size = by.size()](Rows from, void* out) { tiles.pack_features(from, size, out); });
  }
  T* cap(Padded<T>& caps, int64_t problem, int64_t i) {
    if (no_cap_.empty()) return nullptr;
    T* found = caps.at(problem, i);
    return found ? found : no_cap_.data();
  }

  Similarity<T> call_;
  bool one_stream_;

 public:
  LossTiles<T> tiles;
  Cut rows, cols;
  int threads;

 private:
  Padded<T> scale_;
  Ids ids_;
  Padded<Integer> row_id_, col_id_;
  Padded<T> row_cap_, col_cap_;
  std::vector<T> no_cap_;
  T* stored_;
  int64_t stored_rows_;
  int64_t room_ = kPackedOnce;
  bool recomputes_;  // logits; not in a backward pass that finds all of them stored
  Operand left_, right_, v_, u_;
  std::vector<Memory> scratch_;
};

// Sums of one side while they run: [b, n] of rows or columns.
template <class T>
struct Sums {
  Padded<T> max, sum, weighted;
  Sums(int64_t problems, const Cut& by, bool wanted, bool with_mean)
      : max(wanted ? problems : 0, by, std::numeric_limits<T>::lowest()),
        sum(wanted ? problems : 0, by, T(0)),
        weighted(wanted && with_mean ? problems : 0, by, T(0)) {}
  Running<T> at(int64_t problem, int64_t i) {
    return {max.at(problem, i), sum.at(problem, i), weighted.at(problem, i)};
  }
  // takes in what another side of the same rows has
  void add(Sums& other, int64_t problems, int64_t n) {
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < n; ++i) {
        const Running<T> mine = at(problem, i), theirs = other.at(problem, i);
        const T top = std::max(*mine.max, *theirs.max);
        const T one = std::exp(*mine.max - top), two = std::exp(*theirs.max - top);
        *mine.sum = *mine.sum * one + *theirs.sum * two;
        if (mine.weighted) *mine.weighted = *mine.weighted * one + *theirs.weighted * two;
        *mine.max = top;
      }
  }
  void finish(int64_t problems, int64_t n, Summary<T> out) {
    constexpr T never = std::numeric_limits<T>::lowest(), none = -std::numeric_limits<T>::infinity();
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < n; ++i) {
        const Running<T> mine = at(problem, i);
        const bool empty = *mine.max == never;
        out.lse[problem * n + i] = empty ? none : *mine.max + std::log(*mine.sum);
        if (out.best) out.best[problem * n + i] = empty ? none : *mine.max;
        if (out.mean) out.mean[problem * n + i] = empty ? T(0) : *mine.weighted / *mine.sum;
      }
  }
};

// log-sum-exps for the backward pass: a row that counts nothing gets one that no weight survives
template <class T>
Padded<T> finite(const T* lse, int64_t problems, const Cut& by) {
  Padded<T> padded(lse, problems, by, std::numeric_limits<T>::max());
  padded.each([](T& value) {
    if (value == -std::numeric_limits<T>::infinity()) value = std::numeric_limits<T>::max();
  });
  return padded;
}

template <class T>
void zero(const Products<T>& products, const Similarity<T>& call) {
  if (products.v) std::fill_n(products.by_row, call.problems * call.n * products.v_width, T(0));
  if (products.u) std::fill_n(products.by_col, call.problems * call.m * products.u_width, T(0));
}

}  // namespace

template <class T>
void info_nce_forward(const Similarity<T>& call, Summary<T> row, Summary<T> col, T* positive, T* stored,
                      int64_t stored_rows, int threads) {
  Call<T> whole(call, {}, stored, stored_rows, threads);
  const bool columns = col.lse || !call.y, means = row.mean;
  Sums<T> by_row(call.problems, whole.rows, true, means), by_col(call.problems, whole.cols, columns, means);
  whole.each_block([&](const Block<T>& block, const void* left, const void* right, const void*, const void*,
                       int64_t problem, int64_t i, int64_t j, bool diagonal, void*) {
    const Running<T> none{};
    whole.tiles.forward(left, right,
                        {block, by_row.at(problem, i), columns && !diagonal ? by_col.at(problem, j) : none,
                         positive ? positive + problem * call.n + i : nullptr});
  });
  if (!call.y) by_row.add(by_col, call.problems, call.n);
  by_row.finish(call.problems, call.n, row);
  if (col.lse) by_col.finish(call.problems, call.m, col);
}

template <class T>
void info_nce_backward(const Similarity<T>& call, const Gradients<T>& grads, const Products<T>& products,
                       const T* stored, int64_t stored_rows, int threads) {
  const bool one_stream = !call.y;
  Products<T> all = products;
  std::vector<T> other_side;
  if (one_stream) {
    other_side.resize(call.problems * call.n * all.v_width);
    all.u = all.v, all.u_width = all.v_width, all.by_col = other_side.data();
  }
  Call<T> whole(call, all, const_cast<T*>(stored), stored_rows, threads);
  Padded<T> row_lse = finite(grads.row_lse, call.problems, whole.rows);
  Padded<T> col_lse = finite(one_stream ? grads.row_lse : grads.col_lse, call.problems, whole.cols);
  Padded<T> grad_row(grads.row, call.problems, whole.rows, T(0));
  Padded<T> grad_col(one_stream ? grads.row : grads.col, call.problems, whole.cols, T(0));
  Padded<T> grad_positive(grads.positive, call.problems, whole.rows, T(0));
  zero(all, call);
  whole.each_block([&](const Block<T>& block, const void* left, const void* right, const void* v, const void* u,
                       int64_t problem, int64_t i, int64_t j, bool diagonal, void* scratch) {
    whole.tiles.backward(
        left, right, v, u, whole.rows.size(), whole.cols.size(),
        {block, row_lse.at(problem, i), col_lse.at(problem, j), grad_row.at(problem, i), grad_col.at(problem, j),
         grad_positive.at(problem, i), all.v ? all.by_row + (problem * call.n + i) * all.v_width : nullptr,
         all.u && !diagonal ? all.by_col + (problem * call.m + j) * all.u_width : nullptr, all.v_width, all.u_width,
         scratch});
  });
  for (int64_t k = 0; k < static_cast<int64_t>(other_side.size()); ++k) all.by_row[k] += other_side[k];
}

template <class T>
void sigmoid_loss_forward(const Similarity<T>& call, const T* bias, T* row_loss, int threads) {
  Call<T> whole(call, {}, nullptr, 0, threads);
  std::fill_n(row_loss, call.problems * call.n, T(0));
  whole.each_block([&](const Block<T>& block, const void* left, const void* right, const void*, const void*,
                       int64_t problem, int64_t i, int64_t, bool, void*) {
    SigmoidBlock<T> sigmoid{};
    static_cast<Block<T>&>(sigmoid) = block;
    sigmoid.bias = bias[problem];
    sigmoid.row_loss = row_loss + problem * call.n + i;
    whole.tiles.sigmoid_forward(left, right, sigmoid);
  });
}

template <class T>
void sigmoid_loss_backward(const Similarity<T>& call, const T* bias, const T* grad_row, const Products<T>& products,
                           T* slope, int threads) {
  Call<T> whole(call, products, nullptr, 0, threads);
  zero(products, call);
  std::fill_n(slope, call.problems * call.n, T(0));
  whole.each_block([&](const Block<T>& block, const void* left, const void* right, const void* v, const void* u,
                       int64_t problem, int64_t i, int64_t j, bool, void* scratch) {
    whole.tiles.sigmoid_backward(
        left, right, v, u, whole.rows.size(), whole.cols.size(),
        {block, bias[problem], nullptr, grad_row + problem * call.n + i, slope + problem * call.n + i,
         products.v ? products.by_row + (problem * call.n + i) * products.v_width : nullptr,
         products.u ? products.by_col + (problem * call.m + j) * products.u_width : nullptr, products.v_width,
         products.u_width, scratch});
  });
}

#define MODALIGN_INSTANTIATE(T)                                                                                        \
  template void info_nce_forward<T>(const Similarity<T>&, Summary<T>, Summary<T>, T*, T*, int64_t, int);               \
  template void info_nce_backward<T>(const Similarity<T>&, const Gradients<T>&, const Products<T>&, const T*, int64_t, \
                                     int);                                                                             \
  template void sigmoid_loss_forward<T>(const Similarity<T>&, const T*, T*, int);                                      \
  template void sigmoid_loss_backward<T>(const Similarity<T>&, const T*, const T*, const Products<T>&, T*, int);
MODALIGN_INSTANTIATE(float)
MODALIGN_INSTANTIATE(double)

}  // namespace modalign
