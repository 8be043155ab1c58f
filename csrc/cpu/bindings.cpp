// modalign._core: the functions here check and convert arguments, release the GIL, and call. A tensor comes as the
// address of contiguous memory (0: absent) and its sizes; python/modalign/ops/_cpp.py is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cpu/graphs/edge_products.hpp"
#include "cpu/graphs/neighbor_overlap.hpp"
#include "cpu/graphs/neighborhoods.hpp"
#include "cpu/knn/knn.hpp"
#include "cpu/knn/screen.hpp"
#include "cpu/losses/info_nce.hpp"
#include "cpu/losses/sigmoid_loss.hpp"
#include "cpu/losses/unit_rows.hpp"
#include "cpu/shared/floating_point.hpp"
#include "cpu/shared/isa.hpp"
#include "cpu/shared/parallel.hpp"

namespace py = pybind11;

namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class Value>
struct Named {
  const char* name;
  Value value;
};
constexpr Named<modalign::Dtype> kDtypes[] = {{"float16", modalign::Dtype::float16},
                                              {"bfloat16", modalign::Dtype::bfloat16},
                                              {"float32", modalign::Dtype::float32},
                                              {"float64", modalign::Dtype::float64},
                                              {"int8", modalign::Dtype::int8}};
constexpr Named<modalign::Metric> kMetrics[] = {
    {"cosine", modalign::Metric::cosine}, {"dot", modalign::Metric::dot}, {"euclidean", modalign::Metric::euclidean}};
constexpr Named<modalign::Mask> kMasks[] = {{"none", modalign::Mask::none},
                                            {"diagonal", modalign::Mask::diagonal},
                                            {"same", modalign::Mask::same},
                                            {"different", modalign::Mask::different}};

// Return the value of a name in one of the tables above.
template <class Value, size_t count>
Value value_of(const char* argument, const Named<Value> (&table)[count], const std::string& name) {
  std::string names;
  for (const Named<Value>& row : table) {
    if (row.name == name) return row.value;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  throw std::invalid_argument(std::string(argument) + " must be one of " + names + ", got " + name);
}

modalign::Dtype dtype_of(const std::string& name) { return value_of("dtype", kDtypes, name); }

void require_positive(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes)
    if (size < 1) throw std::invalid_argument("sizes and threads must be at least 1, got " + std::to_string(size));
}

void require_int32(const char* function, const char* items, int64_t n) {
  if (n > INT32_MAX)
    throw std::invalid_argument(std::string(function) + " takes up to 2^31 - 1 " + items + ", got " +
                                std::to_string(n));
}

// Other Python threads run, and this one computes in IEEE 754 arithmetic.
struct Released {
  py::gil_scoped_release gil;
  modalign::StandardArithmetic arithmetic;
};

// x, y (0: one stream), dtype, problems, n, m, d, logit_scale, row_id, col_id, row_cap, col_cap, mask
using LossTables = std::tuple<Address, Address, std::string, int64_t, int64_t, int64_t, int64_t, Address, Address,
                              Address, Address, Address, std::string>;

template <class T>
modalign::Similarity<T> similarity_of(const LossTables& tables, int threads) {
  const auto& [x, y, dtype, problems, n, m, d, scale, row_id, col_id, row_cap, col_cap, mask] = tables;
  require_positive({threads, problems, n, m, d});
  return {.x = pointer<void>(x),
          .y = pointer<void>(y),
          .dtype = dtype_of(dtype),
          .problems = problems,
          .n = n,
          .m = m,
          .d = d,
          .logit_scale = pointer<T>(scale),
          .mask = value_of("mask", kMasks, mask),
          .row_id = pointer<int64_t>(row_id),
          .col_id = pointer<int64_t>(col_id),
          .row_cap = pointer<T>(row_cap),
          .col_cap = pointer<T>(col_cap),
          .threads = threads};
}

// v, u, their widths, W v, W' u
using ProductTables = std::tuple<Address, Address, int64_t, int64_t, Address, Address>;

template <class T>
modalign::Products<T> products_of(const ProductTables& tables) {
  const auto& [v, u, v_width, u_width, by_row, by_col] = tables;
  return {.v = pointer<void>(v),
          .u = pointer<void>(u),
          .v_width = v_width,
          .u_width = u_width,
          .by_row = pointer<T>(by_row),
          .by_col = pointer<T>(by_col)};
}

template <class T>
modalign::Summary<T> summary_of(const std::array<Address, 3>& tables) {
  return {.lse = pointer<T>(tables[0]), .best = pointer<T>(tables[1]), .mean = pointer<T>(tables[2])};
}

// row and col: log-sum-exp, best, mean
template <class T>
void info_nce_forward(const LossTables& tables, const std::array<Address, 3>& row, const std::array<Address, 3>& col,
                      Address positive, Address stored, int64_t stored_rows, int threads) {
  const modalign::Similarity<T> call = similarity_of<T>(tables, threads);
  const modalign::InfoNceResults<T> results{.row = summary_of<T>(row),
                                            .col = summary_of<T>(col),
                                            .positive = pointer<T>(positive),
                                            .stored = {pointer<T>(stored), stored_rows}};
  const Released released;
  modalign::info_nce_forward<T>(call, results);
}

// grads: of rows, columns and positives, then the log-sum-exps of rows and columns
template <class T>
void info_nce_backward(const LossTables& tables, const std::array<Address, 5>& grads, const ProductTables& products,
                       Address stored, int64_t stored_rows, int threads) {
  const modalign::Similarity<T> call = similarity_of<T>(tables, threads);
  const modalign::InfoNceGradients<T> gradients{.row = pointer<T>(grads[0]),
                                                .col = pointer<T>(grads[1]),
                                                .positive = pointer<T>(grads[2]),
                                                .row_lse = pointer<T>(grads[3]),
                                                .col_lse = pointer<T>(grads[4])};
  const Released released;
  modalign::info_nce_backward<T>(call, gradients, products_of<T>(products), {pointer<T>(stored), stored_rows});
}

template <class T>
void sigmoid_loss_forward(const LossTables& tables, Address bias, Address row_loss, int threads) {
  const modalign::Similarity<T> call = similarity_of<T>(tables, threads);
  const Released released;
  modalign::sigmoid_loss_forward<T>(call, pointer<T>(bias), pointer<T>(row_loss));
}

template <class T>
void sigmoid_loss_backward(const LossTables& tables, Address bias, Address grad_row, const ProductTables& products,
                           Address slope, int threads) {
  const modalign::Similarity<T> call = similarity_of<T>(tables, threads);
  const modalign::SigmoidGradients<T> gradients{
      .bias = pointer<T>(bias), .grad_row = pointer<T>(grad_row), .slope = pointer<T>(slope)};
  const Released released;
  modalign::sigmoid_loss_backward<T>(call, gradients, products_of<T>(products));
}

template <class T>
void unit_rows(Address x, int64_t n, int64_t d, Address unit, Address size, Address norm, int threads) {
  require_positive({n, d, threads});
  const modalign::UnitRows<T> rows{
      .x = pointer<T>(x), .n = n, .d = d, .unit = pointer<T>(unit), .size = pointer<T>(size), .norm = pointer<T>(norm)};
  const Released released;
  modalign::unit_rows<T>(rows, threads);
}

template <class T>
void unit_rows_backward(Address grad, Address x, Address size, Address norm, int64_t n, int64_t d, Address dx,
                        int threads) {
  require_positive({n, d, threads});
  const modalign::UnitRowsGradient<T> rows{.grad = pointer<T>(grad),
                                           .x = pointer<T>(x),
                                           .n = n,
                                           .d = d,
                                           .size = pointer<T>(size),
                                           .norm = pointer<T>(norm),
                                           .dx = pointer<T>(dx)};
  const Released released;
  modalign::unit_rows_backward<T>(rows, threads);
}

// data (0: there is none), number of rows, index of the first, groups
using RowTable = std::tuple<Address, int64_t, int64_t, Address>;
// indices and scores; 0: this set does not search
using BestTables = std::pair<Address, Address>;

modalign::RowSet row_set_of(const RowTable& table) {
  const auto& [data, n, first, group] = table;
  require_int32("knn", "rows", n);
  return {.data = pointer<void>(data), .n = n, .first = first, .group = pointer<int64_t>(group)};
}

modalign::Best best_of(const BestTables& tables) {
  return {.indices = pointer<int64_t>(tables.first), .scores = pointer<double>(tables.second)};
}

py::tuple knn(const RowTable& x, const RowTable& y, const std::string& dtype, int64_t d, int64_t k,
              const std::string& metric, const BestTables& x_best, const BestTables& y_best, Address done, Address stop,
              int threads) {
  require_positive({std::get<1>(x), d, k, threads});
  const modalign::Knn call{.x = row_set_of(x),
                           .y = row_set_of(y),
                           .dtype = dtype_of(dtype),
                           .d = d,
                           .k = k,
                           .metric = value_of("metric", kMetrics, metric),
                           .x_best = best_of(x_best),
                           .y_best = best_of(y_best),
                           .done = pointer<std::atomic<int64_t>>(done),
                           .stop = pointer<std::atomic<int64_t>>(stop)};
  modalign::KnnReport report;
  {
    const Released released;
    report = modalign::knn(call, threads);
  }
  return py::make_tuple(report.precision, report.scored, report.redone);
}

void use_isa(const std::string& level) {
  modalign::use_isa(level);
  modalign::forget_missing_screen();
}

std::vector<std::string> screens() {
  std::vector<std::string> names;
  for (modalign::Precision precision : modalign::screen_precisions()) names.push_back(precision_name(precision));
  return names;
}

modalign::GraphPair graph_pair_of(Address a, Address b, int64_t n, int64_t k) {
  require_positive({n, k});
  return {.a = pointer<int64_t>(a), .b = pointer<int64_t>(b), .n = n, .k = k};
}

void neighbor_overlap(Address a, Address b, int64_t n, int64_t k, Address counts, int threads) {
  require_positive({threads});
  const modalign::GraphPair graphs = graph_pair_of(a, b, n, k);
  const Released released;
  modalign::neighbor_overlap(graphs, pointer<int32_t>(counts), threads);
}

void neighborhood_scores(Address a, Address b, int64_t n, int64_t k, const std::string& name, Address scores,
                         int threads) {
  require_positive({threads});
  const modalign::GraphPair graphs = graph_pair_of(a, b, n, k);
  const Released released;
  modalign::neighborhood_scores(graphs, name, pointer<double>(scores), threads);
}

void relabelled_overlap(Address a, Address b, int64_t n, int64_t k, Address relabellings, int64_t count, Address totals,
                        int threads) {
  require_positive({count, threads});
  require_int32("relabelled_overlap", "items", n);
  const modalign::GraphPair graphs = graph_pair_of(a, b, n, k);
  const Released released;
  modalign::relabelled_overlap(graphs, {pointer<int64_t>(relabellings), count}, pointer<int64_t>(totals), threads);
}

void edge_products(Address x, const std::string& dtype, int64_t n, int64_t d, Address items, Address others, int64_t m,
                   int64_t k, Address products, int threads) {
  require_positive({n, d, m, k, threads});
  require_int32("edge_products", "rows", n);
  const modalign::Rows table{.data = pointer<void>(x), .dtype = dtype_of(dtype), .d = d, .start = 0, .rows = n};
  const modalign::Edges edges{.items = pointer<int64_t>(items), .others = pointer<int64_t>(others), .m = m, .k = k};
  const Released released;
  modalign::edge_products(table, edges, pointer<double>(products), threads);
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "CPU kernels of modalign; see csrc/README.md.";
  module.attr("commit") = MODALIGN_COMMIT;
#ifdef __clang__
  module.attr("compiler") = __VERSION__;
#else
  module.attr("compiler") = "GCC " __VERSION__;
#endif
  module.def("isa_levels", &modalign::isa_levels);
  module.def("isa", &modalign::isa);
  module.def("use_isa", &use_isa, py::arg("level"));
  module.def("forget_openmp", &modalign::forget_openmp);
  module.def("info_nce_forward_float32", &info_nce_forward<float>);
  module.def("info_nce_forward_float64", &info_nce_forward<double>);
  module.def("info_nce_backward_float32", &info_nce_backward<float>);
  module.def("info_nce_backward_float64", &info_nce_backward<double>);
  module.def("sigmoid_loss_forward_float32", &sigmoid_loss_forward<float>);
  module.def("sigmoid_loss_forward_float64", &sigmoid_loss_forward<double>);
  module.def("sigmoid_loss_backward_float32", &sigmoid_loss_backward<float>);
  module.def("sigmoid_loss_backward_float64", &sigmoid_loss_backward<double>);
  module.def("unit_rows_float32", &unit_rows<float>);
  module.def("unit_rows_float64", &unit_rows<double>);
  module.def("unit_rows_backward_float32", &unit_rows_backward<float>);
  module.def("unit_rows_backward_float64", &unit_rows_backward<double>);
  module.def("knn", &knn);
  module.def("knn_bytes", &modalign::knn_bytes);
  module.def("screens", &screens);
  module.def("use_screen", &modalign::use_screen, py::arg("name"));
  module.def("neighbor_overlap", &neighbor_overlap);
  module.def("neighborhood_score_names", &modalign::neighborhood_score_names);
  module.def("neighborhood_scores", &neighborhood_scores);
  module.def("relabelled_overlap", &relabelled_overlap);
  module.def("edge_products", &edge_products);
}
