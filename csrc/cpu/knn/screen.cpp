#include "cpu/knn/screen.hpp"

#include <algorithm>
#include <stdexcept>

#include "cpu/shared/isa.hpp"

namespace modalign {

#define MODALIGN_DECLARE(level)    \
  namespace level {                \
  template <Precision>             \
  ScreenTiles make_screen_tiles(); \
  }
MODALIGN_DECLARE(portable)
#ifdef MODALIGN_X86
MODALIGN_DECLARE(avx2)
MODALIGN_DECLARE(avx512)
MODALIGN_DECLARE(avx512vnni)
MODALIGN_DECLARE(avx512bf16)
#endif

namespace {

struct NamedPrecision {
  Precision precision;
  const char* name;
};
constexpr NamedPrecision kPrecisions[] = {{Precision::float32, "float32"},
                                          {Precision::bfloat16, "bfloat16"},
                                          {Precision::int16, "int16"},
                                          {Precision::int8, "int8"}};

bool is_available(Precision precision) {
  const Isa isa = isa_in_use();
  switch (precision) {
    case Precision::float32:
      return true;
    case Precision::bfloat16:
      return isa == Isa::avx512bf16;
    case Precision::int16:
      return isa != Isa::portable;
    case Precision::int8:
      return (isa == Isa::avx512 || isa == Isa::avx512bf16) && has_avx512vnni();
  }
  return false;
}

std::optional<Precision>& forced() {
  static std::optional<Precision> precision;
  return precision;
}

#ifdef MODALIGN_X86
ScreenTiles avx512_tiles(Precision precision) {
  switch (precision) {
    case Precision::int8:
      return avx512vnni::make_screen_tiles<Precision::int8>();
    case Precision::bfloat16:
      return avx512bf16::make_screen_tiles<Precision::bfloat16>();
    case Precision::int16:
      return avx512::make_screen_tiles<Precision::int16>();
    default:
      return avx512::make_screen_tiles<Precision::float32>();
  }
}
#endif

}  // namespace

std::vector<Precision> screen_precisions() {
  std::vector<Precision> precisions;
  for (const auto& [precision, name] : kPrecisions)
    if (is_available(precision)) precisions.push_back(precision);
  return precisions;
}

std::string precision_name(Precision precision) {
  const auto* row = std::ranges::find(kPrecisions, precision, &NamedPrecision::precision);
  return row->name;
}

std::optional<Precision> forced_screen() { return forced(); }

void use_screen(const std::string& name) {
  if (name == "auto") return forced().reset();
  std::string names = "auto";
  for (Precision precision : screen_precisions()) {
    if (precision_name(precision) == name) {
      forced() = precision;
      return;
    }
    names += ", " + precision_name(precision);
  }
  throw std::invalid_argument("the screen must be one of " + names + " here, got " + name);
}

void forget_missing_screen() {
  if (forced() && !is_available(*forced())) forced().reset();
}

ScreenTiles screen_tiles(Precision precision) {
  switch (isa_in_use()) {
#ifdef MODALIGN_X86
    case Isa::avx512bf16:
    case Isa::avx512:
      return avx512_tiles(precision);
    case Isa::avx2:
      return precision == Precision::int16 ? avx2::make_screen_tiles<Precision::int16>()
                                           : avx2::make_screen_tiles<Precision::float32>();
#endif
    default:
      return portable::make_screen_tiles<Precision::float32>();
  }
}

}  // namespace modalign
