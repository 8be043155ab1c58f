// Rows in the low precision of the screen, with a proved bound of the error.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/knn/screen.hpp"

namespace modalign {

// Let y be a row and code^ = scale * code. Then norm >= |y| and norm >= |code^|, and error is at least |code^ - y| plus
// half of the rounding error that the arithmetic of the screen can add, per unit of the other norm. Hence the product
// <code^_i, code^_j>, as computed, differs from <y_i, y_j> by at most norm_i error_j + error_i norm_j.
struct CodeFacts {
  float scale;
  int32_t offset;
  float norm, error;
};

class Coding {
 public:
  Coding(Precision precision, int64_t d);
  int64_t words() const { return words_; }
  int64_t row_bytes() const { return words_ * 4; }

  // Write the code (row_bytes) of y [d], which is overwritten.
  CodeFacts code(double* y, void* out) const;

  // The error of a row of length 1 whose entries have similar magnitudes, for estimates of the cost.
  static double typical_error(Precision precision, int64_t d);

 private:
  struct SquareSums;
  void code_float32(const double* y, float* code, SquareSums& sums) const;
  void code_bfloat16(const double* y, uint16_t* code, SquareSums& sums) const;
  template <class Integer>
  int32_t code_integers(const double* y, Integer* code, SquareSums& sums, float& scale) const;
  void rotate(double* y) const;
  Precision precision_;
  int64_t d_, words_;
  std::vector<double> sign_;  // for int8 alone
};

}  // namespace modalign
