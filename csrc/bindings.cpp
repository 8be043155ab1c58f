// modalign._core: checks and converts arguments, releases the GIL, calls. Tensors come as the address of contiguous
// memory and their sizes; modalign/ops/_cpp.py is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "cpu/info_nce.hpp"
#include "cpu/isa.hpp"
#include "cpu/knn.hpp"
#include "cpu/neighbor_overlap.hpp"

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
  throw std::invalid_argument("dtype must be float16, bfloat16, float32 or float64, got " + name);
}

modalign::Metric metric_of(const std::string& name) {
  if (name == "cosine") return modalign::Metric::cosine;
  if (name == "dot") return modalign::Metric::dot;
  if (name == "euclidean") return modalign::Metric::euclidean;
  throw std::invalid_argument("metric must be cosine, dot or euclidean, got " + name);
}

void require_sizes(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes)
    if (size < 1) throw std::invalid_argument("sizes and threads must be at least 1, got " + std::to_string(size));
}

template <class T>
void info_nce_forward(Address x, Address y, const std::string& dtype, int64_t problems, int64_t n, int64_t d,
                      Address logit_scale, Address row_lse, Address col_lse, Address positive, int threads) {
  require_sizes({problems, n, d, threads});
  const modalign::InfoNce<T> call{at<void>(x), at<void>(y), dtype_of(dtype), problems, n, d, at<T>(logit_scale)};
  py::gil_scoped_release released;
  modalign::info_nce_forward<T>(call, at<T>(row_lse), at<T>(col_lse), at<T>(positive), threads);
}

template <class T>
void info_nce_backward(Address grad_row, Address grad_col, Address grad_positive, Address x, Address y,
                       const std::string& dtype, int64_t problems, int64_t n, int64_t d, Address logit_scale,
                       Address row_lse, Address col_lse, Address dx, Address dy, int threads) {
  require_sizes({problems, n, d, threads});
  const modalign::InfoNce<T> call{at<void>(x), at<void>(y), dtype_of(dtype), problems, n, d, at<T>(logit_scale)};
  py::gil_scoped_release released;
  modalign::info_nce_backward<T>(call, at<T>(grad_row), at<T>(grad_col), at<T>(grad_positive), at<T>(row_lse),
                                 at<T>(col_lse), at<T>(dx), at<T>(dy), threads);
}

void knn(Address gallery, Address queries, const std::string& dtype, int64_t n, int64_t m, int64_t d, int64_t k,
         const std::string& metric, Address indices, Address scores, int threads) {
  require_sizes({n, m, d, k, threads});
  if (n > INT32_MAX) throw std::invalid_argument("knn takes up to 2^31 - 1 rows, got " + std::to_string(n));
  if (k > n - (queries == 0))
    throw std::invalid_argument("k must be below the number of rows, got " + std::to_string(k));
  const modalign::Knn call{at<void>(gallery), at<void>(queries), dtype_of(dtype), n, m, d, k, metric_of(metric)};
  py::gil_scoped_release released;
  modalign::knn(call, at<int64_t>(indices), at<double>(scores), threads);
}

void neighbor_overlap(Address a, Address b, int64_t n, int64_t k, Address counts, int threads) {
  require_sizes({n, k, threads});
  py::gil_scoped_release released;
  modalign::neighbor_overlap(at<int64_t>(a), at<int64_t>(b), n, k, at<int32_t>(counts), threads);
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
  module.def("info_nce_forward_float32", &info_nce_forward<float>);
  module.def("info_nce_forward_float64", &info_nce_forward<double>);
  module.def("info_nce_backward_float32", &info_nce_backward<float>);
  module.def("info_nce_backward_float64", &info_nce_backward<double>);
  module.def("knn", &knn);
  module.def("neighbor_overlap", &neighbor_overlap);
}
