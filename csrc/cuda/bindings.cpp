// modalign._cuda: the functions here check and convert arguments, select the device, and launch. A tensor comes as the
// address of contiguous device memory (0: absent); python/modalign/ops/_cuda.py is the only caller. The module imports
// on a machine without a GPU; a launch there raises RuntimeError.
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
  cudaGetLastError();  // clears the error, which the next launch would report otherwise
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Makes a device current, and the caller's device afterwards.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    check(cudaGetDevice(&before_));
    check(cudaSetDevice(device));
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void neighbor_overlap(uintptr_t a, uintptr_t b, int64_t n, int64_t k, uintptr_t counts, int device, uintptr_t stream) {
  if (n < 1 || k < 1) throw std::invalid_argument("sizes must be at least 1");
  const CurrentDevice current(device);
  check(modalign::cuda::neighbor_overlap({pointer<const int64_t>(a), pointer<const int64_t>(b), n, k},
                                         pointer<int32_t>(counts), reinterpret_cast<cudaStream_t>(stream)));
}

// row: scale, slack, norm, threshold; col: scale, offset, slack, error; groups: those of both sides, or 0
void knn_survivors(uintptr_t queries, uintptr_t gallery, bool bfloat16, bool symmetric,
                   const std::array<uintptr_t, 4>& row, const std::array<uintptr_t, 4>& col, uintptr_t extremes,
                   uintptr_t excluded, const std::array<uintptr_t, 2>& groups, uintptr_t keys, uintptr_t counts, int m,
                   int n, int d, int capacity, int device, uintptr_t stream) {
  if (m < 1 || n < 1 || d < 8 || d % 8 != 0 || capacity < 1)
    throw std::invalid_argument("sizes must be at least 1, and d a multiple of 8");
  if (queries % 16 != 0 || gallery % 16 != 0) throw std::invalid_argument("tables must start at multiples of 16 bytes");
  Survivors tables{};
  tables.row_scale = pointer<const float>(row[0]), tables.row_slack = pointer<const float>(row[1]);
  tables.row_norm = pointer<const float>(row[2]), tables.threshold = pointer<const float>(row[3]);
  tables.col_scale = pointer<const float>(col[0]), tables.col_offset = pointer<const float>(col[1]);
  tables.col_slack = pointer<const float>(col[2]), tables.col_error = pointer<const float>(col[3]);
  tables.extremes = pointer<const Extremes>(extremes), tables.excluded = pointer<const int64_t>(excluded);
  tables.row_group = pointer<const int64_t>(groups[0]), tables.col_group = pointer<const int64_t>(groups[1]);
  tables.keys = pointer<int64_t>(keys), tables.counts = pointer<int32_t>(counts);
  tables.m = m, tables.n = n, tables.d = d, tables.capacity = capacity;
  const CurrentDevice current(device);
  check(modalign::cuda::knn_survivors({pointer<const void>(queries), pointer<const void>(gallery), bfloat16, symmetric},
                                      tables, reinterpret_cast<cudaStream_t>(stream)));
}

Part checked_part(const std::array<int, 4>& part, int n, int m, int d) {
  const auto [row, rows, col, cols] = part;
  if (rows < 1 || cols < 1 || d < 8 || d % 8 != 0)
    throw std::invalid_argument("sizes must be at least 1, and d a multiple of 8");
  if (row < 0 || row > n - rows || col < 0 || col > m - cols) throw std::invalid_argument("the part must lie in S");
  return {row, rows, col, cols};
}

// part: first row, rows, first column, columns
void info_nce_sums(uintptr_t x, uintptr_t y, uintptr_t scale, uintptr_t row_parts, int64_t row_stride,
                   uintptr_t col_parts, uintptr_t positive, bool pairs_left_out, const std::array<int, 4>& part, int n,
                   int m, int d, int device, uintptr_t stream) {
  Sums tables{};
  tables.scale = pointer<const float>(scale), tables.row_parts = pointer<float>(row_parts),
  tables.row_stride = row_stride;
  tables.col_parts = pointer<float>(col_parts), tables.positive = pointer<float>(positive);
  tables.part = checked_part(part, n, m, d), tables.n = n, tables.m = m, tables.d = d,
  tables.pairs_left_out = pairs_left_out;
  if (tables.part.cols != m || row_stride < tables.part.rows)
    throw std::invalid_argument("the part must have all columns, and row_stride room for its rows");
  const CurrentDevice current(device);
  check(modalign::cuda::info_nce_sums({pointer<const void>(x), pointer<const void>(y)}, tables,
                                      reinterpret_cast<cudaStream_t>(stream)));
}

// row, col: log-sum-exps and gradients, or 0
void info_nce_weights(uintptr_t x, uintptr_t y, uintptr_t scale, const std::array<uintptr_t, 2>& row,
                      const std::array<uintptr_t, 2>& col, uintptr_t positive_grad, bool pairs_left_out,
                      uintptr_t weights, int64_t stride, const std::array<int, 4>& part, int n, int m, int d,
                      int device, uintptr_t stream) {
  Weights tables{};
  tables.scale = pointer<const float>(scale);
  tables.row_lse = pointer<const float>(row[0]), tables.row_grad = pointer<const float>(row[1]);
  tables.col_lse = pointer<const float>(col[0]), tables.col_grad = pointer<const float>(col[1]);
  tables.positive_grad = pointer<const float>(positive_grad);
  tables.part = checked_part(part, n, m, d), tables.n = n, tables.m = m, tables.d = d,
  tables.pairs_left_out = pairs_left_out;
  if (stride % 8 != 0 || stride < tables.part.cols || weights % 16 != 0)
    throw std::invalid_argument("rows of weights must hold the part and start at multiples of 16 bytes");
  const CurrentDevice current(device);
  check(modalign::cuda::info_nce_weights({pointer<const void>(x), pointer<const void>(y)},
                                         {pointer<void>(weights), stride}, tables,
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
