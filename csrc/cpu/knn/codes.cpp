// int16 codes are as long as sums of their products in int32 allow, whatever d is: by Cauchy and Schwarz no part of
// <code_i, code_j> is above the product of the norms. int8 codes are of rotated rows: a random reflection of every
// feature, then Hadamard matrices of powers of two along the diagonal. Inner products stay, large features are spread
// over many, and the largest entry, which sets the unit of a row's code, shrinks.
#include "cpu/knn/codes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace modalign {
namespace {

constexpr double kUnit = 0x1p-24;   // float32 rounding
constexpr double kLongest = 46340;  // of int16 codes: no sum of products of two of them is above 2^31 - 1

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
      return 0.008;  // entries of a normal distribution, the largest 3.5 standard deviations
    case Precision::int16:
      return std::sqrt(static_cast<double>(d) / 12) / kLongest;  // an entry is half a unit off at most
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
    double* part = y + start;
    for (int64_t half = 1; half < size; half *= 2)
      for (int64_t i = 0; i < size; i += 2 * half)
        for (int64_t k = i; k < i + half; ++k) {
          const double one = part[k], two = part[k + half];
          part[k] = one + two;
          part[k + half] = one - two;
        }
    const double norm = 1 / std::sqrt(static_cast<double>(size));
    for (int64_t c = 0; c < size; ++c) part[c] *= norm;
  }
}

CodeFacts Coding::code(double* y, void* out) const {
  CodeFacts facts{1, 0, 0, 0};
  double squares = 0, coded_squares = 0, lost_squares = 0;
  const auto account = [&](double exact, double coded) {
    squares += exact * exact;
    coded_squares += coded * coded;
    lost_squares += (exact - coded) * (exact - coded);
  };
  // the largest entry, and in the same pass the sum of squares
  const auto largest = [&] {
    double most = 0;
    for (int64_t c = 0; c < d_; ++c) squares += y[c] * y[c], most = std::max(most, std::abs(y[c]));
    return most;
  };
  // the unit in which no entry is above `most`, and in which the norm of the code, at most that of the row and half a
  // unit an entry for rounding, keeps products of two codes within 32 bits
  const auto unit = [&](double most) {
    const double longest = kLongest - 1 - std::sqrt(static_cast<double>(d_)) / 2, entry = largest();
    return std::max(entry / most, std::sqrt(squares) / longest);
  };
  // whole numbers of a unit, none above `most`; gives their sum
  const auto in_units = [&]<class Integer>(double unit, double most, Integer* code) {
    facts.scale = static_cast<float>(unit);
    if (facts.scale < 0x1p-100f) facts.scale = 0;
    const double inverse = facts.scale > 0 ? 1 / static_cast<double>(facts.scale) : 0;
    int32_t sum = 0;
    for (int64_t c = 0; c < d_; ++c) {
      // adding 1.5 * 2^52 rounds to an integer; the unit itself is rounded, so the largest entry may be just above
      const double near = std::clamp(y[c] * inverse, -most, most) + 0x1.8p52 - 0x1.8p52;
      const auto number = static_cast<int32_t>(near);
      code[c] = static_cast<Integer>(number);
      sum += number;
      const double coded = number * static_cast<double>(facts.scale);
      coded_squares += coded * coded;
      lost_squares += (y[c] - coded) * (y[c] - coded);
    }
    std::fill(code + d_, code + row_bytes() / static_cast<int64_t>(sizeof(Integer)), Integer{0});
    return sum;
  };
  // the terms of one side of a product: half of d roundings, and eight more of what is done with it
  double rounding = 8 * kUnit;
  switch (precision_) {
    case Precision::float32: {
      auto* code = static_cast<float*>(out);
      for (int64_t c = 0; c < d_; ++c) account(y[c], code[c] = static_cast<float>(y[c]));
      rounding += static_cast<double>(d_) * kUnit / 2;
      break;
    }
    case Precision::bfloat16: {
      auto* code = static_cast<uint16_t*>(out);
      for (int64_t c = 0; c < d_; ++c) {
        code[c] = bfloat16_of(static_cast<float>(y[c]));
        account(y[c], float_of(code[c]));
      }
      std::fill(code + d_, code + 2 * words_, uint16_t{0});
      rounding += static_cast<double>(d_) * kUnit / 2;
      break;
    }
    case Precision::int16:
      in_units(unit(32767), 32767, static_cast<int16_t*>(out));
      break;
    case Precision::int8: {
      rotate(y);
      // added to sums that may wrap, as they do
      const auto sum = static_cast<uint32_t>(in_units(unit(127), 127, static_cast<int8_t*>(out)));
      facts.offset = static_cast<int32_t>(-128 * sum);
      rounding += 0x1p-40;  // of the rotation
      break;
    }
  }
  const double norm = 1.000001 * std::sqrt(std::max(squares, coded_squares));
  facts.norm = rounded_up(norm);
  facts.error = rounded_up(1.000001 * (std::sqrt(lost_squares) + 1.05 * rounding * norm));
  return facts;
}

}  // namespace modalign
