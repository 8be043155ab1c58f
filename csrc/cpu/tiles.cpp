// Tile kernels for one instruction set (MODALIGN_ISA names it): packing, the register-tiled product, and what each
// operation does with a piece of the similarity matrix while it is in the cache.
//
//   packed operands     left  [panel][d][row_panel]     right [panel][d][col_panel]
//   product             row_panel x col_panel accumulators in registers, one broadcast of left a row and step
//   info_nce forward    a strip of row_panel x kGroup logits -> running maximum and sum of its rows and columns
//   info_nce backward   weight_rows x weight_cols of dL/dS from recomputed logits, then two products with it
//   knn screen          row_panel x col_panel scores, one comparison each, survivors handed to the caller
#include "cpu/tiles.hpp"

#include <type_traits>

#include "cpu/simd.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int kRows = kRegisterRows;
constexpr int64_t kGroup = 256;  // columns of a forward strip: kRows x 256 floats stay in the first-level cache
constexpr int64_t kWeightRows = 96, kWeightCols = 192;
static_assert(kWeightRows % kRows == 0 && kWeightCols % kRows == 0 && kStripeMultiple % kRows == 0);

template <class T>
constexpr int kCols = 2 * Simd<T>::width;

template <class T>
constexpr T kNever = sizeof(T) == 4 ? static_cast<T>(-3.40282347e+38) : static_cast<T>(-1.7976931348623157e+308);

// acc[r] += sum over depth of a[r * row_stride + k * depth_stride] * b[k * kCols .. ]
template <class T, int64_t row_stride, int64_t depth_stride>
__attribute__((always_inline)) inline void product(const T* a, const T* b, int64_t depth,
                                                   typename Simd<T>::Vector (&acc)[kRows][2]) {
  using S = Simd<T>;
  for (int64_t k = 0; k < depth; ++k) {
    const typename S::Vector b0 = S::load(b), b1 = S::load(b + S::width);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const typename S::Vector value = S::broadcast(a[r * row_stride]);
      acc[r][0] += value * b0;
      acc[r][1] += value * b1;
    }
    a += depth_stride;
    b += kCols<T>;
  }
}

// out[r * ld ..] = scale * (left panel) . (right panel)
template <class T>
__attribute__((noinline)) void logits_tile(const T* left, const T* right, int64_t d, T scale, T* out, int64_t ld) {
  using S = Simd<T>;
  typename S::Vector acc[kRows][2] = {};
  product<T, 1, kRows>(left, right, d, acc);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    S::store(out + r * ld, acc[r][0] * scale);
    S::store(out + r * ld + S::width, acc[r][1] * scale);
  }
}

// out[r, .. cols) += sum over depth of a_rk b_k, for the first `rows` rows
template <class T, int64_t row_stride, int64_t depth_stride>
__attribute__((noinline)) void accumulate_tile(const T* a, const T* b, int64_t depth, T* out, int64_t ld, int64_t rows,
                                               int64_t cols) {
  using S = Simd<T>;
  typename S::Vector acc[kRows][2] = {};
  product<T, row_stride, depth_stride>(a, b, depth, acc);
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
inline T value(BFloat16 x) {
  return static_cast<T>(as_float(static_cast<uint32_t>(x.bits) << 16));
}
template <class T>
inline T value(Half x) {
  // exponent and mantissa moved to a float's places, then scaled by 2^112: exact, subnormals included
  const float magnitude = as_float(static_cast<uint32_t>(x.bits & 0x7fff) << 13) * 5.192296858534828e33f;
  return static_cast<T>((x.bits & 0x8000) ? -magnitude : magnitude);
}

template <class T, class Source, int width>
void pack_panels(const Source* source, int64_t rows, int64_t d, const double* row_factor, T* out) {
  for (int64_t start = 0; start < rows; start += width) {
    const int64_t filled = rows - start < width ? rows - start : width;
    for (int64_t r = 0; r < filled; ++r) {
      const Source* row = source + (start + r) * d;
      if (row_factor) {
        // in double, as a power of two may lift a float64 into float's range
        const double factor = row_factor[start + r];
        for (int64_t c = 0; c < d; ++c) out[c * width + r] = static_cast<T>(value<double>(row[c]) * factor);
      } else {
        for (int64_t c = 0; c < d; ++c) out[c * width + r] = value<T>(row[c]);
      }
    }
    for (int64_t r = filled; r < width; ++r)
      for (int64_t c = 0; c < d; ++c) out[c * width + r] = 0;
    out += d * width;
  }
}

template <class T, class Source>
void pack_feature_panels(const Source* source, int64_t rows, int64_t d, int64_t padded_rows, T* out) {
  for (int64_t start = 0; start < d; start += kCols<T>) {
    const int64_t filled = d - start < kCols<T> ? d - start : kCols<T>;
    for (int64_t r = 0; r < padded_rows; ++r, out += kCols<T>) {
      for (int64_t c = 0; c < kCols<T>; ++c)
        out[c] = r < rows && c < filled ? value<T>(source[r * d + start + c]) : T(0);
    }
  }
}

// calls f with the rows' first element, typed
template <class F>
void with_source(Rows rows, F f) {
  const int64_t offset = rows.start * rows.d;
  switch (rows.dtype) {
    case Dtype::float16:
      return f(static_cast<const Half*>(rows.data) + offset);
    case Dtype::bfloat16:
      return f(static_cast<const BFloat16*>(rows.data) + offset);
    case Dtype::float32:
      return f(static_cast<const float*>(rows.data) + offset);
    case Dtype::float64:
      return f(static_cast<const double*>(rows.data) + offset);
  }
}

template <class T, int width>
void pack(Rows rows, const double* row_factor, T* out) {
  with_source(rows, [&](const auto* source) {
    pack_panels<T, std::remove_cvref_t<decltype(*source)>, width>(source, rows.rows, rows.d, row_factor, out);
  });
}

template <class T>
void pack_features(Rows rows, int64_t padded_rows, T* out) {
  with_source(rows, [&](const auto* source) {
    pack_feature_panels<T, std::remove_cvref_t<decltype(*source)>>(source, rows.rows, rows.d, padded_rows, out);
  });
}

// running (maximum, sum of exp(value - maximum)) over one more run of values
template <class T>
void add_row(const T* values, int64_t padded, T* running_max, T* running_sum) {
  using S = Simd<T>;
  typename S::Vector best = S::load(values);
  for (int64_t c = S::width; c < padded; c += S::width) best = S::max(best, S::load(values + c));
  T new_max = S::horizontal_max(best);
  new_max = new_max > *running_max ? new_max : *running_max;
  typename S::Vector sum = {};
  for (int64_t c = 0; c < padded; c += S::width) sum += Exp<T>::of(S::load(values + c) - new_max);
  const T rescale = Exp<T>::of(S::broadcast(*running_max - new_max))[0];
  *running_sum = *running_sum * rescale + S::horizontal_sum(sum);
  *running_max = new_max;
}

// the same for `width` columns at once, over the rows of a strip
template <class T>
void add_columns(const T* values, int64_t ld, int64_t rows, T* running_max, T* running_sum) {
  using S = Simd<T>;
  const typename S::Vector old_max = S::load(running_max);
  typename S::Vector new_max = old_max;
  for (int64_t r = 0; r < rows; ++r) new_max = S::max(new_max, S::load(values + r * ld));
  typename S::Vector sum = S::load(running_sum) * Exp<T>::of(old_max - new_max);
  for (int64_t r = 0; r < rows; ++r) sum += Exp<T>::of(S::load(values + r * ld) - new_max);
  S::store(running_max, new_max);
  S::store(running_sum, sum);
}

template <class T>
void forward(const T* left, const T* right, const ForwardBlock<T>& block) {
  using S = Simd<T>;
  alignas(64) T strip[kRows * kGroup];
  for (int64_t group = 0; group < block.cols; group += kGroup) {
    const int64_t cols = block.cols - group < kGroup ? block.cols - group : kGroup;
    const int64_t padded = (cols + kCols<T> - 1) / kCols<T> * kCols<T>;
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
      for (int64_t c = 0; c < padded; c += kCols<T>)
        logits_tile(left + row * block.d, right + (group + c) * block.d, block.d, block.scale, strip + c, kGroup);
      for (int64_t r = 0; r < rows; ++r) {
        T* logits = strip + r * kGroup;
        const int64_t pair = row + r + block.diagonal_shift - group;  // the column of this row's pair in the strip
        if (pair >= 0 && pair < cols) block.positive[row + r] = logits[pair];
        for (int64_t c = cols; c < padded; ++c) logits[c] = kNever<T>;
        add_row(logits, padded, block.row_max + row + r, block.row_sum + row + r);
      }
      for (int64_t c = 0; c < padded; c += S::width)
        add_columns(strip + c, kGroup, rows, block.col_max + group + c, block.col_sum + group + c);
    }
  }
}

// weights_ij = scale * dL/dS_ij of kWeightRows x kWeightCols from their logits, in place
template <class T>
void weigh(T* weights, int64_t row, int64_t group, int64_t rows, int64_t cols, int64_t padded,
           const BackwardBlock<T>& block) {
  using S = Simd<T>;
  for (int64_t r = 0; r < rows; ++r) {
    T* line = weights + r * kWeightCols;
    const T lse = block.row_lse[row + r];
    const T grad = block.grad_row[row + r] * block.scale;
    for (int64_t c = cols; c < padded; ++c) line[c] = kNever<T>;
    for (int64_t c = 0; c < padded; c += S::width) {
      const typename S::Vector logit = S::load(line + c);
      const typename S::Vector by_row = Exp<T>::of(logit - lse) * grad;
      const typename S::Vector by_col = Exp<T>::of(logit - S::load(block.col_lse + group + c));
      S::store(line + c, by_row + by_col * (S::load(block.grad_col + group + c) * block.scale));
    }
    const int64_t pair = row + r + block.diagonal_shift - group;
    if (pair >= 0 && pair < cols) line[pair] += block.grad_positive[row + r] * block.scale;
  }
  for (int64_t r = rows; r < (rows + kRows - 1) / kRows * kRows; ++r)
    for (int64_t c = 0; c < padded; ++c) weights[r * kWeightCols + c] = 0;
}

template <class T>
void backward(const T* left, const T* right, const T* left_features, const T* right_features, int64_t padded_rows,
              const BackwardBlock<T>& block) {
  T* weights = block.weights;
  for (int64_t group = 0; group < block.cols; group += kWeightCols) {
    const int64_t cols = block.cols - group < kWeightCols ? block.cols - group : kWeightCols;
    const int64_t padded = (cols + kCols<T> - 1) / kCols<T> * kCols<T>;
    for (int64_t row = 0; row < block.rows; row += kWeightRows) {
      const int64_t rows = block.rows - row < kWeightRows ? block.rows - row : kWeightRows;
      for (int64_t r = 0; r < rows; r += kRows)
        for (int64_t c = 0; c < padded; c += kCols<T>)
          logits_tile(left + (row + r) * block.d, right + (group + c) * block.d, block.d, block.scale,
                      weights + r * kWeightCols + c, kWeightCols);
      weigh(weights, row, group, rows, cols, padded, block);
      for (int64_t c = 0; c < block.d; c += kCols<T>) {
        // dx += weights . y and dy += weights' . x, for one panel of features
        const T* y = right_features + (c / kCols<T> * padded_rows + group) * kCols<T>;
        for (int64_t r = 0; r < rows; r += kRows)
          accumulate_tile<T, kWeightCols, 1>(weights + r * kWeightCols, y, cols, block.dx + (row + r) * block.d + c,
                                             block.d, rows - r, block.d - c);
        const T* x = left_features + (c / kCols<T> * padded_rows + row) * kCols<T>;
        for (int64_t r = 0; r < cols; r += kRows)
          accumulate_tile<T, 1, kWeightCols>(weights + r, x, rows, block.dy + (group + r) * block.d + c, block.d,
                                             cols - r, block.d - c);
      }
    }
  }
}

// offers the candidates of one register of upper bounds that reach their searcher's threshold
template <class Searcher, class Candidate>
__attribute__((always_inline)) inline void offer(const ScreenBlock& block, Simd<float>::Vector upper,
                                                 Simd<float>::Vector threshold, int64_t lanes, Searcher searcher,
                                                 Candidate candidate) {
  using S = Simd<float>;
  if (!S::any(upper >= threshold)) return;
  for (int64_t lane = 0; lane < S::width && lane < lanes; ++lane)
    if (upper[lane] >= block.threshold[searcher(lane)])
      block.offer(block.context, searcher(lane), candidate(lane), upper[lane]);
}

void screen(const float* left, const float* right, const ScreenBlock& block) {
  using S = Simd<float>;
  constexpr int cols = kCols<float>;
  alignas(64) float scores[kRows * cols];
  for (int64_t col = 0; col < block.cols; col += cols) {
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
      logits_tile(left + row * block.d, right + col * block.d, block.d, 1.0f, scores, cols);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = block.row_start + row + r;
        for (int64_t c = 0; c < cols; c += S::width) {
          const int64_t j = block.col_start + col + c, lanes = block.cols - col - c;
          const S::Vector score = S::load(scores + r * cols + c);
          offer(
              block, score * S::load(block.a + j) + (S::load(block.b + j) + S::load(block.e + j) * block.r[i]),
              S::broadcast(block.threshold[i]), lanes, [&](int64_t) { return i; },
              [&](int64_t lane) { return j + lane; });
          if (block.both_sides)
            offer(
                block, score * block.a[i] + (S::load(block.r + j) * block.e[i] + block.b[i]),
                S::load(block.threshold + j), lanes, [&](int64_t lane) { return j + lane; },
                [&](int64_t) { return i; });
        }
      }
    }
  }
}

}  // namespace

template <class T>
Tiles<T> make_tiles() {
  Tiles<T> tiles{};
  tiles.row_panel = kRows;
  tiles.col_panel = kCols<T>;
  tiles.weight_rows = kWeightRows;
  tiles.weight_cols = kWeightCols;
  tiles.pack_left = pack<T, kRows>;
  tiles.pack_right = pack<T, kCols<T>>;
  tiles.pack_features = pack_features<T>;
  tiles.forward = forward<T>;
  tiles.backward = backward<T>;
  if constexpr (sizeof(T) == 4) tiles.screen = screen;
  return tiles;
}
template Tiles<float> make_tiles<float>();
template Tiles<double> make_tiles<double>();

}  // namespace modalign::MODALIGN_ISA
