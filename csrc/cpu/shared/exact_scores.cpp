#include "cpu/shared/exact_scores.hpp"

#include "cpu/shared/isa.hpp"

namespace modalign {

namespace portable {
ExactScores make_exact_scores();
}
#ifdef MODALIGN_X86
namespace avx2 {
ExactScores make_exact_scores();
}
namespace avx512 {
ExactScores make_exact_scores();
}
#endif

ExactScores exact_scores() {
  switch (isa_in_use()) {
#ifdef MODALIGN_X86
    case Isa::avx512bf16:
    case Isa::avx512:
      return avx512::make_exact_scores();
    case Isa::avx2:
      return avx2::make_exact_scores();
#endif
    default:
      return portable::make_exact_scores();
  }
}

}  // namespace modalign
