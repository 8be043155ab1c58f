#include <algorithm>

#include "cuda/losses/info_nce.cuh"
#include "cuda/losses/info_nce.hpp"
#include "cuda/shared/tensor_map.hpp"

namespace modalign::cuda {
namespace {

struct InputMaps {
  CUtensorMap x, y;
  int multiprocessors;
};

template <class Tables>
cudaError_t map_inputs(InputMaps* maps, const InfoNceInputs& inputs, const Tables& tables) {
  cudaError_t error = hopper_multiprocessors(&maps->multiprocessors);
  if (error == cudaSuccess) error = tensor_map(&maps->x, {inputs.x, tables.n, tables.d, tables.d}, kTileRows);
  if (error == cudaSuccess) error = tensor_map(&maps->y, {inputs.y, tables.m, tables.d, tables.d}, kTileColumns);
  return error;
}

// Allow a kernel the dynamic shared memory that it needs, in bytes.
template <class Shared, class Kernel>
cudaError_t prepare_launch(Kernel kernel, int* bytes) {
  *bytes = sizeof(Shared) + hopper::kTileAlignment;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, *bytes);
}

int blocks_of(const InputMaps& maps, const Part& part) { return std::min(maps.multiprocessors, tiles(part)); }

}  // namespace

cudaError_t info_nce_sums(const InfoNceInputs& inputs, const Sums& tables, cudaStream_t stream) {
  InputMaps maps;
  int bytes = 0;
  cudaError_t error = map_inputs(&maps, inputs, tables);
  if (error == cudaSuccess) error = prepare_launch<SumsShared>(info_nce_sums_kernel, &bytes);
  if (error != cudaSuccess) return error;
  info_nce_sums_kernel<<<blocks_of(maps, tables.part), kThreads, bytes, stream>>>(maps.x, maps.y, tables);
  return cudaGetLastError();
}

cudaError_t info_nce_weights(const InfoNceInputs& inputs, const WeightsOutput& output, const Weights& tables,
                             cudaStream_t stream) {
  InputMaps maps;
  CUtensorMap output_map;
  int bytes = 0;
  const Part& part = tables.part;
  cudaError_t error = map_inputs(&maps, inputs, tables);
  if (error == cudaSuccess)
    error = tensor_map(&output_map, {output.data, part.rows, part.cols, output.stride}, kWarpRows);
  if (error == cudaSuccess) error = prepare_launch<WeightsShared>(info_nce_weights_kernel, &bytes);
  if (error != cudaSuccess) return error;
  info_nce_weights_kernel<<<blocks_of(maps, part), kThreads, bytes, stream>>>(maps.x, maps.y, output_map, tables);
  return cudaGetLastError();
}

}  // namespace modalign::cuda
