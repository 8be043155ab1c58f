// The tables that the screen of knn reads and writes, in device memory.
#pragma once

#include <cstdint>

namespace modalign::cuda {

// The largest offset, slack, error and scale of some gallery rows, and their smallest scale.
struct Extremes {
  float offset, slack, error, most_scale, least_scale;
};

// m searching rows, n gallery rows. groups: int64 [m] and [n], or null; rows of one group are not neighbours.
struct Survivors {
  const float *row_scale, *row_slack, *row_norm, *threshold;    // [m]
  const float *col_scale, *col_offset, *col_slack, *col_error;  // [n]
  const Extremes* extremes;                                     // [2 ceil(n / 256)]
  const int64_t* excluded;                                      // [m], not read in a symmetric search
  const int64_t *row_group, *col_group;
  int64_t* keys;    // [m, capacity]
  int32_t* counts;  // [m]
  int m, n, d, capacity;
};

}  // namespace modalign::cuda
