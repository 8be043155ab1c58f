// Exact scores for one instruction set (MODALIGN_ISA names it): float64 sums in the order of the features, compiled
// without fused multiply-adds. Eight candidates are summed at a time, so that their chains of additions overlap.
#include "cpu/shared/exact_scores.hpp"
#include "cpu/shared/product.hpp"

namespace modalign::MODALIGN_ISA {
namespace {

constexpr int kLanes = 8;

template <bool euclidean>
inline void add_term(double& sum, double q, double x) {
  if constexpr (euclidean) {
    const double difference = q - x;
    sum -= difference * difference;
  } else {
    sum += q * x;
  }
}

// Adds the features from `start` on, one after the other.
template <bool euclidean, class Source>
void sum_features(const double* query, const Source* const (&row)[kLanes], int64_t start, int64_t d,
                  double (&sum)[kLanes]) {
  for (int64_t c = start; c < d; ++c)
    for (int lane = 0; lane < kLanes; ++lane) add_term<euclidean>(sum[lane], query[c], value<double>(row[lane][c]));
}

#if defined(MODALIGN_ISA_avx512) || defined(MODALIGN_ISA_avx2)
typedef double EightDoubles __attribute__((vector_size(64)));

inline Eight eight(const float* p) { return *reinterpret_cast<const EightUnaligned*>(p); }
inline Eight eight(const Half* p) {
  return reinterpret_cast<Eight>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Eight eight(const BFloat16* p) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return reinterpret_cast<Eight>(_mm256_slli_epi32(words, 16));
}

inline EightDoubles as_doubles(Eight v) {
#if defined(MODALIGN_ISA_avx512)
  return reinterpret_cast<EightDoubles>(_mm512_cvtps_pd(reinterpret_cast<__m256>(v)));
#else
  return __builtin_convertvector(v, EightDoubles);
#endif
}

template <bool euclidean, class Source>
  requires(sizeof(Source) == 2 || std::is_same_v<Source, float>)
void sum_rows(const double* query, const Source* const (&row)[kLanes], int64_t d, double (&sum)[kLanes]) {
  EightDoubles total = {};
  int64_t c = 0;
  for (; c + kLanes <= d; c += kLanes) {
    Eight v[kLanes];
#pragma GCC unroll 8
    for (int lane = 0; lane < kLanes; ++lane) v[lane] = eight(row[lane] + c);
    transpose(v);
#pragma GCC unroll 8
    for (int k = 0; k < kLanes; ++k) {
      const EightDoubles x = as_doubles(v[k]);
      if constexpr (euclidean) {
        const EightDoubles difference = query[c + k] - x;
        total -= difference * difference;
      } else {
        total += x * query[c + k];
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) sum[lane] = total[lane];
  sum_features<euclidean>(query, row, c, d, sum);
}
#endif

template <bool euclidean, class Source>
void sum_rows(const double* query, const Source* const (&row)[kLanes], int64_t d, double (&sum)[kLanes]) {
  for (double& total : sum) total = 0;
  sum_features<euclidean>(query, row, 0, d, sum);
}

template <bool euclidean, class Source>
void score_rows(const ExactTask& task, const Source* table) {
  const int64_t d = task.table.d, count = task.count;
  for (int64_t start = 0; start < count; start += kLanes) {
    const Source* row[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t i = start + lane < count ? start + lane : count - 1;
      row[lane] = table + task.ids[i] * d;
    }
    double sum[kLanes];
    sum_rows<euclidean>(task.query, row, d, sum);
    for (int64_t lane = 0; lane < kLanes && start + lane < count; ++lane) task.scores[start + lane] = sum[lane];
  }
}

void exact_scores(const ExactTask& task) {
  with_source<Plain<float>>(task.table, [&](const auto* source) {
    if (task.euclidean)
      score_rows<true>(task, source);
    else
      score_rows<false>(task, source);
  });
}

}  // namespace

ExactScores make_exact_scores() { return exact_scores; }

}  // namespace modalign::MODALIGN_ISA
