#pragma once

#include <cstdint>

namespace modalign::cuda {

struct Extremes {
  float offset, slack, error, most_scale, least_scale;  // the largest of these, and the least scale
};

// Tables on the device. m searching rows, n gallery rows. groups: int64 [m], [n], equal ones are no neighbours, or
// null.
struct Survivors {
  const float *row_scale, *row_slack, *row_norm, *threshold;    // [m]
  const float *col_scale, *col_offset, *col_slack, *col_error;  // [n]
  const Extremes* extremes;                                     // [2 ceil(n / 256)]
  const int64_t* excluded;                                      // [m], not read when `symmetric`
  const int64_t *row_group, *col_group;
  int64_t* keys;    // [m, capacity]
  int32_t* counts;  // [m]
  int m, n, d, capacity;
};

}  // namespace modalign::cuda
