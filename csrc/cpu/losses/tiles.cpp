#include "cpu/losses/tiles.hpp"

#include "cpu/shared/isa.hpp"

namespace modalign {

#define MODALIGN_DECLARE(level)   \
  namespace level {               \
  template <class T>              \
  LossTiles<T> make_loss_tiles(); \
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

template <class T>
LossTiles<T> tiles_of(Isa isa) {
  switch (isa) {
#ifdef MODALIGN_X86
    case Isa::avx512bf16:
    case Isa::avx512:
      return avx512::make_loss_tiles<T>();
    case Isa::avx2:
      return avx2::make_loss_tiles<T>();
#endif
    default:
      return portable::make_loss_tiles<T>();
  }
}

}  // namespace

template <>
LossTiles<float> loss_tiles<float>([[maybe_unused]] Dtype dtype) {
  const Isa isa = isa_in_use();
#ifdef MODALIGN_X86
  if (isa == Isa::avx512bf16 && dtype == Dtype::bfloat16) return avx512bf16::make_bfloat16_tiles();
#endif
  return tiles_of<float>(isa);
}
template <>
LossTiles<double> loss_tiles<double>(Dtype) {
  return tiles_of<double>(isa_in_use());
}

}  // namespace modalign
