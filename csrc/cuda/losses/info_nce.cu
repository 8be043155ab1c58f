#include <algorithm>

#include "cuda/losses/info_nce.cuh"
#include "cuda/losses/info_nce.hpp"
#include "cuda/shared/tensor_map.hpp"

namespace modalign::cuda {
namespace {

struct Tables {
  CUtensorMap x, y;
  int multiprocessors;
};

template <class On>
cudaError_t see(Tables* tables, const void* x, const void* y, const On& on) {
  cudaError_t error = hopper_multiprocessors(&tables->multiprocessors);
  if (error == cudaSuccess) error = tensor_map(&tables->x, x, on.n, on.d, on.d, kTileRows);
  if (error == cudaSuccess) error = tensor_map(&tables->y, y, on.m, on.d, on.d, kTileColumns);
  return error;
}

template <class Shared, class... Arguments>
cudaError_t launch(void (*kernel)(Arguments...), const Tables& tables, const Part& part, cudaStream_t stream,
                   const Arguments&... arguments) {
  const int bytes = sizeof(Shared) + hopper::kTileAlignment;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int blocks = std::min(tables.multiprocessors, tiles(part));
  kernel<<<blocks, kThreads, bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace

cudaError_t info_nce_sums(const void* x, const void* y, const Sums& on, cudaStream_t stream) {
  Tables tables;
  const cudaError_t error = see(&tables, x, y, on);
  if (error != cudaSuccess) return error;
  return launch<SumsShared>(info_nce_sums_kernel, tables, on.part, stream, tables.x, tables.y, on);
}

cudaError_t info_nce_weights(const void* x, const void* y, void* weights, int64_t stride, const Weights& on,
                             cudaStream_t stream) {
  Tables tables;
  CUtensorMap to;
  cudaError_t error = see(&tables, x, y, on);
  if (error == cudaSuccess) error = tensor_map(&to, weights, on.part.rows, on.part.cols, stride, kWarpRows);
  if (error != cudaSuccess) return error;
  return launch<WeightsShared>(info_nce_weights_kernel, tables, on.part, stream, tables.x, tables.y, to, on);
}

}  // namespace modalign::cuda
