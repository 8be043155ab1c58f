// csrc/cuda/knn/knn_survivors.cuh as a function that runs on the host, for tests/kernels/test_cuda_survivors.py.
#include "cuda/knn/knn_survivors.cuh"

using namespace modalign::cuda;

namespace {

template <bool kSymmetric, bool kBfloat16>
void run(const CUtensorMap& rows, const CUtensorMap& columns, const Survivors& tables, int blocks) {
  host::launch(blocks, kThreads, sizeof(SurvivorsShared),
               [&] { knn_survivors_kernel<kSymmetric, kBfloat16>(rows, columns, tables); });
}

}  // namespace

extern "C" void knn_survivors(uint16_t* queries, uint16_t* gallery, int bfloat16, int symmetric, int blocks,
                              const Survivors* tables) {
  const CUtensorMap rows{queries, tables->m, tables->d, tables->d, kTileRows},
      columns{gallery, tables->n, tables->d, tables->d, kTileColumns};
  const auto run_kernel =
      symmetric ? (bfloat16 ? run<true, true> : run<true, false>) : (bfloat16 ? run<false, true> : run<false, false>);
  run_kernel(rows, columns, *tables, blocks);
}
