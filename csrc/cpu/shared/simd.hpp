// One vector register of T for the instruction set that this file is compiled for (MODALIGN_ISA names it), and exp.
// Arithmetic and comparisons use the vector extensions of GCC and Clang, so that the compiler picks the instructions.
// This file and those that include it use no standard library: code compiled for AVX-512 must not leave inline
// functions that the linker could give to the portable build.
#pragma once

#include <cstdint>
#include <type_traits>
#if defined(MODALIGN_ISA_avx512bf16) || defined(MODALIGN_ISA_avx512vnni)
#define MODALIGN_ISA_avx512
#endif
#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
#include <immintrin.h>
#endif

#include "cpu/shared/types.hpp"

namespace modalign::MODALIGN_ISA {

#if defined(MODALIGN_ISA_avx512)
constexpr int kVectorBytes = 64;
constexpr int kRegisterRows = 12;  // 12 x 2 accumulators, 2 vectors of B and a broadcast use 27 of 32 registers
#elif defined(MODALIGN_ISA_avx2)
constexpr int kVectorBytes = 32;
constexpr int kRegisterRows = 6;  // 6 x 2 accumulators, 2 vectors of B and a broadcast use 15 of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisterRows = 4;
#endif

template <class T>
struct Simd {
  using Integer = typename IntegerOf<T>::type;
  static constexpr int width = kVectorBytes / static_cast<int>(sizeof(T));
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
  typedef Integer Mask __attribute__((vector_size(kVectorBytes)));
  // exponents are unsigned, because that of an entry far above 0, which the caller leaves out, may wrap
  typedef std::make_unsigned_t<Integer> Bits __attribute__((vector_size(kVectorBytes)));

  static Vector load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(T* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static Vector broadcast(T value) { return value - Vector{}; }
  static Vector max(Vector a, Vector b) { return a > b ? a : b; }
  static Vector min(Vector a, Vector b) { return a < b ? a : b; }

  static T horizontal_max(Vector v) {
    T largest = v[0];
    for (int i = 1; i < width; ++i) largest = v[i] > largest ? v[i] : largest;
    return largest;
  }
  // halves are added to halves, so that the compiler can shuffle instead of reading lane after lane
  static T horizontal_sum(Vector v) {
    T lane[width];
    store(lane, v);
    for (int half = width / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    return lane[0];
  }
  // Return a mask with one bit for each lane, set where a >= b.
  static uint32_t greater_equal(Vector a, Vector b)
    requires std::is_same_v<T, float>
  {
#if defined(MODALIGN_ISA_avx512)
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), _CMP_GE_OQ);
#elif defined(MODALIGN_ISA_avx2)
    return static_cast<uint32_t>(
        _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_GE_OQ)));
#else
    const Mask mask = a >= b;
    uint32_t bits = 0;
    for (int i = 0; i < width; ++i) bits |= static_cast<uint32_t>(mask[i] & 1) << i;
    return bits;
#endif
  }
};

#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
#define MODALIGN_EIGHT
typedef float Eight __attribute__((vector_size(32)));
typedef int EightIntegers __attribute__((vector_size(32)));
typedef float EightUnaligned __attribute__((vector_size(32), aligned(4), may_alias));

// Transpose eight vectors of eight floats.
inline void transpose(Eight (&v)[8]) {
  Eight a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    a[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; ++k) {
      b[i + 2 * k] = __builtin_shufflevector(a[i + k], a[i + 2 + k], 0, 1, 8, 9, 4, 5, 12, 13);
      b[i + 2 * k + 1] = __builtin_shufflevector(a[i + k], a[i + 2 + k], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; ++i) {
    v[i] = __builtin_shufflevector(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#endif

// exp(x) for x <= 0, within 2 units in the last place. Where exp(x) is below the smallest normal number the result is
// about that number, which vanishes in any sum that contains exp(0). With x = n log 2 + r and |r| <= log 2 / 2, it is a
// polynomial of r times 2^n, which comes from an instruction where there is one, else from the bits of the exponent.
template <class T>
struct Exp;

template <>
struct Exp<float> {
  using S = Simd<float>;
  static constexpr float lowest = -87.33654f;  // the logarithm of the smallest normal number
  static S::Vector of(S::Vector x) {
    x = S::max(x, S::broadcast(lowest));
#if defined(MODALIGN_ISA_avx512)
    const __m512 wide = reinterpret_cast<__m512>(x * 1.44269504f);
    const S::Vector n = reinterpret_cast<S::Vector>(_mm512_roundscale_ps(wide, _MM_FROUND_NO_EXC));
#else
    const S::Vector shifter = S::broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const S::Vector rounded = x * 1.44269504f + shifter;
    const S::Vector n = rounded - shifter;
#endif
    S::Vector r = x - n * 0.693359375f;  // log 2 in two parts, the first short enough for n * part to be exact
    r = r - n * -2.12194440e-4f;
    // the minimax polynomial of this degree with exp(0) = 1; its relative error is at most 2e-9
    S::Vector p = S::broadcast(1.38436444e-3f);
    p = p * r + 8.37416295e-3f;
    p = p * r + 4.16680016e-2f;
    p = p * r + 1.66664317e-1f;
    p = p * r + 4.99999940e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
#if defined(MODALIGN_ISA_avx512)
    return reinterpret_cast<S::Vector>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
    const S::Bits bits = (reinterpret_cast<S::Bits>(rounded) << 23) + (uint32_t{127} << 23);
    return p * reinterpret_cast<S::Vector>(bits);
#endif
  }
};

template <>
struct Exp<double> {
  using S = Simd<double>;
  static constexpr double lowest = -708.396418532264;
  static S::Vector of(S::Vector x) {
    x = S::max(x, S::broadcast(lowest));
    const S::Vector shifter = S::broadcast(6755399441055744.0);  // 1.5 * 2^52
    const S::Vector rounded = x * 1.4426950408889634 + shifter;
    const S::Vector n = rounded - shifter;
    S::Vector r = x - n * 6.93145751953125e-1;
    r = r - n * 1.42860682030941723212e-6;
    S::Vector p = S::broadcast(1.0 / 87178291200.0);  // 1 / 14!
    double factorial = 6227020800.0;                  // 13!
    for (int term = 13; term >= 1; --term) {
      p = p * r + 1.0 / factorial;
      factorial /= term;
    }
    p = p * r + 1.0;
    const S::Bits bits = (reinterpret_cast<S::Bits>(rounded) << 52) + (uint64_t{1023} << 52);
    return p * reinterpret_cast<S::Vector>(bits);
  }
};

}  // namespace modalign::MODALIGN_ISA
