// Chooses the precision of the screen.
#pragma once

#include "cpu/knn/state.hpp"

namespace modalign {

// Return the precision in which a search should cost least, estimated from a sample of 16 searching rows. The choice
// changes the work alone, and costs about a thousandth of it. The scale and the centre of the search must be set.
Precision cheapest_precision(Search& search);

}  // namespace modalign
