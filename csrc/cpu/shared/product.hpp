// The register-tiled product of two panels, and the packing of rows into panels.
//
// A panel holds kRows (left) or kCols (right) rows side by side, feature by feature, so that one step of a product
// reads both in order, while kRows x kCols accumulators stay in registers. The unit of a panel is a word. In `Plain<T>`
// a word is one number. In `BFloat16Pairs` it is two bfloat16 numbers, which one instruction multiplies exactly and
// adds in float32.
#pragma once

#include <type_traits>

#include "cpu/shared/simd.hpp"
#include "cpu/shared/types.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int kRows = kRegisterRows;
static_assert(kStripeMultiple % kRows == 0);

template <class T>
constexpr int kCols = 2 * Simd<T>::width;

// The logit of an entry that does not count: the lowest finite number.
template <class T>
constexpr T kNever = sizeof(T) == 4 ? static_cast<T>(-3.40282347e+38) : static_cast<T>(-1.7976931348623157e+308);

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float as_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
inline T value(float x) {
  return static_cast<T>(x);
}
template <class T>
inline T value(double x) {
  return static_cast<T>(x);
}
template <class T>
inline T value(int8_t x) {
  return static_cast<T>(x);
}
template <class T>
inline T value(BFloat16 x) {
  return static_cast<T>(as_float(static_cast<uint32_t>(x.bits) << 16));
}
template <class T>
inline T value(Half x) {
#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
  return static_cast<T>(_cvtsh_ss(x.bits));
#else
  // no subnormal float on the way: a thread may be set to flush them to zero
  const uint32_t bits = x.bits & 0x7fff;
  const float magnitude =
      bits < 0x400 ? static_cast<float>(bits) * 0x1p-24f : as_float((bits << 13) + (uint32_t{112} << 23));
  return static_cast<T>((x.bits & 0x8000) ? -magnitude : magnitude);
#endif
}

// One number in a word: every dtype is converted to the type in which sums are kept.
template <class T>
struct Plain {
  using Sum = T;
  using Word = T;
  static constexpr int per_word = 1;
  using V = typename Simd<T>::Vector;
  static V broadcast(const Word* a) { return Simd<T>::broadcast(*a); }
  static V load(const Word* b) { return Simd<T>::load(b); }
  static V multiply_add(V sum, V a, V b) { return sum + a * b; }
  template <class Source>
  static Word word(const Source* source, int64_t, int64_t) {
    return value<T>(*source);
  }
};

#if defined(MODALIGN_ISA_avx512bf16)
// Two bfloat16 numbers in a word.
struct BFloat16Pairs {
  using Sum = float;
  using Word = uint32_t;
  static constexpr int per_word = 2;
  using V = Simd<float>::Vector;
  static __m512bh broadcast(const Word* a) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*a)));
  }
  static __m512bh load(const Word* b) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(b)); }
  static V multiply_add(V sum, __m512bh a, __m512bh b) {
    return reinterpret_cast<V>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), a, b));
  }
  // Read a word of which `count` numbers exist, the second `stride` numbers after the first.
  static Word word(const BFloat16* source, int64_t stride, int64_t count) {
    return source[0].bits | (count > 1 ? static_cast<uint32_t>(source[stride].bits) << 16 : 0);
  }
};
#endif

// acc[r] += the sum over k of a[r * row_stride + k * depth_stride] times the kCols words from b[k * kCols] on
template <class P, int64_t row_stride, int64_t depth_stride>
__attribute__((always_inline)) inline void product(const typename P::Word* a, const typename P::Word* b, int64_t depth,
                                                   typename P::V (&acc)[kRows][2]) {
  constexpr int width = Simd<typename P::Sum>::width;
  for (int64_t k = 0; k < depth; ++k) {
    const auto b0 = P::load(b), b1 = P::load(b + width);
    __builtin_prefetch(b + 16 * width);
    __builtin_prefetch(b + 17 * width);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto value = P::broadcast(a + r * row_stride);
      acc[r][0] = P::multiply_add(acc[r][0], value, b0);
      acc[r][1] = P::multiply_add(acc[r][1], value, b1);
    }
    a += depth_stride;
    b += 2 * width;
  }
}

// out[r * ld ..] = scale[r] * (left panel) . (right panel); depth is in words. A leaf: its arguments stay in registers.
template <class P>
__attribute__((noinline)) void logits_tile(const typename P::Word* left, const typename P::Word* right, int64_t depth,
                                           const typename P::Sum* scale, typename P::Sum* out, int64_t ld) {
  using S = Simd<typename P::Sum>;
  typename S::Vector acc[kRows][2] = {};
  product<P, 1, kRows>(left, right, depth, acc);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    S::store(out + r * ld, acc[r][0] * scale[r]);
    S::store(out + r * ld + S::width, acc[r][1] * scale[r]);
  }
}

// out[r, .. cols) += the sum over depth of a_rk b_k, for the first `rows` rows. A leaf: its arguments stay in
// registers.
template <class P, int64_t row_stride, int64_t depth_stride>
__attribute__((noinline)) void accumulate_tile(const typename P::Word* a, const typename P::Word* b, int64_t depth,
                                               typename P::Sum* out, int64_t ld, int64_t rows, int64_t cols) {
  using T = typename P::Sum;
  using S = Simd<T>;
  typename S::Vector acc[kRows][2] = {};
  for (int64_t r = 0; r < kRows && r < rows; ++r) {
    __builtin_prefetch(out + r * ld, 1);
    __builtin_prefetch(out + r * ld + S::width, 1);
  }
  product<P, row_stride, depth_stride>(a, b, depth, acc);
  if (rows >= kRows && cols >= kCols<T>) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      S::store(out + r * ld, S::load(out + r * ld) + acc[r][0]);
      S::store(out + r * ld + S::width, S::load(out + r * ld + S::width) + acc[r][1]);
    }
    return;
  }
  T edge[kRows][kCols<T>];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    S::store(edge[r], acc[r][0]);
    S::store(edge[r] + S::width, acc[r][1]);
  }
  for (int64_t r = 0; r < kRows && r < rows; ++r)
    for (int64_t c = 0; c < kCols<T> && c < cols; ++c) out[r * ld + c] += edge[r][c];
}

// Call f with a typed pointer to the first element of the rows.
template <class P, class F>
void with_source(Rows rows, F f) {
  const int64_t offset = rows.start * rows.d;
  if constexpr (P::per_word == 2) {
    f(static_cast<const BFloat16*>(rows.data) + offset);
  } else {
    switch (rows.dtype) {
      case Dtype::float16:
        return f(static_cast<const Half*>(rows.data) + offset);
      case Dtype::bfloat16:
        return f(static_cast<const BFloat16*>(rows.data) + offset);
      case Dtype::float32:
        return f(static_cast<const float*>(rows.data) + offset);
      case Dtype::float64:
        return f(static_cast<const double*>(rows.data) + offset);
      case Dtype::int8:
        return f(static_cast<const int8_t*>(rows.data) + offset);
    }
  }
}

typedef uint32_t Bits32 __attribute__((may_alias));

template <int width>
constexpr int kWholeEights = (width + 7) / 8 * 8;

// out[k * width + r] = row_r[k] with the bits of `flip` flipped, for the first `width` of kWholeEights rows. May write
// kPackedBeyond bytes beyond the end.
template <int width, uint32_t flip>
void pack_words(const Bits32* const (&row)[kWholeEights<width>], int64_t words, Bits32* out) {
  // the highest rows come first: eight are written even where fewer belong, and lower rows overwrite the surplus
  for (int r = (width - 1) / 8 * 8; r >= 0; r -= 8) {
    int64_t k = 0;
#if defined(MODALIGN_EIGHT)
    for (; k + 8 <= words; k += 8) {
      Eight v[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) __builtin_prefetch(row[r + i] + k + 128);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) v[i] = *reinterpret_cast<const EightUnaligned*>(row[r + i] + k);
      transpose(v);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        *reinterpret_cast<EightUnaligned*>(out + (k + i) * width + r) =
            reinterpret_cast<Eight>(reinterpret_cast<EightIntegers>(v[i]) ^ static_cast<int>(flip));
    }
#endif
    for (; k < words; ++k)
      for (int i = 0; i < 8 && r + i < width; ++i) out[k * width + r + i] = row[r + i][k] ^ flip;
  }
}

// The number of words of each row that are packed before the next row, so that this part of the panel stays in the
// first-level cache.
constexpr int64_t kPackedAtOnce = 16;

// Pack rows into out[panel][word][row in panel], zero beyond the last row: an operand of a product over features.
template <class P, int width>
void pack(Rows rows, typename P::Word* out) {
  const int64_t d = rows.d, depth = (d + P::per_word - 1) / P::per_word;
  with_source<P>(rows, [&](const auto* source) {
    for (int64_t start = 0; start < rows.rows; start += width, out += depth * width) {
      const int64_t filled = rows.rows - start < width ? rows.rows - start : width;
      if constexpr (std::is_same_v<P, Plain<float>> && std::is_same_v<decltype(source), const float*>)
        if (filled == width) {
          const Bits32* row[kWholeEights<width>];
          for (int r = 0; r < kWholeEights<width>; ++r)
            row[r] = reinterpret_cast<const Bits32*>(source + (start + (r < width ? r : width - 1)) * d);
          pack_words<width, 0>(row, d, reinterpret_cast<Bits32*>(out));
          continue;
        }
      for (int64_t first = 0; first < depth; first += kPackedAtOnce) {
        const int64_t last = first + kPackedAtOnce < depth ? first + kPackedAtOnce : depth;
        for (int64_t r = 0; r < filled; ++r) {
          const auto* row = source + (start + r) * d;
          for (int64_t k = first; k < last; ++k)
            out[k * width + r] = P::word(row + k * P::per_word, 1, d - k * P::per_word);
        }
        for (int64_t r = filled; r < width; ++r)
          for (int64_t k = first; k < last; ++k) out[k * width + r] = 0;
      }
    }
  });
}

// Pack rows into out[panel of features][word of rows][feature in panel], zero beyond the last: an operand of a product
// over rows.
template <class P>
void pack_features(Rows rows, int64_t padded_rows, typename P::Word* out) {
  constexpr int64_t cols = kCols<typename P::Sum>;
  const int64_t d = rows.d, depth = padded_rows / P::per_word;
  with_source<P>(rows, [&](const auto* source) {
    for (int64_t start = 0; start < d; start += cols) {
      const int64_t filled = d - start < cols ? d - start : cols;
      for (int64_t k = 0; k < depth; ++k, out += cols) {
        const int64_t r = k * P::per_word;
        const auto* row = source + r * d + start;
        __builtin_prefetch(row + 32 * d);
        __builtin_prefetch(row + 32 * d + cols / 2);
        int64_t c = 0;
        if (r < rows.rows)
          for (; c < filled; ++c) out[c] = P::word(row + c, d, rows.rows - r);
        for (; c < cols; ++c) out[c] = 0;
      }
    }
  });
}

}  // namespace
}  // namespace modalign::MODALIGN_ISA
