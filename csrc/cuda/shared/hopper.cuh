// The instructions of sm_90a for tiles of matrix products, one function for each: barriers that count bytes, bulk
// copies of tiles into shared memory, products of a warpgroup (128 threads) from shared memory into registers.
//
// tests/cuda_on_host/cuda/shared/hopper.cuh has the same functions in C++, so that kernels written with them run on a
// CPU.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace modalign::cuda::hopper {

constexpr int kWarpgroup = 128;
constexpr int kFeatures = 64;         // of a tile: 128 bytes for each row in half precision, the widest swizzle
constexpr int kProducts = 256;        // columns of one product, 64 rows x 256 columns x 16 features
constexpr int kSums = kProducts / 2;  // sums of one product that each of its 128 threads holds
constexpr int kStep = 16;             // features of one product
constexpr int kTileAlignment = 1024;  // bytes: eight rows, after which the swizzle repeats

using Barrier = uint64_t;  // in shared memory

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Return the dynamic shared memory from the first address where a tile may start on; a launch asks for kTileAlignment
// bytes more.
__device__ inline unsigned char* shared_memory() {
  extern __shared__ unsigned char memory[];
  return memory + (kTileAlignment - shared_address(memory) % kTileAlignment) % kTileAlignment;
}

// Initialise a barrier, whose phase ends when `arrivals` threads have arrived and the bytes that they announced have
// come.
__device__ inline void barrier_init(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Call this after the last barrier_init, before other threads or copies use the barriers.
__device__ inline void barriers_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ inline void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ inline void barrier_arrive_for(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Return when the phase of this parity (0 for the first, then 1, 0, ...) has ended.
__device__ inline void barrier_wait(Barrier* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Copy the box of the map that starts at this feature and row; numbers outside the table are zero. One thread calls
// this.
__device__ inline void copy_tile(void* to, const CUtensorMap* map, int feature, int row, Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(to)),
      "l"(reinterpret_cast<uint64_t>(map)), "r"(feature), "r"(row), "r"(shared_address(barrier))
      : "memory");
}

// Return the offset of a byte in a swizzled tile, given its offset without the swizzle: bits 7 to 9 are added to bits 4
// to 6 without carry.
__device__ inline uint32_t swizzled(uint32_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

// Every thread that wrote a tile into shared memory calls this before one of them calls store_tile.
__device__ inline void stores_begin() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The reverse of copy_tile; numbers outside the table are not written. One thread calls this.
__device__ inline void store_tile(const CUtensorMap* map, int feature, int row, const void* from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
                   reinterpret_cast<uint64_t>(map)),
               "r"(feature), "r"(row), "r"(shared_address(from))
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Return when every tile that this thread stored has been read: then it may be overwritten, or the block may end.
__device__ inline void stores_wait() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// Round two numbers to the nearest bfloat16; the first goes to the lower half.
__device__ inline uint32_t bfloat16_pair(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

// Wait for all threads of the block that call this with the same id (1 to 15); `threads` is their number.
__device__ inline void meet(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Return the descriptor of a tile as an operand of a product: rows of kFeatures half-precision numbers, features in
// order, as copy_tile swizzles them.
__device__ inline uint64_t operand(const void* tile, int step) {
  const uint64_t address = shared_address(tile) + step * kStep * 2;
  const uint64_t eight_rows = 8 * kFeatures * 2;
  return (address & 0x3ffff) >> 4 | uint64_t(1) << 16 | eight_rows >> 4 << 32 | uint64_t(1) << 62;
}

// Call this before the first product, which then sees what these threads wrote to registers and shared memory.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Make a group of the products since the last call.
__device__ inline void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Return when all groups but the last `kLeft` are done: then their tiles may be overwritten.
template <int kLeft>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

// Call this after products_wait<0> and before the sums are read, so that the compiler moves no read before it.
__device__ inline void products_done(float (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define MODALIGN_8(i)                                                                                           \
  "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]), \
      "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define MODALIGN_32(i) MODALIGN_8(i), MODALIGN_8(i + 8), MODALIGN_8(i + 16), MODALIGN_8(i + 24)
#define MODALIGN_PRODUCT(type)                                                                            \
  asm volatile(                                                                                           \
      "{\n"                                                                                               \
      ".reg .pred add;\n"                                                                                 \
      "setp.ne.b32 add, %130, 0;\n"                                                                       \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                        \
      " {"                                                                                                \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                            \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                  \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                  \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "                  \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                  \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "                  \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "      \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, " \
      "%128, %129, add, 1, 1, 0, 0;\n"                                                                    \
      "}\n"                                                                                               \
      : MODALIGN_32(0), MODALIGN_32(32), MODALIGN_32(64), MODALIGN_32(96)                                 \
      : "l"(rows), "l"(columns), "r"(int(add)))

// Set or add to sums the products of 64 rows with kProducts columns over kStep features. Thread t of the warpgroup
// holds in sums[4 g + e] that of row 16 (t / 32) + (t % 32) / 4 + 8 (e / 2) and column 8 g + 2 (t % 4) + e % 2.
template <bool kBfloat16>
__device__ inline void multiply(float (&sums)[kSums], uint64_t rows, uint64_t columns, bool add) {
  if constexpr (kBfloat16)
    MODALIGN_PRODUCT("bf16");
  else
    MODALIGN_PRODUCT("f16");
}

#undef MODALIGN_PRODUCT
#undef MODALIGN_32
#undef MODALIGN_8

}  // namespace modalign::cuda::hopper
