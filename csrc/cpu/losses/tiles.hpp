// The contract between the traversal of the losses and its tile kernels, each of which works on one block of the
// similarity matrix in one thread. The kernels are plain functions over pointers and sizes, compiled once for every
// instruction set.
#pragma once

#include <cstdint>

#include "cpu/shared/types.hpp"

namespace modalign {

// Which entries (i, j) are left out besides those with a negative id: none, i = j, equal ids, or different ids.
enum class Mask : int { none, diagonal, same, different };

// A block of S = scale_i <x_i, y_j>. Row pointers start at the first row of the block, column pointers at its first
// column, and all may be read up to the next whole panel. `diagonal_shift` is the first row minus the first column,
// both counted in the whole matrix.
template <class T>
struct Block {
  using Integer = typename IntegerOf<T>::type;
  int64_t rows, cols, d, diagonal_shift;
  const T* scale;
  Mask mask;
  const Integer* row_id;  // row_id and col_id: both or neither null
  const Integer* col_id;
  const T* row_cap;  // null: no cap
  const T* col_cap;
  T* stored;  // logits of the first `stored_rows` rows of the block, `stored_ld` apart: written in the forward pass,
              // read in the backward pass
  int64_t stored_rows, stored_ld;
};

// Running maximum, sum of exp(logit - maximum), and sum of exp(logit - maximum) * logit, which is null unless wanted.
template <class T>
struct Running {
  T* max = nullptr;
  T* sum = nullptr;
  T* weighted = nullptr;
  Running shifted(int64_t i) const {
    return {max ? max + i : max, sum ? sum + i : sum, weighted ? weighted + i : weighted};
  }
};

template <class T>
struct ForwardBlock : Block<T> {
  Running<T> row, col;    // col.max is null if columns are not wanted
  T* positive = nullptr;  // [rows], written where the diagonal crosses this block; null: not wanted
  explicit ForwardBlock(const Block<T>& block) : Block<T>(block) {}
};

// Results of a backward pass: by_row [rows, row_width] += W v and by_col [cols, col_width] += W' u; null: not wanted.
template <class T>
struct WeightedBlock : Block<T> {
  T* by_row = nullptr;
  T* by_col = nullptr;
  int64_t row_width = 0, col_width = 0;
  void* scratch = nullptr;  // `scratch_bytes` of LossTiles
  explicit WeightedBlock(const Block<T>& block) : Block<T>(block) {}
};

// W_ij = scale_i (grad_row_i exp(S_ij - row_lse_i) + grad_col_j exp(S_ij - col_lse_j) + [i = j] grad_positive_i); a
// gradient that is null is zero.
template <class T>
struct BackwardBlock : WeightedBlock<T> {
  const T* row_lse = nullptr;
  const T* col_lse = nullptr;
  const T* grad_row = nullptr;
  const T* grad_col = nullptr;
  const T* grad_positive = nullptr;
  explicit BackwardBlock(const Block<T>& block) : WeightedBlock<T>(block) {}
};

// Terms log(1 + exp(-z_ij (S_ij + bias))), where z = 1 if i = j (if ids are equal, where there are ids), else -1.
// `mask` is not used. W is scale_i times the derivative of grad_row_i times the term.
template <class T>
struct SigmoidBlock : WeightedBlock<T> {
  T bias = 0;
  T* row_loss = nullptr;        // forward: [rows] += the sum of the terms over j
  const T* grad_row = nullptr;  // backward
  T* slope = nullptr;           // backward: [rows] += the sum over j of the derivative by S
  explicit SigmoidBlock(const Block<T>& block) : WeightedBlock<T>(block) {}
};

// Packed operands of a block: x and y by rows, v and u by features; padded_rows and padded_cols as u and v were packed.
struct PackedOperands {
  const void* left;
  const void* right;
  const void* v;
  const void* u;
  int64_t padded_rows, padded_cols;
};

// The kernels of the losses for operands of one kind of word. Sizes of operands are in words.
template <class T>
struct LossTiles {
  int64_t row_panel, col_panel;  // rows in a panel of a left and of a right operand
  int64_t per_word, word_bytes;  // numbers in a word, and its size
  int64_t scratch_bytes;
  // Pack into out[panel][word][row in panel], zero beyond the last row: the operand of a product over d.
  void (*pack_left)(Rows rows, void* out);
  void (*pack_right)(Rows rows, void* out);
  // Pack into out[panel of features][word of rows][feature in panel], zero beyond the last: the operand of a product
  // over rows.
  void (*pack_features)(Rows rows, int64_t padded_rows, void* out);
  void (*info_nce_forward)(const PackedOperands& operands, const ForwardBlock<T>& block);
  void (*info_nce_backward)(const PackedOperands& operands, const BackwardBlock<T>& block);
  void (*sigmoid_forward)(const PackedOperands& operands, const SigmoidBlock<T>& block);
  void (*sigmoid_backward)(const PackedOperands& operands, const SigmoidBlock<T>& block);
};

// The kernels of the instruction set in use for inputs of this dtype; T is the type in which sums are kept.
template <class T>
LossTiles<T> loss_tiles(Dtype dtype);

}  // namespace modalign
