// One warp for each row: every lane looks up its entries of a in b and counts a match at the larger of the two ranks;
// the counts are then summed along the ranks. O(k^2 / 32) steps for each row, without sorting, in integers alone: the
// bits are the same every time.
#include "cuda/graphs/neighbor_overlap.hpp"

namespace modalign::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarpsPerBlock = 8;
constexpr unsigned kAll = 0xffffffffu;

__global__ void overlap_kernel(const int64_t* __restrict__ a, const int64_t* __restrict__ b, int64_t n, int64_t k,
                               int32_t* __restrict__ counts) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t(blockIdx.x) * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= n) return;
  const int64_t* left = a + row * k;
  const int64_t* right = b + row * k;
  int32_t* count = counts + row * k;
  for (int64_t r = lane; r < k; r += kWarp) count[r] = 0;
  __syncwarp();
  for (int64_t i = lane; i < k; i += kWarp) {
    for (int64_t j = 0; j < k; ++j)
      if (left[i] == right[j]) {
        atomicAdd(count + (i > j ? i : j), 1);
        break;
      }
  }
  __syncwarp();
  int32_t before = 0;
  for (int64_t start = 0; start < k; start += kWarp) {
    int32_t sum = start + lane < k ? count[start + lane] : 0;
    for (int step = 1; step < kWarp; step *= 2) {
      const int32_t lower_sum = __shfl_up_sync(kAll, sum, step);
      if (lane >= step) sum += lower_sum;
    }
    if (start + lane < k) count[start + lane] = before + sum;
    before += __shfl_sync(kAll, sum, kWarp - 1);
  }
}

}  // namespace

cudaError_t neighbor_overlap(const GraphPair& graphs, int32_t* counts, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>((graphs.n + kWarpsPerBlock - 1) / kWarpsPerBlock);
  overlap_kernel<<<blocks, kWarp * kWarpsPerBlock, 0, stream>>>(graphs.a, graphs.b, graphs.n, graphs.k, counts);
  return cudaGetLastError();
}

}  // namespace modalign::cuda
