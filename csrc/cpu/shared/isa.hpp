// Which instruction set's tile kernels run: the best the processor has, or the one MODALIGN_ISA names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpu/shared/tiles.hpp"

namespace modalign {

std::vector<std::string> isa_levels();  // those this processor can run, best first
std::string isa();
void use_isa(const std::string& level);  // std::invalid_argument if the processor or the build lacks it

// for inputs of this dtype, in the type that sums are kept in
template <class T>
const LossTiles<T>& loss_tiles(Dtype dtype);

std::vector<Precision> screen_precisions();  // those the level in use has
std::string precision_name(Precision precision);
std::optional<Precision> wanted_screen();  // what use_screen named; nothing: each search takes the cheapest
void use_screen(const std::string& name);  // a precision the level in use has, or "auto"
const ScreenTiles& screen_tiles(Precision precision);
ExactScores exact_scores();

}  // namespace modalign
