// Weights of a few hundred rows and columns of a block, and their products with v and u: the backward pass of both
// losses.
#pragma once

#include "cpu/losses/logits.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int64_t kWeightCols = 192;  // columns of a window
static_assert(kWeightCols % kRows == 0 && kWeightCols % kCols<float> == 0);

// W as the left operand of both products, in the words that they take.
template <class P>
struct Weights;

template <class T>
struct Weights<Plain<T>> {
  static constexpr int64_t most_rows = sizeof(T) == 4 ? 384 : 192;
  static constexpr int64_t bytes = most_rows * kWeightCols * sizeof(T);
  static constexpr int64_t row_stride = kWeightCols, col_stride = kWeightCols;
  T* numbers;
  explicit Weights(void* scratch) : numbers(static_cast<T*>(scratch)) {}
  void round(int64_t, int64_t) {}
  const T* rows(int64_t r) const { return numbers + r * kWeightCols; }
  const T* cols(int64_t c) const { return numbers + c; }
};

#if defined(MODALIGN_ISA_avx512bf16)
// Rounded to bfloat16: pairs of columns for W v, pairs of rows for W' u.
template <>
struct Weights<BFloat16Pairs> {
  static constexpr int64_t most_rows = 192;
  static constexpr int64_t count = most_rows * kWeightCols;
  static constexpr int64_t bytes = count * 8;
  static constexpr int64_t row_stride = kWeightCols / 2, col_stride = kWeightCols;
  float* numbers;
  uint32_t* by_row;  // [rows][pair of columns]
  uint32_t* by_col;  // [pair of rows][column]
  explicit Weights(void* scratch)
      : numbers(static_cast<float*>(scratch)),
        by_row(reinterpret_cast<uint32_t*>(numbers + count)),
        by_col(by_row + count / 2) {}
  void round(int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r += 2)
      for (int64_t c = 0; c < cols; c += 16) {
        const __m256bh even = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers + r * kWeightCols + c));
        const __m256bh odd = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers + (r + 1) * kWeightCols + c));
        const __m256i low = reinterpret_cast<__m256i>(even), high = reinterpret_cast<__m256i>(odd);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(by_row + r * row_stride + c / 2), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(by_row + (r + 1) * row_stride + c / 2), high);
        const __m512i pair =
            _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
        _mm512_storeu_si512(by_col + r / 2 * col_stride + c, pair);
      }
  }
  const uint32_t* rows(int64_t r) const { return by_row + r * row_stride; }
  const uint32_t* cols(int64_t c) const { return by_col + c; }
};
#endif

// Cut `size` into equal parts of at most `most`, and round their size up to a multiple: a short last part would cost as
// much as a whole one.
inline int64_t equal_parts(int64_t size, int64_t most, int64_t multiple) {
  const int64_t parts = (size + most - 1) / most;
  return (((size + parts - 1) / parts) + multiple - 1) / multiple * multiple;
}

// Copy `cols` logits of a row, and zeros up to `padded`. The row kRows further, on another page, is prefetched.
template <class T>
void read_stored(const T* stored, int64_t ld, const Window& window, T* out) {
  constexpr int64_t line = 64 / sizeof(T);
  const int64_t cols = window.cols, padded = window.padded;
  for (int64_t c = 0; c < cols; c += line) __builtin_prefetch(stored + kRows * ld + c);
  for (int64_t c = 0; c < cols; ++c) out[c] = stored[c];
  for (int64_t c = cols; c < padded; ++c) out[c] = 0;
}

// Write the logits of a window into lines of kWeightCols numbers: stored ones are read, others are computed.
template <class P>
void window_logits(const Panels<P>& panels, const Window& window, const Block<typename P::Sum>& block,
                   typename P::Sum* out) {
  for (int64_t r = 0; r < window.rows; r += kRows) {
    auto* line = out + r * kWeightCols;
    const Window strip = window_of(block, window.row + r, kRows, window.col, window.cols);
    if (strip.row + strip.rows <= block.stored_rows) {
      for (int64_t k = 0; k < strip.rows; ++k)
        read_stored(block.stored + (strip.row + k) * block.stored_ld + strip.col, block.stored_ld, strip,
                    line + k * kWeightCols);
    } else {
      logits_strip<P, kWeightCols>(panels, block.scale, strip, line);
    }
  }
}

// Add W v and W' u of a window to the results of the block.
template <class P>
void add_products(const PackedOperands& operands, const Weights<P>& weights, const Window& window,
                  const WeightedBlock<typename P::Sum>& block) {
  using Word = typename P::Word;
  constexpr int64_t panel = kCols<typename P::Sum>;
  const auto [row, rows, col, cols, padded] = window;
  const int64_t v_depth = operands.padded_cols / P::per_word, u_depth = operands.padded_rows / P::per_word;
  if (block.by_row)
    for (int64_t c = 0; c < block.row_width; c += panel) {
      const Word* values = static_cast<const Word*>(operands.v) + (c / panel * v_depth + col / P::per_word) * panel;
      for (int64_t r = 0; r < rows; r += kRows)
        accumulate_tile<P, Weights<P>::row_stride, 1>(weights.rows(r), values, (cols + P::per_word - 1) / P::per_word,
                                                      block.by_row + (row + r) * block.row_width + c, block.row_width,
                                                      rows - r, block.row_width - c);
    }
  if (block.by_col)
    for (int64_t c = 0; c < block.col_width; c += panel) {
      const Word* values = static_cast<const Word*>(operands.u) + (c / panel * u_depth + row / P::per_word) * panel;
      for (int64_t r = 0; r < cols; r += kRows)
        accumulate_tile<P, 1, Weights<P>::col_stride>(weights.cols(r), values, (rows + P::per_word - 1) / P::per_word,
                                                      block.by_col + (col + r) * block.col_width + c, block.col_width,
                                                      cols - r, block.col_width - c);
    }
}

// The backward pass of a loss on one block, window by window; weigh(numbers, window, block) turns logits into weights.
template <class P, class LossBlock>
void backward(const PackedOperands& operands, const LossBlock& block) {
  Weights<P> weights(block.scratch);
  const Panels<P> panels(operands, block.d);
  const int64_t most_rows = equal_parts(block.rows, Weights<P>::most_rows, kRows);
  const int64_t most_cols = equal_parts(block.cols, kWeightCols, kCols<typename P::Sum>);
  for (int64_t col = 0; col < block.cols; col += most_cols)
    for (int64_t row = 0; row < block.rows; row += most_rows) {
      const Window window = window_of(block, row, most_rows, col, most_cols);
      window_logits(panels, window, block, weights.numbers);
      weigh(weights.numbers, window, block);
      const int64_t whole_rows = (window.rows + kRows - 1) / kRows * kRows;
      for (int64_t r = window.rows; r < whole_rows; ++r)
        for (int64_t c = 0; c < window.padded; ++c) weights.numbers[r * kWeightCols + c] = 0;
      weights.round(whole_rows, window.padded);
      add_products(operands, weights, window, block);
    }
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
