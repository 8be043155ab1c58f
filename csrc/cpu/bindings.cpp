// modalign._core: checks and converts arguments, releases the GIL, calls. Tensors come as the address of contiguous
// memory and their sizes; modalign/ops/_cpp.py is the only caller.
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
#include "cpu/losses/info_nce.hpp"
#include "cpu/losses/unit_rows.hpp"
#include "cpu/shared/isa.hpp"
#include "cpu/shared/parallel.hpp"

namespace py = pybind11;

namespace {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

modalign::Dtype dtype_of(const std::string& name) {
  if (name == "float16") return modalign::Dtype::float16;
  if (name == "bfloat16") return modalign::Dtype::bfloat16;
  if (name == "float32") return modalign::Dtype::float32;
  if (name == "float64") return modalign::Dtype::float64;
  if (name == "int8") return modalign::Dtype::int8;
  throw std::invalid_argument("dtype must be float16, bfloat16, float32, float64 or int8, got " + name);
}

modalign::Metric metric_of(const std::string& name) {
  if (name == "cosine") return modalign::Metric::cosine;
  if (name == "dot") return modalign::Metric::dot;
  if (name == "euclidean") return modalign::Metric::euclidean;
  throw std::invalid_argument("metric must be cosine, dot or euclidean, got " + name);
}

modalign::NeighborhoodScore neighborhood_score_of(const std::string& name) {
  if (name == "mutual_knn") return modalign::NeighborhoodScore::mutual;
  if (name == "jaccard_knn") return modalign::NeighborhoodScore::jaccard;
  if (name == "rank_similarity") return modalign::NeighborhoodScore::rank;
  if (name == "lcs_knn") return modalign::NeighborhoodScore::lcs;
  if (name == "edit_distance_knn") return modalign::NeighborhoodScore::edit_distance;
  if (name == "cycle_knn") return modalign::NeighborhoodScore::cycle;
  if (name == "reciprocity") return modalign::NeighborhoodScore::reciprocity;
  throw std::invalid_argument("no neighborhood score of the name " + name);
}

void require_sizes(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes)
    if (size < 1) throw std::invalid_argument("sizes and threads must be at least 1, got " + std::to_string(size));
}

modalign::Mask mask_of(const std::string& name) {
  if (name == "none") return modalign::Mask::none;
  if (name == "diagonal") return modalign::Mask::diagonal;
  if (name == "same") return modalign::Mask::same;
  if (name == "different") return modalign::Mask::different;
  throw std::invalid_argument("mask must be none, diagonal, same or different, got " + name);
}

// x, y (0: one stream), dtype, problems, n, m, d, logit_scale, row_id, col_id, row_cap, col_cap, mask
using Tables = std::tuple<Address, Address, std::string, int64_t, int64_t, int64_t, int64_t, Address, Address, Address,
                          Address, Address, std::string>;

template <class T>
modalign::Similarity<T> similarity(const Tables& tables) {
  const auto& [x, y, dtype, problems, n, m, d, scale, row_id, col_id, row_cap, col_cap, mask] = tables;
  require_sizes({problems, n, m, d});
  return {
      at<void>(x),         at<void>(y),         dtype_of(dtype), problems,      n, m, d, at<T>(scale), mask_of(mask),
      at<int64_t>(row_id), at<int64_t>(col_id), at<T>(row_cap),  at<T>(col_cap)};
}

// v, u, their widths, W v, W' u
using ProductTables = std::tuple<Address, Address, int64_t, int64_t, Address, Address>;

template <class T>
modalign::Products<T> products_of(const ProductTables& tables) {
  const auto& [v, u, v_width, u_width, by_row, by_col] = tables;
  return {at<void>(v), at<void>(u), v_width, u_width, at<T>(by_row), at<T>(by_col)};
}

// row and col: log-sum-exp, best, mean
template <class T>
void info_nce_forward(const Tables& tables, const std::array<Address, 3>& row, const std::array<Address, 3>& col,
                      Address positive, Address stored, int64_t stored_rows, int threads) {
  require_sizes({threads});
  const modalign::Similarity<T> call = similarity<T>(tables);
  py::gil_scoped_release released;
  modalign::info_nce_forward<T>(call, {at<T>(row[0]), at<T>(row[1]), at<T>(row[2])},
                                {at<T>(col[0]), at<T>(col[1]), at<T>(col[2])}, at<T>(positive), at<T>(stored),
                                stored_rows, threads);
}

// grads: of row, column and positive, then the log-sum-exps of rows and columns
template <class T>
void info_nce_backward(const Tables& tables, const std::array<Address, 5>& grads, const ProductTables& products,
                       Address stored, int64_t stored_rows, int threads) {
  require_sizes({threads});
  const modalign::Similarity<T> call = similarity<T>(tables);
  py::gil_scoped_release released;
  modalign::info_nce_backward<T>(call,
                                 {at<T>(grads[0]), at<T>(grads[1]), at<T>(grads[2]), at<T>(grads[3]), at<T>(grads[4])},
                                 products_of<T>(products), at<T>(stored), stored_rows, threads);
}

template <class T>
void sigmoid_loss_forward(const Tables& tables, Address bias, Address row_loss, int threads) {
  require_sizes({threads});
  const modalign::Similarity<T> call = similarity<T>(tables);
  py::gil_scoped_release released;
  modalign::sigmoid_loss_forward<T>(call, at<T>(bias), at<T>(row_loss), threads);
}

template <class T>
void sigmoid_loss_backward(const Tables& tables, Address bias, Address grad_row, const ProductTables& products,
                           Address slope, int threads) {
  require_sizes({threads});
  const modalign::Similarity<T> call = similarity<T>(tables);
  py::gil_scoped_release released;
  modalign::sigmoid_loss_backward<T>(call, at<T>(bias), at<T>(grad_row), products_of<T>(products), at<T>(slope),
                                     threads);
}

template <class T>
void unit_rows(Address x, int64_t n, int64_t d, Address unit, Address size, Address norm, int threads) {
  require_sizes({n, d, threads});
  py::gil_scoped_release released;
  modalign::unit_rows<T>(at<T>(x), n, d, at<T>(unit), at<T>(size), at<T>(norm), threads);
}

template <class T>
void unit_rows_backward(Address grad, Address x, Address size, Address norm, int64_t n, int64_t d, Address dx,
                        int threads) {
  require_sizes({n, d, threads});
  py::gil_scoped_release released;
  modalign::unit_rows_backward<T>(at<T>(grad), at<T>(x), at<T>(size), at<T>(norm), n, d, at<T>(dx), threads);
}

// data (0: there is none), rows, id of the first, groups
using RowTable = std::tuple<Address, int64_t, int64_t, Address>;
// indices and scores, 0: not wanted
using BestTables = std::pair<Address, Address>;

py::tuple knn(const RowTable& x, const RowTable& y, const std::string& dtype, int64_t d, int64_t k,
              const std::string& metric, const BestTables& x_best, const BestTables& y_best, Address done, Address stop,
              int threads) {
  const auto rows = [](const RowTable& table) {
    const auto& [data, n, first, group] = table;
    if (n > INT32_MAX) throw std::invalid_argument("knn takes up to 2^31 - 1 rows, got " + std::to_string(n));
    return modalign::RowSet{at<void>(data), n, first, at<int64_t>(group)};
  };
  require_sizes({std::get<1>(x), d, k, threads});
  const modalign::Knn call{rows(x),
                           rows(y),
                           dtype_of(dtype),
                           d,
                           k,
                           metric_of(metric),
                           {at<int64_t>(x_best.first), at<double>(x_best.second)},
                           {at<int64_t>(y_best.first), at<double>(y_best.second)},
                           at<std::atomic<int64_t>>(done),
                           at<std::atomic<int64_t>>(stop)};
  modalign::KnnReport report;
  {
    py::gil_scoped_release released;
    report = modalign::knn(call, threads);
  }
  return py::make_tuple(report.precision, report.scored, report.redone);
}

std::vector<std::string> screens() {
  std::vector<std::string> names;
  for (modalign::Precision precision : modalign::screen_precisions()) names.push_back(precision_name(precision));
  return names;
}

void neighbor_overlap(Address a, Address b, int64_t n, int64_t k, Address counts, int threads) {
  require_sizes({n, k, threads});
  py::gil_scoped_release released;
  modalign::neighbor_overlap(at<int64_t>(a), at<int64_t>(b), n, k, at<int32_t>(counts), threads);
}

void neighborhood_scores(Address a, Address b, int64_t n, int64_t k, const std::string& name, Address scores,
                         int threads) {
  require_sizes({n, k, threads});
  const modalign::NeighborhoodScore score = neighborhood_score_of(name);
  py::gil_scoped_release released;
  modalign::neighborhood_scores(at<int64_t>(a), at<int64_t>(b), n, k, score, at<double>(scores), threads);
}

void relabelled_overlap(Address a, Address b, int64_t n, int64_t k, Address relabellings, int64_t count, Address totals,
                        int threads) {
  require_sizes({n, k, count, threads});
  if (n > INT32_MAX)
    throw std::invalid_argument("relabelled_overlap takes up to 2^31 - 1 items, got " + std::to_string(n));
  py::gil_scoped_release released;
  modalign::relabelled_overlap(at<int64_t>(a), at<int64_t>(b), n, k, at<int64_t>(relabellings), count,
                               at<int64_t>(totals), threads);
}

void edge_products(Address x, const std::string& dtype, int64_t n, int64_t d, Address items, Address others, int64_t m,
                   int64_t k, Address products, int threads) {
  require_sizes({n, d, m, k, threads});
  if (n > INT32_MAX) throw std::invalid_argument("edge_products takes up to 2^31 - 1 rows, got " + std::to_string(n));
  const modalign::Rows table{at<void>(x), dtype_of(dtype), d, 0, n};
  py::gil_scoped_release released;
  modalign::edge_products(table, at<int64_t>(items), at<int64_t>(others), m, k, at<double>(products), threads);
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
  module.def("use_isa", &modalign::use_isa, py::arg("level"));
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
  module.def("neighborhood_scores", &neighborhood_scores);
  module.def("relabelled_overlap", &relabelled_overlap);
  module.def("edge_products", &edge_products);
}
