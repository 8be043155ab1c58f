// Tiles of 128 x 256 products of two tables, on sm_90a: one thread copies the features of tile after tile into a ring
// of stages in shared memory, 64 at a time, and two warpgroups multiply the stages that have arrived, 64 rows each.
//
// The copying thread runs ahead as far as the ring reaches: it copies the next tile while the sums of the last are
// used.
#pragma once

#include "cuda/shared/hopper.cuh"

namespace modalign::cuda {

constexpr int kTileRows = 128;
constexpr int kTileColumns = hopper::kProducts;
constexpr int kStages = 4;
constexpr int kLead = 2;                                   // stages that the first warpgroup may be ahead of the second
constexpr int kConsumers = 2 * hopper::kWarpgroup;         // threads that multiply
constexpr int kThreads = kConsumers + hopper::kWarpgroup;  // plus a warpgroup of which one thread copies
constexpr int kConsumerRegisters = 232,
              kProducerRegisters = 40;  // 504 for a thread of each: the 64 K of a multiprocessor

struct Stage {
  alignas(hopper::kTileAlignment) uint16_t rows[kTileRows * hopper::kFeatures];
  alignas(hopper::kTileAlignment) uint16_t columns[kTileColumns * hopper::kFeatures];
};

// The stages and their barriers, in shared memory.
struct Ring {
  Stage stages[kStages];
  hopper::Barrier full[kStages], empty[kStages];

  // Initialise the barriers. One thread calls this, and the block synchronises before it goes on.
  __device__ void make() {
    for (int stage = 0; stage < kStages; ++stage) {
      hopper::barrier_init(full + stage, 1);
      hopper::barrier_init(empty + stage, kConsumers / 32);
    }
    hopper::barriers_made();
  }
};

// The place of a thread in the ring.
struct Place {
  int stage = 0, round = 0;

  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      round ^= 1;
    }
  }
};

// The two tables of a product, [., d] in half precision, d a multiple of 8; their maps have boxes of kTileRows and of
// kTileColumns rows.
struct ProductMaps {
  const CUtensorMap* rows;
  const CUtensorMap* columns;
  int d;
};

// Copy the features of the tile that starts at this row and column, stage by stage.
__device__ inline void copy_products(Ring& ring, Place& place, const ProductMaps& maps, int first_row,
                                     int first_column) {
  for (int feature = 0; feature < maps.d; feature += hopper::kFeatures, place.next()) {
    Stage& stage = ring.stages[place.stage];
    hopper::Barrier* full = ring.full + place.stage;
    hopper::barrier_wait(ring.empty + place.stage, place.round ^ 1);
    hopper::barrier_arrive_for(full, sizeof(stage.rows) + sizeof(stage.columns));
    hopper::copy_tile(stage.rows, maps.rows, feature, first_row, full);
    hopper::copy_tile(stage.columns, maps.columns, feature, first_column, full);
  }
}

// Make the second warpgroup wait, once, until the first has the data to be `kLead` stages ahead. Where they do not meet
// at every tile, one then multiplies while the other uses its sums.
__device__ inline void fall_behind(Ring& ring, int d, int warpgroup) {
  const int stages = (d - 1) / hopper::kFeatures + 1;
  if (warpgroup == 1) hopper::barrier_wait(ring.full + (stages > kLead ? kLead : stages - 1), 0);
}

// Compute the products of the rows of this warpgroup (0 or 1), in the layout of hopper::multiply.
template <bool kBfloat16>
__device__ inline void multiply_tile(Ring& ring, Place& place, float (&sums)[hopper::kSums], int d, int warpgroup) {
  const bool arrives = threadIdx.x % 32 == 0;
  hopper::Barrier* last = nullptr;
  for (int feature = 0; feature < d; feature += hopper::kFeatures, place.next()) {
    const Stage& stage = ring.stages[place.stage];
    hopper::barrier_wait(ring.full + place.stage, place.round);
    hopper::products_begin();
    const uint16_t* rows = stage.rows + warpgroup * (kTileRows / 2) * hopper::kFeatures;
#pragma unroll
    for (int step = 0; step < hopper::kFeatures / hopper::kStep; ++step)
      hopper::multiply<kBfloat16>(sums, hopper::operand(rows, step), hopper::operand(stage.columns, step),
                                  feature + step > 0);
    hopper::products_end();
    hopper::products_wait<1>();
    if (last && arrives) hopper::barrier_arrive(last);
    last = ring.empty + place.stage;
  }
  hopper::products_wait<0>();
  hopper::products_done(sums);
  if (last && arrives) hopper::barrier_arrive(last);
}

}  // namespace modalign::cuda
