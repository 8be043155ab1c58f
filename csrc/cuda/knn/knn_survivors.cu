#include <algorithm>

#include "cuda/knn/knn_survivors.cuh"
#include "cuda/knn/knn_survivors.hpp"
#include "cuda/shared/tensor_map.hpp"

namespace modalign::cuda {
namespace {

template <bool kSymmetric, bool kBfloat16>
cudaError_t launch(const CUtensorMap& rows, const CUtensorMap& columns, const Survivors& on, int multiprocessors,
                   cudaStream_t stream) {
  const auto kernel = knn_survivors_kernel<kSymmetric, kBfloat16>;
  const int bytes = sizeof(SurvivorsShared) + hopper::kTileAlignment;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const int64_t blocks = std::min<int64_t>(multiprocessors, tiles<kSymmetric>(on.m, on.n));
  kernel<<<static_cast<unsigned>(blocks), kThreads, bytes, stream>>>(rows, columns, on);
  return cudaGetLastError();
}

}  // namespace

cudaError_t knn_survivors(const void* queries, const void* gallery, bool bfloat16, bool symmetric, const Survivors& on,
                          cudaStream_t stream) {
  int multiprocessors = 0;
  CUtensorMap rows, columns;
  cudaError_t error = hopper_multiprocessors(&multiprocessors);
  if (error == cudaSuccess) error = tensor_map(&rows, queries, on.m, on.d, on.d, kTileRows);
  if (error == cudaSuccess) error = tensor_map(&columns, gallery, on.n, on.d, on.d, kTileColumns);
  if (error != cudaSuccess) return error;
  const auto run = symmetric ? (bfloat16 ? launch<true, true> : launch<true, false>)
                             : (bfloat16 ? launch<false, true> : launch<false, false>);
  return run(rows, columns, on, multiprocessors, stream);
}

}  // namespace modalign::cuda
