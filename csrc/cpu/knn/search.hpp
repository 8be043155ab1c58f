// The candidates of a row: their list, the threshold that they must reach, and the exact order of the best k.
//
// A candidate whose upper bound is below the k-th best score so far is no neighbour; the others wait in the row's list.
// A full list is thinned by a better threshold, or scored in float64 as the definition says, which raises the
// threshold. A threshold that is out of date loses nothing: the order of the blocks and the precision of the screen
// change the work alone.
#pragma once

#include "cpu/knn/state.hpp"

namespace modalign {

// Two stripes that a thread screens against each other.
struct StripePair {
  Search& search;
  Scratch& scratch;
  Table& left;
  Table& right;
  int64_t left_start, right_start;  // their first rows
};

// ScreenBlock::offer with a StripePair as the context: append a candidate to the list of the row that searches.
void offer_candidate(void* pair, bool right_searches, int64_t searcher, int64_t candidate, float bound);

// Raise the threshold of row i to its k-th best score, if it has k neighbours.
void raise_threshold(const Search& search, Table& table, int64_t i);

// One row whose candidates are scored: row i of the table, searched in the gallery.
struct SearchingRow {
  Table& table;
  const Table& gallery;
  int64_t i;
};

// Score the candidates in the row's list, those with the largest bounds first, and keep the best k.
void score_candidates(const Search& search, Scratch& scratch, const SearchingRow& row);

}  // namespace modalign
