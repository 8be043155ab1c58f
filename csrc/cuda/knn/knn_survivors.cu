#include <algorithm>

#include "cuda/knn/knn_survivors.cuh"
#include "cuda/knn/knn_survivors.hpp"
#include "cuda/shared/tensor_map.hpp"

namespace modalign::cuda {
namespace {

struct InputMaps {
  CUtensorMap rows, columns;
  int multiprocessors;
};

template <bool kSymmetric, bool kBfloat16>
cudaError_t launch(const InputMaps& maps, const Survivors& tables, cudaStream_t stream) {
  const auto kernel = knn_survivors_kernel<kSymmetric, kBfloat16>;
  const int bytes = sizeof(SurvivorsShared) + hopper::kTileAlignment;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int64_t blocks = std::min<int64_t>(maps.multiprocessors, tiles<kSymmetric>(tables.m, tables.n));
  kernel<<<static_cast<unsigned>(blocks), kThreads, bytes, stream>>>(maps.rows, maps.columns, tables);
  return cudaGetLastError();
}

}  // namespace

cudaError_t knn_survivors(const ScreenInputs& inputs, const Survivors& tables, cudaStream_t stream) {
  InputMaps maps;
  cudaError_t error = hopper_multiprocessors(&maps.multiprocessors);
  if (error == cudaSuccess) error = tensor_map(&maps.rows, {inputs.queries, tables.m, tables.d, tables.d}, kTileRows);
  if (error == cudaSuccess)
    error = tensor_map(&maps.columns, {inputs.gallery, tables.n, tables.d, tables.d}, kTileColumns);
  if (error != cudaSuccess) return error;
  const auto run = inputs.symmetric ? (inputs.bfloat16 ? launch<true, true> : launch<true, false>)
                                    : (inputs.bfloat16 ? launch<false, true> : launch<false, false>);
  return run(maps, tables, stream);
}

}  // namespace modalign::cuda
