#include "cpu/isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace modalign {

#define MODALIGN_DECLARE(level) \
  namespace level {             \
  template <class T>            \
  Tiles<T> make_tiles();        \
  }
MODALIGN_DECLARE(portable)
#ifdef MODALIGN_X86
MODALIGN_DECLARE(avx2)
MODALIGN_DECLARE(avx512)
#endif

namespace {

struct Level {
  std::string name;
  Tiles<float> in_float;
  Tiles<double> in_double;
};

std::vector<Level> available() {
  std::vector<Level> levels;
#ifdef MODALIGN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    levels.push_back({"avx512", avx512::make_tiles<float>(), avx512::make_tiles<double>()});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    levels.push_back({"avx2", avx2::make_tiles<float>(), avx2::make_tiles<double>()});
#endif
  levels.push_back({"portable", portable::make_tiles<float>(), portable::make_tiles<double>()});
  return levels;
}

const std::vector<Level>& levels() {
  static const std::vector<Level> all = available();
  return all;
}

const Level& find(const std::string& name) {
  std::string known;
  for (const Level& level : levels()) {
    if (level.name == name) return level;
    known += (known.empty() ? "" : ", ") + level.name;
  }
  throw std::invalid_argument("instruction set must be one of " + known + " on this machine, got " + name);
}

const Level*& chosen() {
  static const Level* level = std::getenv("MODALIGN_ISA") ? &find(std::getenv("MODALIGN_ISA")) : &levels().front();
  return level;
}

}  // namespace

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.push_back(level.name);
  return names;
}
std::string isa() { return chosen()->name; }
void use_isa(const std::string& level) { chosen() = &find(level); }

template <>
const Tiles<float>& tiles<float>() {
  return chosen()->in_float;
}
template <>
const Tiles<double>& tiles<double>() {
  return chosen()->in_double;
}

}  // namespace modalign
