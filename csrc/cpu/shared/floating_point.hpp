// The arithmetic of one thread while the core computes in it: IEEE 754, whatever modes the process has set.
// torch.set_flush_denormal and libraries compiled with -ffast-math make a thread, and the threads that it starts, take
// subnormal numbers as 0, so that scores would not be those of the stored values.
#pragma once

#include <cstdint>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "modalign needs IEEE 754 arithmetic: remove -ffast-math, -Ofast and -ffinite-math-only from the compiler's flags"
#endif

namespace modalign {

#if defined(__SSE2__)
inline uint64_t floating_point_mode() { return __builtin_ia32_stmxcsr(); }
inline void set_floating_point_mode(uint64_t mode) { __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode)); }
constexpr uint64_t kStandardMode = 0x1f80;  // round to nearest, no exception stops, nothing is flushed
constexpr uint64_t kExceptionFlags = 0x3f;
#elif defined(__aarch64__)
inline uint64_t floating_point_mode() {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void set_floating_point_mode(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
constexpr uint64_t kStandardMode = 0;
constexpr uint64_t kExceptionFlags = 0;
#else
inline uint64_t floating_point_mode() { return 0; }
inline void set_floating_point_mode(uint64_t) {}
constexpr uint64_t kStandardMode = 0;
constexpr uint64_t kExceptionFlags = 0;
#endif

// IEEE 754 arithmetic in this thread for the life of the object.
class StandardArithmetic {
 public:
  StandardArithmetic() : before_(floating_point_mode()) {
    if ((before_ & ~kExceptionFlags) != kStandardMode) set_floating_point_mode(kStandardMode);
  }
  ~StandardArithmetic() {
    if ((before_ & ~kExceptionFlags) != kStandardMode) set_floating_point_mode(before_);
  }
  StandardArithmetic(const StandardArithmetic&) = delete;
  StandardArithmetic& operator=(const StandardArithmetic&) = delete;

 private:
  const uint64_t before_;
};

}  // namespace modalign
