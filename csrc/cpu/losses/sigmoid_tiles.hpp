// The sigmoid loss on one block, for one instruction set.
//
//   forward    strips of kRows x kGroup logits, whose terms log(1 + exp(-z t)) are added to their rows
//   backward   the weights W of a part of a block, from its logits
#pragma once

#include "cpu/losses/weights.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

// log(1 + exp(t)) and its derivative, from q = exp(-|t|): max(t, 0) + log(1 + q), log(1 + q) = 2 atanh(q / (2 + q))
template <class T>
struct Softplus {
  using S = Simd<T>;
  using V = typename S::Vector;
  static V small(V t) { return Exp<T>::of(where<T>(t > 0, -t, t)); }
  static V value(V t) {
    const V q = small(t), s = q / (q + T(2)), square = s * s;
    constexpr int terms = sizeof(T) == 4 ? 8 : 17;  // s <= 1/3
    V sum = S::broadcast(T(1) / (2 * terms - 1));
    for (int k = terms - 2; k >= 0; --k) sum = sum * square + T(1) / (2 * k + 1);
    return where<T>(t > 0, t, V{}) + sum * s * T(2);
  }
  static V derivative(V t) {
    const V q = small(t), one = S::broadcast(1);
    return where<T>(t > 0, one, q) / (q + T(1));
  }
};

// Return z_ij of row i for a vector of columns: 1 or -1, or 0 where the entry is left out.
template <class T>
typename Simd<T>::Vector sign(int64_t i, int64_t col, const SigmoidBlock<T>& block) {
  using S = Simd<T>;
  const typename S::Vector one = S::broadcast(1), minus = S::broadcast(-1);
  if (!block.row_id) return minus;
  const typename S::Vector z = where<T>(counted<T>(block.row_id[i], block.col_id + col, Mask::different), one, minus);
  return where<T>(counted<T>(block.row_id[i], block.col_id + col, Mask::none), z, typename S::Vector{});
}

// Call f(c, -z (S + bias), z) for the vectors of the logits of row i; z is 1 for its pair and 0 beyond the last column.
template <class T, class F>
void each_signed(const T* logits, int64_t i, const Window& window, const SigmoidBlock<T>& block, F f) {
  using S = Simd<T>;
  const int64_t col = window.col, cols = window.cols, padded = window.padded;
  for (int64_t c = 0; c < padded; c += S::width) {
    typename S::Vector z = sign<T>(i, col + c, block);
    const int64_t pair = i + block.diagonal_shift - col - c;
    if (!block.row_id && pair >= 0 && pair < S::width) z[pair] = 1;
    for (int64_t lane = cols > c ? cols - c : 0; lane < S::width; ++lane) z[lane] = 0;
    f(c, -z * (S::load(logits + c) + block.bias), z);
  }
}

template <class P>
void sigmoid_forward(const PackedOperands& operands, const SigmoidBlock<typename P::Sum>& block) {
  using T = typename P::Sum;
  using V = typename Simd<T>::Vector;
  alignas(64) T strip[kRows * kGroup];
  const Panels<P> panels(operands, block.d);
  for (int64_t col = 0; col < block.cols; col += kGroup) {
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const Window window = window_of(block, row, kRows, col, kGroup);
      logits_strip<P, kGroup>(panels, block.scale, window, strip);
      for (int64_t r = 0; r < window.rows; ++r) {
        V sum = {};
        each_signed(strip + r * kGroup, row + r, window, block,
                    [&](int64_t, V t, V z) { sum += where<T>(z != V{}, Softplus<T>::value(t), V{}); });
        block.row_loss[row + r] += Simd<T>::horizontal_sum(sum);
      }
    }
  }
}

// Replace the logits of a window by its weights.
template <class T>
void weigh(T* weights, const Window& window, const SigmoidBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  for (int64_t r = 0; r < window.rows; ++r) {
    T* line = weights + r * kWeightCols;
    const int64_t i = window.row + r;
    V sum = {};
    each_signed(line, i, window, block, [&](int64_t c, V t, V z) {
      const V slope = -z * Softplus<T>::derivative(t) * block.grad_row[i];
      sum += slope;
      S::store(line + c, slope * block.scale[i]);
    });
    block.slope[i] += S::horizontal_sum(sum);
  }
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
