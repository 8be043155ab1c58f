// modalign._cuda: imports on a machine without a GPU; a launch there raises.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "cuda/graphs/neighbor_overlap.hpp"
#include "cuda/knn/knn_survivors.hpp"
#include "cuda/losses/info_nce.hpp"

namespace py = pybind11;

namespace {

using modalign::cuda::Extremes;
using modalign::cuda::Part;
using modalign::cuda::Sums;
using modalign::cuda::Survivors;
using modalign::cuda::Weights;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next launch would report it
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// The device of a call; the caller's is current again afterwards.
class Current {
 public:
  explicit Current(int device) {
    check(cudaGetDevice(&before_));
    check(cudaSetDevice(device));
  }
  ~Current() { cudaSetDevice(before_); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

template <typename T>
T* table(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void neighbor_overlap(uintptr_t a, uintptr_t b, int64_t n, int64_t k, uintptr_t counts, int device, uintptr_t stream) {
  if (n < 1 || k < 1) throw std::invalid_argument("sizes must be at least 1");
  const Current current(device);
  check(modalign::cuda::neighbor_overlap(table<const int64_t>(a), table<const int64_t>(b), n, k, table<int32_t>(counts),
                                         reinterpret_cast<cudaStream_t>(stream)));
}

// row: scale, slack, norm, threshold; col: scale, offset, slack, error; groups: of both, or 0.
void knn_survivors(uintptr_t queries, uintptr_t gallery, bool bfloat16, bool symmetric,
                   const std::array<uintptr_t, 4>& row, const std::array<uintptr_t, 4>& col, uintptr_t extremes,
                   uintptr_t excluded, const std::array<uintptr_t, 2>& groups, uintptr_t keys, uintptr_t counts, int m,
                   int n, int d, int capacity, int device, uintptr_t stream) {
  if (m < 1 || n < 1 || d < 8 || d % 8 != 0 || capacity < 1)
    throw std::invalid_argument("sizes must be at least 1, and d a multiple of 8");
  if (queries % 16 != 0 || gallery % 16 != 0) throw std::invalid_argument("tables must start at multiples of 16 bytes");
  Survivors on{};
  on.row_scale = table<const float>(row[0]), on.row_slack = table<const float>(row[1]);
  on.row_norm = table<const float>(row[2]), on.threshold = table<const float>(row[3]);
  on.col_scale = table<const float>(col[0]), on.col_offset = table<const float>(col[1]);
  on.col_slack = table<const float>(col[2]), on.col_error = table<const float>(col[3]);
  on.extremes = table<const Extremes>(extremes), on.excluded = table<const int64_t>(excluded);
  on.row_group = table<const int64_t>(groups[0]), on.col_group = table<const int64_t>(groups[1]);
  on.keys = table<int64_t>(keys), on.counts = table<int32_t>(counts);
  on.m = m, on.n = n, on.d = d, on.capacity = capacity;
  const Current current(device);
  check(modalign::cuda::knn_survivors(table<const void>(queries), table<const void>(gallery), bfloat16, symmetric, on,
                                      reinterpret_cast<cudaStream_t>(stream)));
}

Part checked_part(const std::array<int, 4>& part, int n, int m, int d) {
  const auto [row, rows, col, cols] = part;
  if (rows < 1 || cols < 1 || d < 8 || d % 8 != 0)
    throw std::invalid_argument("sizes must be at least 1, and d a multiple of 8");
  if (row < 0 || row > n - rows || col < 0 || col > m - cols) throw std::invalid_argument("the part is not in S");
  return {row, rows, col, cols};
}

// part: first row, rows, first column, columns.
void info_nce_sums(uintptr_t x, uintptr_t y, uintptr_t scale, uintptr_t row_parts, int64_t row_stride,
                   uintptr_t col_parts, uintptr_t positive, bool pairs_left_out, const std::array<int, 4>& part, int n,
                   int m, int d, int device, uintptr_t stream) {
  Sums on{};
  on.scale = table<const float>(scale), on.row_parts = table<float>(row_parts), on.row_stride = row_stride;
  on.col_parts = table<float>(col_parts), on.positive = table<float>(positive);
  on.part = checked_part(part, n, m, d), on.n = n, on.m = m, on.d = d, on.pairs_left_out = pairs_left_out;
  if (on.part.cols != m || row_stride < on.part.rows)
    throw std::invalid_argument("the part must have all columns, and row_stride room for its rows");
  const Current current(device);
  check(modalign::cuda::info_nce_sums(table<const void>(x), table<const void>(y), on,
                                      reinterpret_cast<cudaStream_t>(stream)));
}

// row, col: log-sum-exps and gradients, or 0.
void info_nce_weights(uintptr_t x, uintptr_t y, uintptr_t scale, const std::array<uintptr_t, 2>& row,
                      const std::array<uintptr_t, 2>& col, uintptr_t positive_grad, bool pairs_left_out,
                      uintptr_t weights, int64_t stride, const std::array<int, 4>& part, int n, int m, int d,
                      int device, uintptr_t stream) {
  Weights on{};
  on.scale = table<const float>(scale);
  on.row_lse = table<const float>(row[0]), on.row_grad = table<const float>(row[1]);
  on.col_lse = table<const float>(col[0]), on.col_grad = table<const float>(col[1]);
  on.positive_grad = table<const float>(positive_grad);
  on.part = checked_part(part, n, m, d), on.n = n, on.m = m, on.d = d, on.pairs_left_out = pairs_left_out;
  if (stride % 8 != 0 || stride < on.part.cols || weights % 16 != 0)
    throw std::invalid_argument("rows of weights must hold the part and start at multiples of 16 bytes");
  const Current current(device);
  check(modalign::cuda::info_nce_weights(table<const void>(x), table<const void>(y), table<void>(weights), stride, on,
                                         reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of modalign; see csrc/README.md.";
  module.attr("architectures") = MODALIGN_CUDA_ARCHITECTURES;
  module.def("info_nce_sums", &info_nce_sums);
  module.def("info_nce_weights", &info_nce_weights);
  module.def("neighbor_overlap", &neighbor_overlap);
  module.def("knn_survivors", &knn_survivors);
}
