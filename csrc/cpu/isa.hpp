// Which instruction set's tile kernels run: the best the processor has, or the one MODALIGN_ISA names.
#pragma once

#include <string>
#include <vector>

#include "cpu/tiles.hpp"

namespace modalign {

std::vector<std::string> isa_levels();  // those this processor can run, best first
std::string isa();
void use_isa(const std::string& level);  // std::invalid_argument if the processor or the build lacks it

// for inputs of this dtype, in the type that sums are kept in
template <class T>
const LossTiles<T>& loss_tiles(Dtype dtype);
const ScreenTiles& screen_tiles();

}  // namespace modalign
