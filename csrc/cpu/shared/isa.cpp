#include "cpu/shared/isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace modalign {
namespace {

struct Level {
  const char* name;
  Isa isa;
};

std::vector<Level> available_levels() {
  std::vector<Level> levels;
#ifdef MODALIGN_X86
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    if (__builtin_cpu_supports("avx512bf16")) levels.push_back({"avx512bf16", Isa::avx512bf16});
    levels.push_back({"avx512", Isa::avx512});
  }
  if (fma && __builtin_cpu_supports("avx2")) levels.push_back({"avx2", Isa::avx2});
#endif
  levels.push_back({"portable", Isa::portable});
  return levels;
}

const std::vector<Level>& levels() {
  static const std::vector<Level> all = available_levels();
  return all;
}

const Level& level_of(const std::string& name) {
  std::string names;
  for (const Level& level : levels()) {
    if (level.name == name) return level;
    names += (names.empty() ? "" : ", ") + std::string(level.name);
  }
  throw std::invalid_argument("instruction set must be one of " + names + " on this machine, got " + name);
}

const Level*& level_in_use() {
  static const Level* level = [] {
    const char* name = std::getenv("MODALIGN_ISA");
    return name && *name ? &level_of(name) : &levels().front();
  }();
  return level;
}

}  // namespace

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.push_back(level.name);
  return names;
}

std::string isa() { return level_in_use()->name; }
void use_isa(const std::string& level) { level_in_use() = &level_of(level); }
Isa isa_in_use() { return level_in_use()->isa; }

bool has_avx512vnni() {
#ifdef MODALIGN_X86
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace modalign
