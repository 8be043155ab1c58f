// The knn screen for one instruction set (MODALIGN_ISA names it): row_panel x col_panel scores at a time, one
// comparison each, survivors handed to the caller.
#include "cpu/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr float kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// offers the candidates of one register of upper bounds that reach their searcher's threshold
template <class Searcher, class Candidate>
__attribute__((always_inline)) inline void offer(const ScreenBlock& block, Simd<float>::Vector upper,
                                                 Simd<float>::Vector threshold, int64_t lanes, Searcher searcher,
                                                 Candidate candidate) {
  using S = Simd<float>;
  if (!S::any(upper >= threshold)) return;
  for (int64_t lane = 0; lane < S::width && lane < lanes; ++lane)
    if (upper[lane] >= block.threshold[searcher(lane)])
      block.offer(block.context, searcher(lane), candidate(lane), upper[lane]);
}

void screen(const float* left, const float* right, const ScreenBlock& block) {
  using S = Simd<float>;
  constexpr int cols = kCols<float>;
  alignas(64) float scores[kRows * cols];
  for (int64_t col = 0; col < block.cols; col += cols) {
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
      logits_tile<Plain<float>>(left + row * block.d, right + col * block.d, block.d, kOnes, scores, cols);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = block.row_start + row + r;
        for (int64_t c = 0; c < cols; c += S::width) {
          const int64_t j = block.col_start + col + c, lanes = block.cols - col - c;
          const S::Vector score = S::load(scores + r * cols + c);
          offer(
              block, score * S::load(block.a + j) + (S::load(block.b + j) + S::load(block.e + j) * block.r[i]),
              S::broadcast(block.threshold[i]), lanes, [&](int64_t) { return i; },
              [&](int64_t lane) { return j + lane; });
          if (block.both_sides)
            offer(
                block, score * block.a[i] + (S::load(block.r + j) * block.e[i] + block.b[i]),
                S::load(block.threshold + j), lanes, [&](int64_t lane) { return j + lane; },
                [&](int64_t) { return i; });
        }
      }
    }
  }
}

}  // namespace

ScreenTiles make_screen_tiles() {
  return {kRows, kCols<float>, pack<Plain<float>, kRows>, pack<Plain<float>, kCols<float>>, screen};
}

}  // namespace modalign::MODALIGN_ISA
