// Brings the rows of a search to one form, which is the same for every metric.
//
// Let z be the rows at a common scale (unit rows for the cosine), mu a centre, and y = z - mu. Up to a number that
// depends on i alone, the score of j for i is then s_ij = <y_i, y_j> + shift_j.
#pragma once

#include "cpu/knn/codes.hpp"
#include "cpu/knn/state.hpp"

namespace modalign {

// Compute the norms of all rows and set the scale and the centre. Throws std::domain_error if a row is not finite or
// its squares overflow float64.
void set_scale_and_centre(Search& search);

// The terms of a row's scores beside <y_i, y_j>. The slack of the screen covers their rounding errors.
struct RowTerms {
  double shift;  // added to the scores that others give this row
  double base;   // added to the scores that this row gives others, and left out of the screen
};

// Write y [d] of a row, and return its other terms.
RowTerms centred_row(const Search& search, const Table& table, int64_t row, double* y);

// Cut a table into stripes, code its rows, and set its first thresholds from the neighbours that it came with.
void encode(Search& search, Table& table, const Coding& coding);

}  // namespace modalign
