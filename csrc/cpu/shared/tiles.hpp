// The leaves of the CPU kernels: work on one block of the similarity matrix by one thread. Plain functions over
// pointers and sizes, compiled once for every instruction set; isa.hpp hands out the set chosen at run time.
#pragma once

#include <cstdint>

namespace modalign {

// How the caller's rows are stored. Values are converted to the type a kernel computes in while they are packed.
enum class Dtype : int { float16, bfloat16, float32, float64, int8 };

// Rows start to start + rows of a row-major [n, d] matrix in the caller's memory.
struct Rows {
  const void* data;
  Dtype dtype;
  int64_t d;
  int64_t start;
  int64_t rows;
};

// The integer as wide as T: what ids are, so that they line up with logits in vector registers.
template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = int32_t;
};
template <>
struct IntegerOf<double> {
  using type = int64_t;
};

// Which entries (i, j) are left out besides those with a negative id: none, i = j, equal ids, ids that differ.
enum class Mask : int { none, diagonal, same, different };

// A block of S = scale_i <x_i, y_j>. Row pointers start at the block's first row, column pointers at its first column,
// and all may be read up to the next whole panel. `diagonal_shift` is (first row) - (first column) in the whole matrix.
template <class T>
struct Block {
  using Integer = typename IntegerOf<T>::type;
  int64_t rows, cols, d, diagonal_shift;
  const T* scale;
  Mask mask;
  const Integer* row_id;  // both or neither null
  const Integer* col_id;
  const T* row_cap;  // null: no cap
  const T* col_cap;
  T* stored;  // raw logits of the first `stored_rows` rows of the block, `stored_ld` apart: written forward, read
              // backward
  int64_t stored_rows, stored_ld;
};

// Running maximum, sum of exp(logit - maximum), and (null unless wanted) sum of exp(logit - maximum) * logit.
template <class T>
struct Running {
  T* max;
  T* sum;
  T* weighted;
  Running from(int64_t i) const {
    return {max ? max + i : max, sum ? sum + i : sum, weighted ? weighted + i : weighted};
  }
};

template <class T>
struct ForwardBlock : Block<T> {
  Running<T> row, col;  // col.max null: columns are not wanted
  T* positive;          // [rows]; written where the diagonal crosses this block; null: not wanted
};

// W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i)
template <class T>
struct BackwardBlock : Block<T> {
  const T* row_lse;
  const T* col_lse;
  const T* grad_row;  // null: zero
  const T* grad_col;
  const T* grad_positive;
  T* by_row;  // [rows, row_width] += W v and [cols, col_width] += W' u; null: not wanted
  T* by_col;
  int64_t row_width, col_width;
  void* scratch;  // `scratch_bytes` of LossTiles
};

// log(1 + exp(-z_ij (S_ij + bias))), z = 1 where i = j (equal ids if there are ids), else -1. `mask` is not used.
template <class T>
struct SigmoidBlock : Block<T> {
  T bias;
  T* row_loss;        // forward: [rows] += its sum over j
  const T* grad_row;  // backward
  T* slope;           // [rows] += sum over j of the derivative by S
  T* by_row;          // as above, for W = scale_i times that derivative
  T* by_col;
  int64_t row_width, col_width;
  void* scratch;
};

// The losses' kernels for operands of one kind of word; all sizes of operands are in words.
template <class T>
struct LossTiles {
  int64_t row_panel, col_panel;  // rows in a panel of a left and of a right operand
  int64_t per_word, word_bytes;  // numbers in a word, and its size
  int64_t scratch_bytes;
  // out[panel][word][row in panel], zero beyond the last row: the operand of a product over d
  void (*pack_left)(Rows rows, void* out);
  void (*pack_right)(Rows rows, void* out);
  // out[panel of features][word of rows][feature in panel], zero beyond the last: the operand of a product over rows
  void (*pack_features)(Rows rows, int64_t padded_rows, void* out);
  void (*forward)(const void* left, const void* right, const ForwardBlock<T>& block);
  // v's and u's packed features; padded_rows and padded_cols as they were packed
  void (*backward)(const void* left, const void* right, const void* v, const void* u, int64_t padded_rows,
                   int64_t padded_cols, const BackwardBlock<T>& block);
  void (*sigmoid_forward)(const void* left, const void* right, const SigmoidBlock<T>& block);
  void (*sigmoid_backward)(const void* left, const void* right, const void* v, const void* u, int64_t padded_rows,
                           int64_t padded_cols, const SigmoidBlock<T>& block);
};

// What the knn screen knows of the rows on one side of a block (see codes.hpp), readable up to the next whole panel;
// there shift is NaN and threshold +inf, so that nothing is offered to or from what is not there.
struct ScreenSide {
  int64_t rows;
  const float* scale;     // a code's unit
  const int32_t* offset;  // what the sums of int8 products start at
  const float* norm;
  const float* error;
  const float* shift;
  const float* threshold;  // in the same units, what its k-th best neighbour so far has; `offer` moves it
};

// upper_ij = scale_i scale_j <code_i, code_j> + norm_i error_j + error_i norm_j + shift_j bounds the score that i gives
// j. Where it reaches i's threshold, j is offered.
struct ScreenBlock {
  int64_t words;  // of a row of codes
  ScreenSide left, right;
  bool left_searches, right_searches;
  bool triangle;  // both sides are the same rows: a pair is judged once, where i < j
  void (*offer)(void* context, bool right_searches, int64_t searcher, int64_t candidate, float upper);
  void* context;
};

enum class Precision : int { float32, bfloat16, int16, int8 };

// The screen in one precision. Codes are rows of words; a word is a float, two bfloat16, two int16 or four int8. The
// packers may write kPackedBeyond bytes beyond the last panel.
constexpr int64_t kPackedBeyond = 32;
struct ScreenTiles {
  int64_t row_panel, col_panel;
  void (*pack_left)(const void* codes, int64_t rows, int64_t words, void* out);
  void (*pack_right)(const void* codes, int64_t rows, int64_t words, void* out);
  void (*screen)(const void* left, const void* right, const ScreenBlock& block);
};

// out[i] = sum over c, in order and in float64 without fused multiply-adds, of query_c x_c or -(query_c - x_c)^2, for
// the rows x = ids[i] of the table.
using ExactScores = void (*)(const double* query, Rows table, const int32_t* ids, int64_t count, bool euclidean,
                             double* out);

// Both operands come in stripes of a multiple of this many rows: it holds whole panels of every instruction set.
constexpr int64_t kStripeMultiple = 96;

}  // namespace modalign
