// modalign._cuda: imports on a machine without a GPU; a launch there raises.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "cuda/neighbor_overlap.hpp"

namespace py = pybind11;

namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

void neighbor_overlap(uintptr_t a, uintptr_t b, int64_t n, int64_t k, uintptr_t counts, int device, uintptr_t stream) {
  if (n < 1 || k < 1) throw std::invalid_argument("sizes must be at least 1");
  check(cudaSetDevice(device));
  check(modalign::cuda::neighbor_overlap(reinterpret_cast<const int64_t*>(a), reinterpret_cast<const int64_t*>(b), n, k,
                                         reinterpret_cast<int32_t*>(counts), reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of modalign; see csrc/README.md.";
  module.attr("architectures") = MODALIGN_CUDA_ARCHITECTURES;
  module.def("neighbor_overlap", &neighbor_overlap);
}
