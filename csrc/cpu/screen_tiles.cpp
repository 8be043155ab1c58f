// The knn screen for one instruction set (MODALIGN_ISA names it) and one kind of word: row_panel x col_panel upper
// bounds at a time, one comparison each, survivors handed to the caller.
#include <bit>

#include "cpu/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

using Floats = Simd<float>::Vector;
using Integers = Simd<float>::Mask;

template <class P>
struct Start {
  static typename P::V of(const int32_t*) { return typename P::V{}; }
};

#if defined(MODALIGN_ISA_avx512vnni)
// Four int8 a word, multiplied and added exactly. The instruction wants unsigned numbers on one side: the right ones
// are stored plus 128, and the sums start at -128 times the sum of the left ones.
struct Quads {
  using Sum = float;
  using Word = uint32_t;
  static constexpr int per_word = 4;
  using V = Integers;
  static V broadcast(const Word* a) { return static_cast<int>(*a) - V{}; }
  static V load(const Word* b) { return reinterpret_cast<V>(_mm512_loadu_si512(b)); }
  static V multiply_add(V sum, V a, V b) {
    return reinterpret_cast<V>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(b),
                                                   reinterpret_cast<__m512i>(a)));
  }
};
template <>
struct Start<Quads> {
  static Integers of(const int32_t* offset) { return *offset - Integers{}; }
};
#endif

inline Floats as_floats(Floats sum) { return sum; }
inline Floats as_floats(Integers sum) { return __builtin_convertvector(sum, Floats); }

// codes [rows][words] -> out[panel][word][row in panel], zero beyond the last row
template <class Word, int width, uint32_t flip>
void pack_codes(const void* codes, int64_t rows, int64_t words, void* packed) {
  const Word* from = static_cast<const Word*>(codes);
  Word* out = static_cast<Word*>(packed);
  for (int64_t start = 0; start < rows; start += width, out += words * width) {
    const int64_t filled = rows - start < width ? rows - start : width;
    for (int64_t first = 0; first < words; first += kPackedAtOnce) {
      const int64_t last = first + kPackedAtOnce < words ? first + kPackedAtOnce : words;
      for (int64_t r = 0; r < width; ++r)
        for (int64_t k = first; k < last; ++k) {
          const Word word = r < filled ? from[(start + r) * words + k] : Word(0);
          if constexpr (flip != 0)
            out[k * width + r] = word ^ flip;
          else
            out[k * width + r] = word;
        }
    }
  }
}

// One panel of searchers or candidates against another, once their products are there. Apart from the loop over
// products, which wants all registers for itself.
__attribute__((noinline)) void judge(const Floats (&products)[kRows][2], int64_t row, int64_t col,
                                     const ScreenBlock& block) {
  using S = Simd<float>;
  const ScreenSide &left = block.left, &right = block.right;
  Floats norm[2], error[2], shift[2], scale[2];
  for (int half = 0; half < 2; ++half) {
    const int64_t j = col + half * S::width;
    norm[half] = S::load(right.norm + j), error[half] = S::load(right.error + j);
    shift[half] = S::load(right.shift + j), scale[half] = S::load(right.scale + j);
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t i = row + r;
    for (int half = 0; half < 2; ++half) {
      const int64_t j = col + half * S::width;
      const Floats upper =
          products[r][half] * scale[half] * left.scale[i] + (error[half] * left.norm[i] + norm[half] * left.error[i]);
      const Floats for_left = upper + shift[half], for_right = upper + left.shift[i];
      if (block.left_searches)
        for (uint32_t lanes = S::reaching(for_left, S::broadcast(left.threshold[i])); lanes; lanes &= lanes - 1) {
          const int lane = std::countr_zero(lanes);
          block.offer(block.context, false, i, j + lane, for_left[lane]);
        }
      if (block.right_searches)
        for (uint32_t lanes = S::reaching(for_right, S::load(right.threshold + j)); lanes; lanes &= lanes - 1) {
          const int lane = std::countr_zero(lanes);
          block.offer(block.context, true, j + lane, i, for_right[lane]);
        }
    }
  }
}

template <class P>
void screen(const void* left_panels, const void* right_panels, const ScreenBlock& block) {
  using Word = typename P::Word;
  constexpr int cols = kCols<float>;
  const auto* own = static_cast<const Word*>(left_panels);
  const auto* other = static_cast<const Word*>(right_panels);
  Floats products[kRows][2];
  for (int64_t col = 0; col < block.right.rows; col += cols) {
    for (int64_t row = 0; row < block.left.rows; row += kRows) {
      typename P::V sums[kRows][2];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = Start<P>::of(block.left.offset + row + r);
      product<P, 1, kRows>(own + row * block.words, other + col * block.words, block.words, sums);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) products[r][0] = as_floats(sums[r][0]), products[r][1] = as_floats(sums[r][1]);
      judge(products, row, col, block);
    }
  }
}

template <class P, uint32_t flip = 0>
ScreenTiles make() {
  using Word = typename P::Word;
  return {kRows, kCols<float>, pack_codes<Word, kRows, 0>, pack_codes<Word, kCols<float>, flip>, screen<P>};
}

}  // namespace

#if defined(MODALIGN_ISA_avx512vnni)
ScreenTiles make_screen_tiles() { return make<Quads, 0x80808080u>(); }
#elif defined(MODALIGN_ISA_avx512bf16)
ScreenTiles make_screen_tiles() { return make<Pairs>(); }
#else
ScreenTiles make_screen_tiles() { return make<Plain<float> >(); }
#endif

}  // namespace modalign::MODALIGN_ISA
