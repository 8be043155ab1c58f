#include "cpu/isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace modalign {

#define MODALIGN_DECLARE(level)    \
  namespace level {                \
  template <class T>               \
  LossTiles<T> make_loss_tiles();  \
  ScreenTiles make_screen_tiles(); \
  }
MODALIGN_DECLARE(portable)
#ifdef MODALIGN_X86
MODALIGN_DECLARE(avx2)
MODALIGN_DECLARE(avx512)
namespace avx512bf16 {
LossTiles<float> make_bfloat16_tiles();
}
#endif

namespace {

struct Level {
  std::string name;
  LossTiles<float> in_float;
  LossTiles<double> in_double;
  LossTiles<float> of_bfloat16;
  ScreenTiles screen;
};

#define MODALIGN_LEVEL(level)                                                                                   \
  Level {                                                                                                       \
    #level, level::make_loss_tiles<float>(), level::make_loss_tiles<double>(), level::make_loss_tiles<float>(), \
        level::make_screen_tiles()                                                                              \
  }

std::vector<Level> available() {
  std::vector<Level> levels;
#ifdef MODALIGN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    if (__builtin_cpu_supports("avx512bf16")) {
      Level level = MODALIGN_LEVEL(avx512);
      level.name = "avx512bf16";  // avx512 but for bfloat16 inputs
      level.of_bfloat16 = avx512bf16::make_bfloat16_tiles();
      levels.push_back(level);
    }
    levels.push_back(MODALIGN_LEVEL(avx512));
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels.push_back(MODALIGN_LEVEL(avx2));
#endif
  levels.push_back(MODALIGN_LEVEL(portable));
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
const LossTiles<float>& loss_tiles<float>(Dtype dtype) {
  return dtype == Dtype::bfloat16 ? chosen()->of_bfloat16 : chosen()->in_float;
}
template <>
const LossTiles<double>& loss_tiles<double>(Dtype) {
  return chosen()->in_double;
}
const ScreenTiles& screen_tiles() { return chosen()->screen; }

}  // namespace modalign
