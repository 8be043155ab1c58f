// The instruction set in use: the best one that this processor has, or the one that use_isa or the environment variable
// MODALIGN_ISA names. Each folder has a table of the kernels that it compiled for every instruction set.
#pragma once

#include <string>
#include <vector>

namespace modalign {

// avx512bf16 is avx512 with kernels of its own for bfloat16 inputs.
enum class Isa : int { portable, avx2, avx512, avx512bf16 };

// Names of the instruction sets that this processor can run, best first.
std::vector<std::string> isa_levels();

// The name of the instruction set in use.
std::string isa();

// Select an instruction set by name. Throws std::invalid_argument if the processor or the build lacks it.
void use_isa(const std::string& level);

Isa isa_in_use();

// Return whether the processor multiplies int8 numbers in vector registers (AVX512-VNNI).
bool has_avx512vnni();

}  // namespace modalign
