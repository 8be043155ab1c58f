// modalign._cuda: imports on a machine without a GPU; a launch there raises.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "cuda/knn_survivors.hpp"
#include "cuda/neighbor_overlap.hpp"

namespace py = pybind11;

namespace {

using modalign::cuda::Extremes;
using modalign::cuda::Survivors;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

template <typename T>
T* table(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void neighbor_overlap(uintptr_t a, uintptr_t b, int64_t n, int64_t k, uintptr_t counts, int device, uintptr_t stream) {
  if (n < 1 || k < 1) throw std::invalid_argument("sizes must be at least 1");
  check(cudaSetDevice(device));
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
  check(cudaSetDevice(device));
  check(modalign::cuda::knn_survivors(table<const void>(queries), table<const void>(gallery), bfloat16, symmetric, on,
                                      reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of modalign; see csrc/README.md.";
  module.attr("architectures") = MODALIGN_CUDA_ARCHITECTURES;
  module.def("neighbor_overlap", &neighbor_overlap);
  module.def("knn_survivors", &knn_survivors);
}
