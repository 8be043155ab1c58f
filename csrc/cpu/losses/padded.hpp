// Values of rows or columns in the layout that tile kernels read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace modalign {

// n rows in stripes of whole panels, as many panels in each stripe as in any other, or one less: the threads of a phase
// end together.
struct Cut {
  int64_t n, multiple, count;
  int64_t panels() const { return (n + multiple - 1) / multiple; }
  int64_t start(int64_t stripe) const { return panels() * stripe / count * multiple; }
  int64_t rows(int64_t stripe) const { return std::min(start(stripe + 1), n) - start(stripe); }
  int64_t largest() const { return (panels() + count - 1) / count * multiple; }
  int64_t padded() const { return panels() * multiple; }
};

// [problems, n] values, each problem padded to whole panels; empty if there are no values.
template <class T>
class Padded {
 public:
  template <class Source>
  Padded(const Source* values, int64_t problems, const Cut& cut, T beyond) : width_(cut.padded()) {
    if (!values) return;
    padded_.assign(problems * width_, beyond);
    for (int64_t problem = 0; problem < problems; ++problem)
      for (int64_t i = 0; i < cut.n; ++i) padded_[problem * width_ + i] = static_cast<T>(values[problem * cut.n + i]);
  }
  Padded(int64_t problems, const Cut& cut, T value) : width_(cut.padded()), padded_(problems * width_, value) {}

  // The address of row i of a problem, or null if there are no values.
  T* pointer(int64_t problem, int64_t i) { return padded_.empty() ? nullptr : &padded_[problem * width_ + i]; }

  void each(auto change) {
    for (T& value : padded_) change(value);
  }

 private:
  int64_t width_;
  std::vector<T> padded_;
};

// Ids as small integers: equal where they were equal, -1 where they were negative.
class Ids {
 public:
  Ids(const int64_t* row, int64_t rows, const int64_t* col, int64_t cols) {
    if (!row) return;
    std::vector<int64_t> known(row, row + rows);
    known.insert(known.end(), col, col + cols);
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    const auto compact = [&](const int64_t* ids, int64_t count) {
      std::vector<int32_t> numbers(count);
      for (int64_t i = 0; i < count; ++i) {
        const auto place = std::lower_bound(known.begin(), known.end(), ids[i]) - known.begin();
        numbers[i] = ids[i] < 0 ? -1 : static_cast<int32_t>(place);
      }
      return numbers;
    };
    row_ = compact(row, rows);
    col_ = compact(col, cols);
  }
  const int32_t* row() const { return row_.empty() ? nullptr : row_.data(); }
  const int32_t* col() const { return col_.empty() ? nullptr : col_.data(); }

 private:
  std::vector<int32_t> row_, col_;
};

}  // namespace modalign
