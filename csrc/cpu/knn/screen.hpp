// The screen of knn: upper bounds of scores from codes in low precision, for one block of pairs at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cpu/shared/types.hpp"

namespace modalign {

enum class Precision : int { float32, bfloat16, int16, int8 };

// One side of a block: facts about its codes (see codes.hpp). All arrays may be read up to the next whole panel; beyond
// the last row, shift is NaN and threshold +inf, so that nothing is offered to or from rows that do not exist.
struct ScreenSide {
  int64_t rows;
  const float* scale;     // the unit of a row's code
  const int32_t* offset;  // initial value of the sums of int8 products
  const float* norm;
  const float* error;
  const float* shift;
  const float* threshold;  // the k-th best score of the row so far, in the units of the screen; `offer` raises it
};

// upper_ij = scale_i scale_j <code_i, code_j> + norm_i error_j + error_i norm_j + shift_j is an upper bound of the
// score that row i gives row j. Where it reaches the threshold of i, j is offered to i.
struct ScreenBlock {
  int64_t words;  // in a row of codes
  ScreenSide left, right;
  bool left_searches, right_searches;
  bool triangle;  // both sides are the same rows: each pair is screened once, where i < j
  void (*offer)(void* context, bool right_searches, int64_t searcher, int64_t candidate, float upper);
  void* context;
};

// The kernels of the screen in one precision. Codes are rows of words of 32 bits; a word is one float, two bfloat16,
// two int16 or four int8 numbers. The packers may write kPackedBeyond bytes beyond the last panel.
struct ScreenTiles {
  int64_t row_panel, col_panel;
  void (*pack_left)(const void* codes, int64_t rows, int64_t words, void* out);
  void (*pack_right)(const void* codes, int64_t rows, int64_t words, void* out);
  void (*screen)(const void* left, const void* right, const ScreenBlock& block);
};

// The precisions that the instruction set in use has.
std::vector<Precision> screen_precisions();
std::string precision_name(Precision precision);

// The precision that use_screen named, or nothing if each search chooses the cheapest.
std::optional<Precision> forced_screen();

// Force a precision by name, or "auto". Throws std::invalid_argument if the instruction set in use lacks it.
void use_screen(const std::string& name);

// Return to "auto" if the instruction set in use lacks the forced precision; called after the instruction set changes.
void forget_missing_screen();

// The kernels of the instruction set in use, which must have this precision.
ScreenTiles screen_tiles(Precision precision);

}  // namespace modalign
