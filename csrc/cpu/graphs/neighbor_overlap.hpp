#pragma once

#include <cstdint>

namespace modalign {

// counts[i, r] = |{a_i0 .. a_ir} & {b_i0 .. b_ir}| for int64 indices a, b [n, k], distinct in each row; counts [n, k].
void neighbor_overlap(const int64_t* a, const int64_t* b, int64_t n, int64_t k, int32_t* counts, int threads);

}  // namespace modalign
