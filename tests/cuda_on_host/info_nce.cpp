// csrc/cuda/losses/info_nce.cuh as functions of the host, for tests/kernels/test_cuda_info_nce.py.
#include "cuda/losses/info_nce.cuh"

using namespace modalign::cuda;

namespace {

template <class On>
CUtensorMap map_of_x(uint16_t* x, const On* on) {
  return {x, on->n, on->d, on->d, kTileRows};
}

template <class On>
CUtensorMap map_of_y(uint16_t* y, const On* on) {
  return {y, on->m, on->d, on->d, kTileColumns};
}

}  // namespace

extern "C" void info_nce_sums(uint16_t* x, uint16_t* y, int blocks, const Sums* on) {
  const CUtensorMap of_x = map_of_x(x, on), of_y = map_of_y(y, on);
  host::launch(blocks, kThreads, sizeof(SumsShared), [&] { info_nce_sums_kernel(of_x, of_y, *on); });
}

extern "C" void info_nce_weights(uint16_t* x, uint16_t* y, uint16_t* weights, int64_t stride, int blocks,
                                 const Weights* on) {
  const CUtensorMap of_x = map_of_x(x, on), of_y = map_of_y(y, on);
  const CUtensorMap to{weights, on->part.rows, on->part.cols, stride, kWarpRows};
  host::launch(blocks, kThreads, sizeof(WeightsShared), [&] { info_nce_weights_kernel(of_x, of_y, to, *on); });
}
