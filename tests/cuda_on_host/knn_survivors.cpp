// csrc/cuda/knn/knn_survivors.cuh as a function of the host, for tests/kernels/test_cuda_survivors.py.
#include "cuda/knn/knn_survivors.cuh"

using namespace modalign::cuda;

namespace {

template <bool kSymmetric, bool kBfloat16>
void run(const CUtensorMap& rows, const CUtensorMap& columns, const Survivors& on, int blocks) {
  host::launch(blocks, kThreads, sizeof(SurvivorsShared),
               [&] { knn_survivors_kernel<kSymmetric, kBfloat16>(rows, columns, on); });
}

}  // namespace

extern "C" void knn_survivors(uint16_t* queries, uint16_t* gallery, int bfloat16, int symmetric, int blocks,
                              const Survivors* on) {
  const CUtensorMap rows{queries, on->m, on->d, on->d, kTileRows}, columns{gallery, on->n, on->d, on->d, kTileColumns};
  const auto of =
      symmetric ? (bfloat16 ? run<true, true> : run<true, false>) : (bfloat16 ? run<false, true> : run<false, false>);
  of(rows, columns, *on, blocks);
}
