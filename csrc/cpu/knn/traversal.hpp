// The order in which stripes are screened against each other, and by which threads. No two jobs of a phase share a row,
// so lists and thresholds need no locks.
#pragma once

#include "cpu/knn/codes.hpp"
#include "cpu/knn/state.hpp"

namespace modalign {

// Screen every pair of stripes of a search whose tables are encoded. A set that is searched in itself has a symmetric
// matrix of scores: each pair of stripes is multiplied once and serves both, and the pairs are drawn as in a
// round-robin tournament. The stripes of two sets meet as in a Latin square.
void screen_all_pairs(Search& search, const ScreenTiles& tiles, const Coding& coding);

}  // namespace modalign
