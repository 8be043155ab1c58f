// Rows as the knn screen sees them: in few bits, with a proved bound of what that lost.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/shared/tiles.hpp"

namespace modalign {

// For code^ = scale * code and y the row itself: norm >= |y| and |code^|, error >= |code^ - y| and half of what the
// screen's own arithmetic can lose, over norm. Hence |<code^_i, code^_j>, as computed, - <y_i, y_j>| <= norm_i error_j
// + error_i norm_j.
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
  // writes row_bytes of codes for y [d], which it overwrites
  CodeFacts code(double* y, void* out) const;
  // the greatest loss of a row of length 1 whose entries are alike, for estimates
  static double typical_error(Precision precision, int64_t d);

 private:
  void rotate(double* y) const;
  Precision precision_;
  int64_t d_, words_;
  std::vector<double> sign_;  // int8 alone
};

}  // namespace modalign
