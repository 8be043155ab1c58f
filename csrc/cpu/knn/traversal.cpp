#include "cpu/knn/traversal.hpp"

#include "cpu/knn/search.hpp"

namespace modalign {
namespace {

class Traversal {
 public:
  Traversal(Search& search, const ScreenTiles& tiles, const Coding& coding)
      : search_(search), tiles_(tiles), words_(coding.words()), row_bytes_(coding.row_bytes()) {
    for (Scratch& scratch : search.scratch) {
      scratch.left.reset(new std::byte[search.x.stripes.rows * row_bytes_ + kPackedBeyond]);
      scratch.right.reset(new std::byte[search.gallery_of(search.x).stripes.rows * row_bytes_ + kPackedBeyond]);
    }
  }

  // Phase 0 has the diagonal; phase p > 0 is round p - 1 of a tournament, and the last player plays its game 0.
  void run_tournament() {
    Table& x = search_.x;
    const int64_t count = x.stripes.count, players = count + count % 2;
    run_phases(search_.threads, std::max<int64_t>(players, 1), count, [&](int thread, int64_t phase, int64_t game) {
      Scratch& scratch = search_.scratch[thread];
      if (phase == 0) return screen_pair(scratch, {x, game}, {x, game});
      if (game >= players / 2) return;
      const int64_t others = players - 1, round = phase - 1;
      const int64_t first = game == 0 ? players - 1 : (round + game) % others;
      const int64_t second = game == 0 ? round : (round - game + others) % others;
      if (first < count && second < count) screen_pair(scratch, {x, first}, {x, second});
    });
  }

  void run_latin_square() {
    Table &x = search_.x, &y = search_.y;
    const int64_t p = x.stripes.count, q = y.stripes.count, jobs = std::min(p, q), turns = std::max(p, q);
    run_phases(search_.threads, turns, jobs, [&](int thread, int64_t phase, int64_t job) {
      const int64_t other = (job + phase) % turns;
      screen_pair(search_.scratch[thread], {x, p <= q ? job : other}, {y, p <= q ? other : job});
    });
  }

 private:
  struct Stripe {
    Table& table;
    int64_t index;
  };

  void screen_pair(Scratch& scratch, Stripe left, Stripe right) {
    if (search_.call.stop && *search_.call.stop) return;
    StripePair pair{.search = search_,
                    .scratch = scratch,
                    .left = left.table,
                    .right = right.table,
                    .left_start = left.table.stripes.start(left.index),
                    .right_start = right.table.stripes.start(right.index)};
    const ScreenSide left_side = left.table.side(left.index), right_side = right.table.side(right.index);
    tiles_.pack_left(left.table.codes.get() + pair.left_start * row_bytes_, left_side.rows, words_, scratch.left.get());
    tiles_.pack_right(right.table.codes.get() + pair.right_start * row_bytes_, right_side.rows, words_,
                      scratch.right.get());
    tiles_.screen(scratch.left.get(), scratch.right.get(),
                  {.words = words_,
                   .left = left_side,
                   .right = right_side,
                   .left_searches = left.table.best.indices != nullptr,
                   .right_searches = right.table.best.indices != nullptr,
                   .triangle = &left.table == &right.table && left.index == right.index,
                   .offer = offer_candidate,
                   .context = &pair});
    if (search_.call.done) *search_.call.done += left_side.rows * right_side.rows;
  }

  Search& search_;
  const ScreenTiles& tiles_;
  const int64_t words_, row_bytes_;
};

}  // namespace

void screen_all_pairs(Search& search, const ScreenTiles& tiles, const Coding& coding) {
  Traversal traversal(search, tiles, coding);
  search.with_itself ? traversal.run_tournament() : traversal.run_latin_square();
}

}  // namespace modalign
