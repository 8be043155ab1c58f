// int16 codes are as long as sums of their products in int32 allow, whatever d is: by the Cauchy-Schwarz inequality no
// partial sum of <code_i, code_j> exceeds the product of the norms. int8 codes are those of rotated rows: a random
// reflection of every feature, then Hadamard matrices of powers of two along the diagonal. The rotation keeps inner
// products and spreads large features over many, so that the largest entry, which sets the unit of a code, shrinks.
#include "cpu/knn/codes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace modalign {
namespace {

constexpr double kUnit = 0x1p-24;   // the relative rounding error of float32
constexpr double kLongest = 46340;  // the norm of an integer code: sums of products of two codes stay below 2^31

float rounded_up(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }

uint16_t bfloat16_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
float float_of(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

}  // namespace

Coding::Coding(Precision precision, int64_t d) : precision_(precision), d_(d) {
  const int64_t per_word = precision == Precision::int8 ? 4 : precision == Precision::float32 ? 1 : 2;
  words_ = (d + per_word - 1) / per_word;
  if (precision != Precision::int8) return;
  uint64_t state = 0x9e3779b97f4a7c15;
  for (int64_t c = 0; c < d; ++c) {
    state = state * 6364136223846793005 + 1442695040888963407;
    sign_.push_back(state >> 63 ? 1.0 : -1.0);
  }
}

double Coding::typical_error(Precision precision, int64_t d) {
  switch (precision) {
    case Precision::int8:
      return 0.008;  // for normally distributed entries, the largest 3.5 standard deviations
    case Precision::int16:
      return std::sqrt(static_cast<double>(d) / 12) / kLongest;  // entries are off by at most half a unit
    case Precision::bfloat16:
      return 0.0017 + static_cast<double>(d) * kUnit / 2;
    case Precision::float32:
      return static_cast<double>(d) * kUnit / 2;
  }
  return 0;
}

void Coding::rotate(double* y) const {
  for (int64_t c = 0; c < d_; ++c) y[c] *= sign_[c];
  for (int64_t start = 0, size; start < d_; start += size) {
    size = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(d_ - start)));
    double* block = y + start;
    for (int64_t half = 1; half < size; half *= 2)
      for (int64_t i = 0; i < size; i += 2 * half)
        for (int64_t k = i; k < i + half; ++k) {
          const double first = block[k], second = block[k + half];
          block[k] = first + second;
          block[k + half] = first - second;
        }
    const double norm = 1 / std::sqrt(static_cast<double>(size));
    for (int64_t c = 0; c < size; ++c) block[c] *= norm;
  }
}

struct Coding::SquareSums {
  double exact = 0, coded = 0, lost = 0;
  void add(double value, double code) {
    exact += value * value;
    coded += code * code;
    lost += (value - code) * (value - code);
  }
};

void Coding::code_float32(const double* y, float* code, SquareSums& sums) const {
  for (int64_t c = 0; c < d_; ++c) sums.add(y[c], code[c] = static_cast<float>(y[c]));
}

void Coding::code_bfloat16(const double* y, uint16_t* code, SquareSums& sums) const {
  for (int64_t c = 0; c < d_; ++c) {
    code[c] = bfloat16_of(static_cast<float>(y[c]));
    sums.add(y[c], float_of(code[c]));
  }
  std::fill(code + d_, code + 2 * words_, uint16_t{0});
}

// Code y in whole multiples of `scale`, and return their sum. In this unit no entry exceeds the integer type, and the
// norm of the code, which is at most that of the row and half a unit an entry for rounding, keeps the products of two
// codes within 32 bits.
template <class Integer>
int32_t Coding::code_integers(const double* y, Integer* code, SquareSums& sums, float& scale) const {
  constexpr double kMost = std::numeric_limits<Integer>::max();
  const double longest = kLongest - 1 - std::sqrt(static_cast<double>(d_)) / 2;
  double largest = 0;
  for (int64_t c = 0; c < d_; ++c) sums.exact += y[c] * y[c], largest = std::max(largest, std::abs(y[c]));
  scale = static_cast<float>(std::max(largest / kMost, std::sqrt(sums.exact) / longest));
  if (scale < 0x1p-100f) scale = 0;
  const double unit = static_cast<double>(scale), inverse = scale > 0 ? 1 / unit : 0;
  int32_t sum = 0;
  for (int64_t c = 0; c < d_; ++c) {
    // adding 1.5 * 2^52 rounds to an integer; the unit itself is rounded, so the largest entry may be just above kMost
    const double rounded = std::clamp(y[c] * inverse, -kMost, kMost) + 0x1.8p52 - 0x1.8p52;
    const auto number = static_cast<int32_t>(rounded);
    code[c] = static_cast<Integer>(number);
    sum += number;
    const double coded = number * unit;
    sums.coded += coded * coded;
    sums.lost += (y[c] - coded) * (y[c] - coded);
  }
  std::fill(code + d_, code + row_bytes() / static_cast<int64_t>(sizeof(Integer)), Integer{0});
  return sum;
}

CodeFacts Coding::code(double* y, void* out) const {
  CodeFacts facts{.scale = 1, .offset = 0, .norm = 0, .error = 0};
  SquareSums sums;
  // the terms of one side of a product: half of its d roundings, and eight more of the arithmetic that follows
  double rounding = 8 * kUnit;
  switch (precision_) {
    case Precision::float32:
      code_float32(y, static_cast<float*>(out), sums);
      rounding += static_cast<double>(d_) * kUnit / 2;
      break;
    case Precision::bfloat16:
      code_bfloat16(y, static_cast<uint16_t*>(out), sums);
      rounding += static_cast<double>(d_) * kUnit / 2;
      break;
    case Precision::int16:
      code_integers(y, static_cast<int16_t*>(out), sums, facts.scale);
      break;
    case Precision::int8: {
      rotate(y);
      // unsigned, because the sums that it is added to may wrap too
      const auto sum = static_cast<uint32_t>(code_integers(y, static_cast<int8_t*>(out), sums, facts.scale));
      facts.offset = static_cast<int32_t>(-128 * sum);
      rounding += 0x1p-40;  // of the rotation
      break;
    }
  }
  const double norm = 1.000001 * std::sqrt(std::max(sums.exact, sums.coded));
  facts.norm = rounded_up(norm);
  facts.error = rounded_up(1.000001 * (std::sqrt(sums.lost) + 1.05 * rounding * norm));
  return facts;
}

}  // namespace modalign
