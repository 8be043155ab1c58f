// The losses' tile kernels for one instruction set (MODALIGN_ISA names it): what each does with a piece of the
// similarity matrix while it is in the cache.
//
//   info_nce forward    a strip of kRows x kGroup logits -> running maximum and sum of its rows and columns
//   sigmoid forward     the same strip -> sums of log(1 + exp(-z t))
//   backward of both    a few hundred rows x kWeightCols of W from recomputed or stored logits, then two products with
//   it
#include "cpu/losses/loss_sums.hpp"
#include "cpu/shared/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int64_t kWeightCols = 192;
static_assert(kWeightCols % kRows == 0 && kWeightCols % kCols<float> == 0);

template <class T>
int64_t whole_panels(int64_t cols) {
  return (cols + kCols<T> - 1) / kCols<T> * kCols<T>;
}

// kRows logits by `cols`, of rows from `row` and columns from `col` of the block, into out; or from what is stored
template <class P>
void logits_strip(const typename P::Word* left, const typename P::Word* right, int64_t depth, int64_t row, int64_t col,
                  int64_t cols, const Block<typename P::Sum>& block, typename P::Sum* out, int64_t ld) {
  using T = typename P::Sum;
  for (int64_t c = 0; c < cols; c += kCols<T>)
    logits_tile<P>(left + row * depth, right + (col + c) * depth, depth, block.scale + row, out + c, ld);
}

// where column ids let entry (i, j) count for this row
template <class T>
typename Simd<T>::Mask counted(typename IntegerOf<T>::type own, const typename IntegerOf<T>::type* others, Mask mask) {
  using S = Simd<T>;
  using Ids = typename S::Mask;
  typedef typename IntegerOf<T>::type Unaligned
      __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
  const Ids ids = *reinterpret_cast<const Unaligned*>(others);
  const Ids none = {};
  if (own < 0) return none;
  Ids keep = ids >= 0;
  if (mask == Mask::same) keep &= ids != own;
  if (mask == Mask::different) keep &= ids == own;
  return keep;
}

// sets what a row leaves out of `cols` logits from column `col` on to kNever, and what lies beyond the last column
template <class T>
void leave_out(T* logits, int64_t row, int64_t col, int64_t cols, int64_t padded, const Block<T>& block) {
  using S = Simd<T>;
  if (block.row_id)
    for (int64_t c = 0; c < padded; c += S::width)
      S::store(logits + c, where<T>(counted<T>(block.row_id[row], block.col_id + col + c, block.mask),
                                    S::load(logits + c), S::broadcast(kNever<T>)));
  const int64_t pair = row + block.diagonal_shift - col;
  if (block.mask == Mask::diagonal && pair >= 0 && pair < cols) logits[pair] = kNever<T>;
  for (int64_t c = cols; c < padded; ++c) logits[c] = kNever<T>;
}

template <class P, bool capped, bool weighted>
void forward_as(const typename P::Word* left, const typename P::Word* right,
                const ForwardBlock<typename P::Sum>& block) {
  using T = typename P::Sum;
  using S = Simd<T>;
  alignas(64) T strip[kRows * kGroup];
  const int64_t depth = (block.d + P::per_word - 1) / P::per_word;
  for (int64_t group = 0; group < block.cols; group += kGroup) {
    const int64_t cols = block.cols - group < kGroup ? block.cols - group : kGroup;
    const int64_t padded = whole_panels<T>(cols);
    Columns<T> columns(block.col.from(group), cols, padded);
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
      logits_strip<P>(left, right, depth, row, group, padded, block, strip, kGroup);
      for (int64_t r = 0; r < rows; ++r) {
        T* logits = strip + r * kGroup;
        const int64_t i = row + r, pair = i + block.diagonal_shift - group;  // its pair's column in the strip
        if (block.positive && pair >= 0 && pair < cols) block.positive[i] = logits[pair];
        if (i < block.stored_rows)
          for (int64_t c = 0; c < cols; ++c) block.stored[i * block.stored_ld + group + c] = logits[c];
        leave_out(logits, i, group, cols, padded, block);
      }
      if (!capped && !weighted && add_both<T>(strip, rows, block.row.from(row), columns)) continue;
      if (!capped && !weighted) columns.finish();
      for (int64_t r = 0; r < rows; ++r)
        add_row<T, capped, weighted>(strip + r * kGroup, padded, capped ? block.row_cap[row + r] : T(0),
                                     block.row.from(row + r));
      if (block.col.max)
        for (int64_t c = 0; c < padded; c += S::width)
          add_columns<T, capped, weighted>(strip + c, kGroup, rows, capped ? block.col_cap + group + c : nullptr,
                                           block.col.from(group + c));
      if (!capped && !weighted) columns.start();
    }
    columns.finish();
  }
}

template <class P>
void forward(const void* left, const void* right, const ForwardBlock<typename P::Sum>& block) {
  const auto* own = static_cast<const typename P::Word*>(left);
  const auto* other = static_cast<const typename P::Word*>(right);
  if (block.row_cap)
    return block.row.weighted ? forward_as<P, true, true>(own, other, block)
                              : forward_as<P, true, false>(own, other, block);
  return block.row.weighted ? forward_as<P, false, true>(own, other, block)
                            : forward_as<P, false, false>(own, other, block);
}

// W of one row from its logits, in place. `rowwise`, `colwise`: that gradient is there; `choosy`: ids or caps leave
// entries out, whose weights are exactly 0 whatever exp of them is.
template <class T, bool rowwise, bool colwise, bool choosy>
void weigh_row(T* line, int64_t i, int64_t group, int64_t padded, const BackwardBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  const T lse = rowwise ? block.row_lse[i] : T(0), grad = rowwise ? block.grad_row[i] : T(0), scale = block.scale[i];
  const T cap = choosy && block.row_cap ? block.row_cap[i] : -kNever<T>;
  for (int64_t c = 0; c < padded; c += S::width) {
    const V logit = S::load(line + c);
    V by_row = {}, by_col = {};
    if (rowwise) by_row = Exp<T>::of(logit - lse) * grad;
    if (colwise) by_col = Exp<T>::of(logit - S::load(block.col_lse + group + c)) * S::load(block.grad_col + group + c);
    if (choosy) {
      if (rowwise) by_row = where<T>(logit <= cap, by_row, V{});
      if (colwise && block.col_cap) by_col = where<T>(logit <= S::load(block.col_cap + group + c), by_col, V{});
    }
    V weight = by_row + by_col;
    if (choosy && block.row_id)
      weight = where<T>(counted<T>(block.row_id[i], block.col_id + group + c, block.mask), weight, V{});
    S::store(line + c, weight * scale);
  }
}

// W of a block where every log-sum-exp is near to one shift, with one exponential an entry; false, and nothing is done,
// where they are not.
template <class T>
bool weigh_near(T* weights, int64_t row, int64_t group, int64_t rows, int64_t cols, int64_t padded,
                const BackwardBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  Span<T> span;
  for (int64_t r = 0; r < rows; ++r) span.take(block.row_lse[row + r]);
  for (int64_t c = 0; c < cols; ++c) span.take(block.col_lse[group + c]);
  const T shift = span.middle();
  if (!span.near(shift)) return false;
  alignas(kVectorBytes) T by_col[kWeightCols];
  for (int64_t c = 0; c < padded; c += S::width)
    S::store(by_col + c, Exp<T>::of(S::min(shift - S::load(block.col_lse + group + c), S::broadcast(kNear<T>))) *
                             S::load(block.grad_col + group + c));
  for (int64_t r = 0; r < rows; ++r) {
    T* line = weights + r * kWeightCols;
    const T scale = block.scale[row + r];
    const T by_row = Exp<T>::of(S::broadcast(shift - block.row_lse[row + r]))[0] * block.grad_row[row + r];
    for (int64_t c = 0; c < padded; c += S::width) {
      const V share = Exp<T>::of(S::load(line + c) - shift);
      S::store(line + c, share * (S::load(by_col + c) + by_row) * scale);
    }
  }
  return true;
}

template <class T>
void weigh(T* weights, int64_t row, int64_t group, int64_t rows, int64_t cols, int64_t padded,
           const BackwardBlock<T>& block) {
  const bool rowwise = block.grad_row, colwise = block.grad_col, choosy = block.row_id || block.row_cap;
  const auto one = [&](auto a, auto b, auto c) { return &weigh_row<T, a.value, b.value, c.value>; };
  constexpr std::true_type yes;
  constexpr std::false_type no;
  const auto kernel = choosy ? (rowwise ? (colwise ? one(yes, yes, yes) : one(yes, no, yes))
                                        : (colwise ? one(no, yes, yes) : one(no, no, yes)))
                             : (rowwise ? (colwise ? one(yes, yes, no) : one(yes, no, no))
                                        : (colwise ? one(no, yes, no) : one(no, no, no)));
  const bool done = rowwise && colwise && !choosy && weigh_near(weights, row, group, rows, cols, padded, block);
  for (int64_t r = 0; r < rows; ++r) {
    T* line = weights + r * kWeightCols;
    const int64_t i = row + r, pair = i + block.diagonal_shift - group;
    if (!done) kernel(line, i, group, padded, block);
    if (pair >= 0 && pair < cols) {
      if (block.mask == Mask::diagonal) line[pair] = 0;
      if (block.grad_positive) line[pair] += block.grad_positive[i] * block.scale[i];
    }
    for (int64_t c = cols; c < padded; ++c) line[c] = 0;
  }
}

// log(1 + exp(t)) and its derivative, from q = exp(-|t|): max(t, 0) + log(1 + q), log(1 + q) = 2 atanh(q / (2 + q))
template <class T>
struct Softplus {
  using S = Simd<T>;
  using V = typename S::Vector;
  static V small(V t) { return Exp<T>::of(where<T>(t > 0, -t, t)); }
  static V value(V t) {
    const V q = small(t), s = q / (q + T(2)), square = s * s;
    constexpr int terms = sizeof(T) == 4 ? 8 : 17;  // s <= 1/3
    V sum = S::broadcast(T(1) / (2 * terms - 1));
    for (int k = terms - 2; k >= 0; --k) sum = sum * square + T(1) / (2 * k + 1);
    return where<T>(t > 0, t, V{}) + sum * s * T(2);
  }
  static V derivative(V t) {
    const V q = small(t), one = S::broadcast(1);
    return where<T>(t > 0, one, q) / (q + T(1));
  }
};

// z_ij of a row for a vector of columns: 1 or -1, or 0 where the entry is left out
template <class T>
typename Simd<T>::Vector sign(int64_t i, int64_t col, const SigmoidBlock<T>& block) {
  using S = Simd<T>;
  const typename S::Vector one = S::broadcast(1), minus = S::broadcast(-1);
  if (!block.row_id) return minus;
  const typename S::Vector z = where<T>(counted<T>(block.row_id[i], block.col_id + col, Mask::different), one, minus);
  return where<T>(counted<T>(block.row_id[i], block.col_id + col, Mask::none), z, typename S::Vector{});
}

// calls f(c, signed argument -z (S + bias), z) for the vectors of a row's logits; z of the pair and of the rest is set
template <class T, class F>
void each_signed(const T* logits, int64_t i, int64_t col, int64_t cols, int64_t padded, const SigmoidBlock<T>& block,
                 F f) {
  using S = Simd<T>;
  for (int64_t c = 0; c < padded; c += S::width) {
    typename S::Vector z = sign<T>(i, col + c, block);
    const int64_t pair = i + block.diagonal_shift - col - c;
    if (!block.row_id && pair >= 0 && pair < S::width) z[pair] = 1;
    for (int64_t lane = cols > c ? cols - c : 0; lane < S::width; ++lane) z[lane] = 0;
    f(c, -z * (S::load(logits + c) + block.bias), z);
  }
}

template <class P>
void sigmoid_forward(const void* left, const void* right, const SigmoidBlock<typename P::Sum>& block) {
  using T = typename P::Sum;
  using V = typename Simd<T>::Vector;
  alignas(64) T strip[kRows * kGroup];
  const int64_t depth = (block.d + P::per_word - 1) / P::per_word;
  for (int64_t group = 0; group < block.cols; group += kGroup) {
    const int64_t cols = block.cols - group < kGroup ? block.cols - group : kGroup;
    const int64_t padded = whole_panels<T>(cols);
    for (int64_t row = 0; row < block.rows; row += kRows) {
      const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
      logits_strip<P>(static_cast<const typename P::Word*>(left), static_cast<const typename P::Word*>(right), depth,
                      row, group, padded, block, strip, kGroup);
      for (int64_t r = 0; r < rows; ++r) {
        V sum = {};
        each_signed(strip + r * kGroup, row + r, group, cols, padded, block,
                    [&](int64_t, V t, V z) { sum += where<T>(z != V{}, Softplus<T>::value(t), V{}); });
        block.row_loss[row + r] += Simd<T>::horizontal_sum(sum);
      }
    }
  }
}

template <class T>
void weigh(T* weights, int64_t row, int64_t group, int64_t rows, int64_t cols, int64_t padded,
           const SigmoidBlock<T>& block) {
  using S = Simd<T>;
  using V = typename S::Vector;
  for (int64_t r = 0; r < rows; ++r) {
    T* line = weights + r * kWeightCols;
    const int64_t i = row + r;
    V sum = {};
    each_signed(line, i, group, cols, padded, block, [&](int64_t c, V t, V z) {
      const V slope = -z * Softplus<T>::derivative(t) * block.grad_row[i];
      sum += slope;
      S::store(line + c, slope * block.scale[i]);
    });
    block.slope[i] += S::horizontal_sum(sum);
  }
}

// W as the operand of both products, in the words they take.
template <class P>
struct Weights;

template <class T>
struct Weights<Plain<T>> {
  static constexpr int64_t most_rows = sizeof(T) == 4 ? 384 : 192;
  static constexpr int64_t bytes = most_rows * kWeightCols * sizeof(T);
  static constexpr int64_t row_stride = kWeightCols, col_stride = kWeightCols;
  T* numbers;
  explicit Weights(void* scratch) : numbers(static_cast<T*>(scratch)) {}
  void round(int64_t, int64_t) {}
  const T* rows(int64_t r) const { return numbers + r * kWeightCols; }
  const T* cols(int64_t c) const { return numbers + c; }
};

#if defined(MODALIGN_ISA_avx512bf16)
// Rounded to bfloat16: pairs of columns for W v, pairs of rows for W' u.
template <>
struct Weights<Pairs> {
  static constexpr int64_t most_rows = 192;
  static constexpr int64_t count = most_rows * kWeightCols;
  static constexpr int64_t bytes = count * 8;
  static constexpr int64_t row_stride = kWeightCols / 2, col_stride = kWeightCols;
  float* numbers;
  uint32_t* by_row;  // [rows][pair of columns]
  uint32_t* by_col;  // [pair of rows][column]
  explicit Weights(void* scratch)
      : numbers(static_cast<float*>(scratch)),
        by_row(reinterpret_cast<uint32_t*>(numbers + count)),
        by_col(by_row + count / 2) {}
  void round(int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r += 2)
      for (int64_t c = 0; c < cols; c += 16) {
        const __m256bh one = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers + r * kWeightCols + c));
        const __m256bh two = _mm512_cvtneps_pbh(_mm512_loadu_ps(numbers + (r + 1) * kWeightCols + c));
        const __m256i low = reinterpret_cast<__m256i>(one), high = reinterpret_cast<__m256i>(two);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(by_row + r * row_stride + c / 2), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(by_row + (r + 1) * row_stride + c / 2), high);
        const __m512i pair =
            _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
        _mm512_storeu_si512(by_col + r / 2 * col_stride + c, pair);
      }
  }
  const uint32_t* rows(int64_t r) const { return by_row + r * row_stride; }
  const uint32_t* cols(int64_t c) const { return by_col + c; }
};
#endif

// equal parts of at most `most`, each a multiple of `multiple`: a short last part would cost as much as a whole one
inline int64_t part(int64_t size, int64_t most, int64_t multiple) {
  const int64_t parts = (size + most - 1) / most;
  return (((size + parts - 1) / parts) + multiple - 1) / multiple * multiple;
}

// `cols` logits of a row, and zeros up to `padded`. The row kRows further, on another page, is asked for meanwhile.
template <class T>
void read_stored(const T* stored, int64_t ld, int64_t cols, int64_t padded, T* out) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t c = 0; c < cols; c += line) __builtin_prefetch(stored + kRows * ld + c);
  for (int64_t c = 0; c < cols; ++c) out[c] = stored[c];
  for (int64_t c = cols; c < padded; ++c) out[c] = 0;
}

template <class P, class B>
void backward(const void* left, const void* right, const void* v, const void* u, int64_t padded_rows,
              int64_t padded_cols, const B& block) {
  using T = typename P::Sum;
  using Word = typename P::Word;
  constexpr int64_t panel = kCols<T>;
  Weights<P> weights(block.scratch);
  const int64_t depth = (block.d + P::per_word - 1) / P::per_word;
  const int64_t row_step = part(block.rows, Weights<P>::most_rows, kRows),
                col_step = part(block.cols, kWeightCols, panel);
  const int64_t v_depth = padded_cols / P::per_word, u_depth = padded_rows / P::per_word;
  for (int64_t group = 0; group < block.cols; group += col_step) {
    const int64_t cols = block.cols - group < col_step ? block.cols - group : col_step;
    const int64_t padded = whole_panels<T>(cols);
    for (int64_t row = 0; row < block.rows; row += row_step) {
      const int64_t rows = block.rows - row < row_step ? block.rows - row : row_step;
      const int64_t all_rows = (rows + kRows - 1) / kRows * kRows;
      for (int64_t r = 0; r < all_rows; r += kRows) {
        T* line = weights.numbers + r * kWeightCols;
        const int64_t wanted = block.rows - row - r < kRows ? block.rows - row - r : kRows;
        if (row + r + wanted <= block.stored_rows) {
          for (int64_t k = 0; k < wanted; ++k)
            read_stored(block.stored + (row + r + k) * block.stored_ld + group, block.stored_ld, cols, padded,
                        line + k * kWeightCols);
        } else {
          logits_strip<P>(static_cast<const Word*>(left), static_cast<const Word*>(right), depth, row + r, group,
                          padded, block, line, kWeightCols);
        }
      }
      weigh(weights.numbers, row, group, rows, cols, padded, block);
      for (int64_t r = rows; r < all_rows; ++r)
        for (int64_t c = 0; c < padded; ++c) weights.numbers[r * kWeightCols + c] = 0;
      weights.round(all_rows, padded);
      if (block.by_row)
        for (int64_t c = 0; c < block.row_width; c += panel) {
          const Word* values = static_cast<const Word*>(v) + (c / panel * v_depth + group / P::per_word) * panel;
          for (int64_t r = 0; r < rows; r += kRows)
            accumulate_tile<P, Weights<P>::row_stride, 1>(
                weights.rows(r), values, (cols + P::per_word - 1) / P::per_word,
                block.by_row + (row + r) * block.row_width + c, block.row_width, rows - r, block.row_width - c);
        }
      if (block.by_col)
        for (int64_t c = 0; c < block.col_width; c += panel) {
          const Word* values = static_cast<const Word*>(u) + (c / panel * u_depth + row / P::per_word) * panel;
          for (int64_t r = 0; r < cols; r += kRows)
            accumulate_tile<P, 1, Weights<P>::col_stride>(
                weights.cols(r), values, (rows + P::per_word - 1) / P::per_word,
                block.by_col + (group + r) * block.col_width + c, block.col_width, cols - r, block.col_width - c);
        }
    }
  }
}

template <class P>
LossTiles<typename P::Sum> make() {
  using T = typename P::Sum;
  using Word = typename P::Word;
  return {.row_panel = kRows,
          .col_panel = kCols<T>,
          .per_word = P::per_word,
          .word_bytes = sizeof(Word),
          .scratch_bytes = Weights<P>::bytes,
          .pack_left = [](Rows rows, void* out) { pack<P, kRows>(rows, static_cast<Word*>(out)); },
          .pack_right = [](Rows rows, void* out) { pack<P, kCols<T>>(rows, static_cast<Word*>(out)); },
          .pack_features = [](Rows rows, int64_t padded,
                              void* out) { pack_features<P>(rows, padded, static_cast<Word*>(out)); },
          .forward = forward<P>,
          .backward = backward<P, BackwardBlock<T>>,
          .sigmoid_forward = sigmoid_forward<P>,
          .sigmoid_backward = backward<P, SigmoidBlock<T>>};
}

}  // namespace

#if defined(MODALIGN_ISA_avx512bf16)
LossTiles<float> make_bfloat16_tiles() { return make<Pairs>(); }
#else
template <class T>
LossTiles<T> make_loss_tiles() {
  return make<Plain<T>>();
}
template LossTiles<float> make_loss_tiles<float>();
template LossTiles<double> make_loss_tiles<double>();
#endif

}  // namespace modalign::MODALIGN_ISA
