#include "cpu/knn/preparation.hpp"

#include <stdexcept>

#include "cpu/knn/search.hpp"

namespace modalign {
namespace {

constexpr int64_t kCentreSample = 1024;  // rows of each table that determine the centre

// Compute 1 / |x| of every row, and return the largest norm.
double measure_norms(Search& search, Table& table) {
  const int64_t n = table.rows.n, d = search.call.d;
  std::vector<double> norms(n);
  table.inverse_norm.resize(n);
  search.each_row(n, [&](Scratch& scratch, int64_t row) {
    search.read(table, row, scratch.row.data());
    double squares = 0;
    for (int64_t c = 0; c < d; ++c) squares += scratch.row[c] * scratch.row[c];
    norms[row] = std::sqrt(squares);
    table.inverse_norm[row] = squares > 0 ? 1 / std::sqrt(squares) : 0.0;
  });
  double largest = 0;
  for (double norm : norms) {
    if (!std::isfinite(norm)) throw std::domain_error("knn: rows must be finite and their squares fit float64");
    largest = std::max(largest, norm);
  }
  return largest;
}

// Write z [d] of a row, whose norm is at most 1.
void read_scaled(const Search& search, const Table& table, int64_t row, double* z) {
  search.read(table, row, z);
  const double factor = search.call.metric == Metric::cosine ? table.inverse_norm[row] : search.factor;
  for (int64_t c = 0; c < search.call.d; ++c) z[c] *= factor;
}

// The centre is the mean of a sample if subtracting it makes most rows shorter, else 0.
void set_centre(Search& search) {
  const int64_t d = search.call.d;
  std::vector<double>& centre = search.centre;
  centre.assign(d, 0.0);
  std::vector<double> z(d);
  int64_t count = 0;
  const auto each_sampled = [&](auto work) {
    for (Table* table : search.tables())
      for (int64_t row = 0; row < table->rows.n; row += (table->rows.n + kCentreSample - 1) / kCentreSample) {
        read_scaled(search, *table, row, z.data());
        work();
      }
  };
  each_sampled([&] {
    for (int64_t c = 0; c < d; ++c) centre[c] += z[c];
    ++count;
  });
  for (double& value : centre) value /= static_cast<double>(count);
  double norms_before = 0, norms_after = 0, shorter = 0;
  each_sampled([&] {
    double before = 0, after = 0;
    for (int64_t c = 0; c < d; ++c) {
      before += z[c] * z[c];
      after += (z[c] - centre[c]) * (z[c] - centre[c]);
    }
    norms_before += std::sqrt(before);
    norms_after += std::sqrt(after);
    shorter += after < before;
  });
  if (norms_after > 0.95 * norms_before || shorter < 0.9 * static_cast<double>(count)) centre.assign(d, 0.0);
}

// Stripes of about 1,000 rows, so that packing is small beside the products; fewer rows where n is small, so that there
// are jobs for several threads, or where rows are long, so that a packed stripe stays near the second-level cache.
Stripes cut_into_stripes(int64_t n, int64_t row_bytes) {
  const auto whole = [](int64_t rows) { return std::max<int64_t>(1, rows / kStripeMultiple) * kStripeMultiple; };
  const int64_t most = std::min<int64_t>(whole((1 << 20) / row_bytes), 960);
  const int64_t rows = std::min(most, whole((n + 15) / 16 + kStripeMultiple - 1));
  return {.n = n, .rows = rows, .count = (n + rows - 1) / rows};
}

}  // namespace

void set_scale_and_centre(Search& search) {
  double largest = 0;
  for (Table* table : search.tables()) largest = std::max(largest, measure_norms(search, *table));
  search.factor = largest > 0 ? std::ldexp(1.0, -std::ilogb(largest) - 1) : 1.0;
  set_centre(search);
}

RowTerms centred_row(const Search& search, const Table& table, int64_t row, double* y) {
  read_scaled(search, table, row, y);
  const std::vector<double>& centre = search.centre;
  double scaled_product = 0, centred_product = 0, squares = 0;  // with the centre, before and after subtracting it
  for (int64_t c = 0; c < search.call.d; ++c) {
    scaled_product += y[c] * centre[c];
    y[c] -= centre[c];
    centred_product += y[c] * centre[c];
    squares += y[c] * y[c];
  }
  // <z_i, z_j> = <y_i, y_j> + <mu, z_j> + <y_i, mu>
  const bool euclidean = search.call.metric == Metric::euclidean;
  return {.shift = euclidean ? -squares / 2 : scaled_product, .base = euclidean ? -squares / 2 : centred_product};
}

void encode(Search& search, Table& table, const Coding& coding) {
  const int64_t n = table.rows.n, d = search.call.d, bytes = coding.row_bytes();
  table.stripes = cut_into_stripes(n, bytes);
  const int64_t padded = table.stripes.padded();
  table.codes.reset(new std::byte[n * bytes]);
  table.base.resize(n);
  for (auto* values : {&table.scale, &table.code_norm, &table.error}) values->assign(padded, 0);
  table.shift.assign(padded, std::numeric_limits<float>::quiet_NaN());  // rows that do not exist reach no threshold
  table.threshold.assign(padded, kInfinity);
  table.offset.assign(padded, 0);
  // The float64 score of the definition, `base` and `shift` are each off by less than (d + 4) 2^-53 of the sum of their
  // terms' magnitudes, which is at most 4 (euclidean: |z_i - z_j|^2 <= 4); products in float32 may lose 2^-149 each.
  const double doubt = 32 * static_cast<double>(d + 8) * 0x1p-53 + static_cast<double>(d) * 0x1p-140;
  table.slack = rounded_up(doubt);
  search.each_row(n, [&](Scratch& scratch, int64_t row) {
    const RowTerms terms = centred_row(search, table, row, scratch.row.data());
    table.base[row] = terms.base;
    const CodeFacts facts = coding.code(scratch.row.data(), table.codes.get() + row * bytes);
    table.scale[row] = facts.scale;
    table.offset[row] = facts.offset;
    table.code_norm[row] = facts.norm;
    table.error[row] = facts.error;
    table.shift[row] = rounded_up(terms.shift + doubt + 0x1p-22 * std::abs(terms.shift));
    if (!table.best.indices) return;
    table.threshold[row] = -kInfinity;
    raise_threshold(search, table, row);
  });
  if (!table.best.indices) return;
  table.waiting.assign(n, 0);
  table.scored.assign(n, 0);
  table.candidate_list.resize(n * search.list_size);
}

}  // namespace modalign
