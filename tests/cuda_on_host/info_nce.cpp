// csrc/cuda/losses/info_nce.cuh as functions that run on the host, for tests/kernels/test_cuda_info_nce.py.
#include "cuda/losses/info_nce.cuh"

using namespace modalign::cuda;

namespace {

template <class Tables>
CUtensorMap map_of_x(uint16_t* x, const Tables* tables) {
  return {x, tables->n, tables->d, tables->d, kTileRows};
}

template <class Tables>
CUtensorMap map_of_y(uint16_t* y, const Tables* tables) {
  return {y, tables->m, tables->d, tables->d, kTileColumns};
}

}  // namespace

extern "C" void info_nce_sums(uint16_t* x, uint16_t* y, int blocks, const Sums* tables) {
  const CUtensorMap x_map = map_of_x(x, tables), y_map = map_of_y(y, tables);
  host::launch(blocks, kThreads, sizeof(SumsShared), [&] { info_nce_sums_kernel(x_map, y_map, *tables); });
}

extern "C" void info_nce_weights(uint16_t* x, uint16_t* y, uint16_t* weights, int64_t stride, int blocks,
                                 const Weights* tables) {
  const CUtensorMap x_map = map_of_x(x, tables), y_map = map_of_y(y, tables);
  const CUtensorMap output{weights, tables->part.rows, tables->part.cols, stride, kWarpRows};
  host::launch(blocks, kThreads, sizeof(WeightsShared),
               [&] { info_nce_weights_kernel(x_map, y_map, output, *tables); });
}
