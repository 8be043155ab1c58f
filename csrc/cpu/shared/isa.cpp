#include "cpu/shared/isa.hpp"

#include <cstdlib>
#include <map>
#include <stdexcept>

namespace modalign {

#define MODALIGN_DECLARE(level)    \
  namespace level {                \
  template <class T>               \
  LossTiles<T> make_loss_tiles();  \
  template <Precision>             \
  ScreenTiles make_screen_tiles(); \
  ExactScores make_exact_scores(); \
  }
MODALIGN_DECLARE(portable)
#ifdef MODALIGN_X86
MODALIGN_DECLARE(avx2)
MODALIGN_DECLARE(avx512)
namespace avx512vnni {
template <Precision>
ScreenTiles make_screen_tiles();
}
namespace avx512bf16 {
LossTiles<float> make_bfloat16_tiles();
template <Precision>
ScreenTiles make_screen_tiles();
}  // namespace avx512bf16
#endif

namespace {

struct Level {
  std::string name;
  LossTiles<float> in_float;
  LossTiles<double> in_double;
  LossTiles<float> of_bfloat16;
  std::map<Precision, ScreenTiles> screens;
  ExactScores exact_scores;
};

#define MODALIGN_LEVEL(level)                                                                                   \
  Level {                                                                                                       \
    #level, level::make_loss_tiles<float>(), level::make_loss_tiles<double>(), level::make_loss_tiles<float>(), \
        {{Precision::float32, level::make_screen_tiles<Precision::float32>()}}, level::make_exact_scores()      \
  }

std::vector<Level> available() {
  std::vector<Level> levels;
#ifdef MODALIGN_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    Level avx512 = MODALIGN_LEVEL(avx512);
    avx512.screens[Precision::int16] = avx512::make_screen_tiles<Precision::int16>();
    if (__builtin_cpu_supports("avx512vnni"))
      avx512.screens[Precision::int8] = avx512vnni::make_screen_tiles<Precision::int8>();
    if (__builtin_cpu_supports("avx512bf16")) {
      Level level = avx512;  // but for the losses of bfloat16 inputs, and one screen more
      level.name = "avx512bf16";
      level.of_bfloat16 = avx512bf16::make_bfloat16_tiles();
      level.screens[Precision::bfloat16] = avx512bf16::make_screen_tiles<Precision::bfloat16>();
      levels.push_back(level);
    }
    levels.push_back(avx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    Level avx2 = MODALIGN_LEVEL(avx2);
    avx2.screens[Precision::int16] = avx2::make_screen_tiles<Precision::int16>();
    levels.push_back(avx2);
  }
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

std::optional<Precision>& screen_in_use() {
  static std::optional<Precision> precision;
  return precision;
}

const Level*& chosen() {
  static const Level* level = [] {
    const char* wanted = std::getenv("MODALIGN_ISA");
    return wanted && *wanted ? &find(wanted) : &levels().front();
  }();
  return level;
}

}  // namespace

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.push_back(level.name);
  return names;
}
std::string isa() { return chosen()->name; }
void use_isa(const std::string& level) {
  chosen() = &find(level);
  if (screen_in_use() && !chosen()->screens.count(*screen_in_use())) screen_in_use().reset();
}

template <>
const LossTiles<float>& loss_tiles<float>(Dtype dtype) {
  return dtype == Dtype::bfloat16 ? chosen()->of_bfloat16 : chosen()->in_float;
}
template <>
const LossTiles<double>& loss_tiles<double>(Dtype) {
  return chosen()->in_double;
}

std::vector<Precision> screen_precisions() {
  std::vector<Precision> precisions;
  for (const auto& [precision, tiles] : chosen()->screens) precisions.push_back(precision);
  return precisions;
}
std::string precision_name(Precision precision) {
  switch (precision) {
    case Precision::int8:
      return "int8";
    case Precision::int16:
      return "int16";
    case Precision::bfloat16:
      return "bfloat16";
    case Precision::float32:
      return "float32";
  }
  return "";
}
std::optional<Precision> wanted_screen() { return screen_in_use(); }
void use_screen(const std::string& name) {
  if (name == "auto") return screen_in_use().reset();
  std::string known = "auto";
  for (Precision precision : screen_precisions()) {
    if (precision_name(precision) == name) {
      screen_in_use() = precision;
      return;
    }
    known += ", " + precision_name(precision);
  }
  throw std::invalid_argument("the screen must be one of " + known + " here, got " + name);
}
const ScreenTiles& screen_tiles(Precision precision) { return chosen()->screens.at(precision); }
ExactScores exact_scores() { return chosen()->exact_scores; }

}  // namespace modalign
