// The tile kernels of the losses for one instruction set (MODALIGN_ISA names it).
#include "cpu/losses/info_nce_tiles.hpp"
#include "cpu/losses/sigmoid_tiles.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

template <class P>
LossTiles<typename P::Sum> make() {
  using T = typename P::Sum;
  using Word = typename P::Word;
  return {.row_panel = kRows,
          .col_panel = kCols<T>,
          .per_word = P::per_word,
          .word_bytes = sizeof(Word),
          .scratch_bytes = Weights<P>::bytes,
          .pack_left = [](Rows rows, void* out) { pack<P, kRows>(rows, static_cast<Word*>(out)); },
          .pack_right = [](Rows rows, void* out) { pack<P, kCols<T>>(rows, static_cast<Word*>(out)); },
          .pack_features = [](Rows rows, int64_t padded,
                              void* out) { pack_features<P>(rows, padded, static_cast<Word*>(out)); },
          .info_nce_forward = info_nce_forward<P>,
          .info_nce_backward = backward<P, BackwardBlock<T>>,
          .sigmoid_forward = sigmoid_forward<P>,
          .sigmoid_backward = backward<P, SigmoidBlock<T>>};
}

}  // namespace

#if defined(MODALIGN_ISA_avx512bf16)
LossTiles<float> make_bfloat16_tiles() { return make<BFloat16Pairs>(); }
#else
template <class T>
LossTiles<T> make_loss_tiles() {
  return make<Plain<T>>();
}
template LossTiles<float> make_loss_tiles<float>();
template LossTiles<double> make_loss_tiles<double>();
#endif

}  // namespace modalign::MODALIGN_ISA
