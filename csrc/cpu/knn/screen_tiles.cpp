// The knn screen for one instruction set (MODALIGN_ISA names it) and one kind of word. It computes row_panel x
// col_panel upper bounds at a time, compares each with the thresholds, and offers the few that reach them to the
// caller.
#include <bit>

#include "cpu/knn/screen.hpp"
#include "cpu/shared/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

using Floats = Simd<float>::Vector;
using Integers = Simd<float>::Mask;

// The initial value of the sums of a row's products.
template <class P>
struct InitialSum {
  static typename P::V of(const int32_t*) { return typename P::V{}; }
};

// Words of small integers, which are multiplied and added exactly in int32.
struct IntegerWords {
  using Sum = float;
  using Word = uint32_t;
  using V = Integers;
  static V broadcast(const Word* a) { return static_cast<int>(*a) - V{}; }
  static V load(const Word* b) { return reinterpret_cast<V>(Simd<float>::load(reinterpret_cast<const float*>(b))); }
};

#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
// Two int16 numbers in a word. The norms of codes are so small that no sum of products leaves int32.
struct Int16Pairs : IntegerWords {
  static V multiply_add(V sum, V a, V b) {
#if defined(MODALIGN_ISA_avx512)
    return sum + reinterpret_cast<V>(_mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#else
    return sum + reinterpret_cast<V>(_mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#endif
  }
};
#endif

#if defined(MODALIGN_ISA_avx512vnni)
// Four int8 numbers in a word. The instruction needs unsigned numbers on one side: those on the right are stored plus
// 128, and the sums start at -128 times the sum of the numbers on the left.
struct Int8Quads : IntegerWords {
  static V multiply_add(V sum, V a, V b) {
    return reinterpret_cast<V>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(b),
                                                   reinterpret_cast<__m512i>(a)));
  }
};
template <>
struct InitialSum<Int8Quads> {
  static Integers of(const int32_t* offset) { return *offset - Integers{}; }
};
#endif

inline Floats as_floats(Floats sum) { return sum; }
inline Floats as_floats(Integers sum) { return __builtin_convertvector(sum, Floats); }

// Pack codes [rows][words] into packed[panel][word][row in panel]; beyond the last row, the last one is repeated.
template <int width, uint32_t flip>
void pack_codes(const void* codes, int64_t rows, int64_t words, void* packed) {
  const Bits32* source = static_cast<const Bits32*>(codes);
  Bits32* out = static_cast<Bits32*>(packed);
  for (int64_t start = 0; start < rows; start += width, out += words * width) {
    const Bits32* row[kWholeEights<width>];
    for (int r = 0; r < kWholeEights<width>; ++r) row[r] = source + (start + r < rows ? start + r : rows - 1) * words;
    pack_words<width, flip>(row, words, out);
  }
}

// Compare the bounds of one panel's pairs with their thresholds, given their products. Not inlined into the loop over
// products, which needs all registers.
__attribute__((noinline)) void offer_pairs(Floats (&products)[kRows][2], int64_t row, int64_t col,
                                           const ScreenBlock& block) {
  using S = Simd<float>;
  const ScreenSide &left = block.left, &right = block.right;
  Floats norm[2], error[2], shift[2], scale[2], threshold[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const int64_t j = col + half * S::width;
    norm[half] = S::load(right.norm + j), error[half] = S::load(right.error + j);
    shift[half] = S::load(right.shift + j), scale[half] = S::load(right.scale + j);
    threshold[half] = S::load(right.threshold + j);
  }
  // all comparisons come before the first branch, which cannot be predicted; 32 bits for each side, one for each lane
  uint64_t reached[kRows];
  const uint64_t wanted = (block.left_searches ? 0xffffffffu : 0) | (block.right_searches ? 0xffffffffull << 32 : 0);
  for (int r = 0; r < kRows; ++r) {
    const int64_t i = row + r;
    reached[r] = 0;
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Floats upper =
          products[r][half] * scale[half] * left.scale[i] + (error[half] * left.norm[i] + norm[half] * left.error[i]);
      products[r][half] = upper;
      const uint64_t by_left = S::greater_equal(upper + shift[half], S::broadcast(left.threshold[i]));
      const uint64_t by_right = S::greater_equal(upper + left.shift[i], threshold[half]);
      reached[r] |= (by_left | by_right << 32) << (half * S::width);
    }
    reached[r] &= wanted;
    if (block.triangle && i >= col) {
      const uint32_t after = i - col < 31 ? ~uint32_t{0} << (i - col + 1) : 0;
      reached[r] &= after | static_cast<uint64_t>(after) << 32;
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (uint64_t bits = reached[r]; bits; bits &= bits - 1) {
      const int bit = std::countr_zero(bits), lane = bit % 32;
      const int64_t i = row + r, j = col + lane;
      const float upper = products[r][lane / S::width][lane % S::width];
      if (bit < 32)
        block.offer(block.context, false, i, j, upper + right.shift[j]);
      else
        block.offer(block.context, true, j, i, upper + left.shift[i]);
    }
}

template <class P>
void screen(const void* left_panels, const void* right_panels, const ScreenBlock& block) {
  using Word = typename P::Word;
  constexpr int cols = kCols<float>;
  const auto* left = static_cast<const Word*>(left_panels);
  const auto* right = static_cast<const Word*>(right_panels);
  Floats products[kRows][2];
  for (int64_t col = 0; col < block.right.rows; col += cols) {
    const int64_t last = block.triangle && col + cols < block.left.rows ? col + cols : block.left.rows;
    for (int64_t row = 0; row < last; row += kRows) {
      typename P::V sums[kRows][2];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = InitialSum<P>::of(block.left.offset + row + r);
      product<P, 1, kRows>(left + row * block.words, right + col * block.words, block.words, sums);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) products[r][0] = as_floats(sums[r][0]), products[r][1] = as_floats(sums[r][1]);
      offer_pairs(products, row, col, block);
    }
  }
}

template <class P, uint32_t flip = 0>
ScreenTiles make() {
  static_assert(sizeof(typename P::Word) == 4);
  return {kRows, kCols<float>, pack_codes<kRows, 0>, pack_codes<kCols<float>, flip>, screen<P>};
}

}  // namespace

template <Precision>
ScreenTiles make_screen_tiles();

#if defined(MODALIGN_ISA_avx512vnni)
template <>
ScreenTiles make_screen_tiles<Precision::int8>() {
  return make<Int8Quads, 0x80808080u>();
}
#elif defined(MODALIGN_ISA_avx512bf16)
template <>
ScreenTiles make_screen_tiles<Precision::bfloat16>() {
  return make<BFloat16Pairs>();
}
#else
template <>
ScreenTiles make_screen_tiles<Precision::float32>() {
  return make<Plain<float> >();
}
#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
template <>
ScreenTiles make_screen_tiles<Precision::int16>() {
  return make<Int16Pairs>();
}
#endif
#endif

}  // namespace modalign::MODALIGN_ISA
