// One operand of a product over blocks, in panels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <utility>

#include "cpu/losses/padded.hpp"
#include "cpu/shared/types.hpp"

namespace modalign {

// Memory that starts at a cache line, so that panels and the rows of weights do too.
constexpr int64_t kLine = 64;
struct FreeAligned {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{kLine}); }
};
using Memory = std::unique_ptr<std::byte[], FreeAligned>;
inline Memory allocate(int64_t bytes) {
  return Memory(static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes), std::align_val_t{kLine})));
}

// How an operand is stored and packed.
struct OperandPlan {
  const void* data;  // [problems, cut.n, width], or null if there is no such operand
  Dtype dtype;
  int64_t width;
  Cut cut;
  int64_t stripe_bytes;    // of a packed stripe
  int64_t copies;          // packed stripes that exist at once
  bool packed_beforehand;  // all stripes of all problems; else one for each thread
  std::function<void(Rows, void*)> pack;
};

class Operand {
 public:
  explicit Operand(OperandPlan plan) : plan_(std::move(plan)) {
    if (plan_.data) memory_ = allocate(plan_.stripe_bytes * plan_.copies);
  }

  bool is_packed_beforehand() const { return plan_.data && plan_.packed_beforehand; }

  void prepare(int64_t problem, int64_t stripe) {
    if (is_packed_beforehand() && stripe < plan_.cut.count)
      pack(problem, stripe, packed(problem * plan_.cut.count + stripe));
  }

  // The packed stripe, which this thread packs now unless that was done beforehand; null if there is no operand.
  const void* get(int64_t problem, int64_t stripe, int thread) {
    if (!plan_.data) return nullptr;
    if (plan_.packed_beforehand) return packed(problem * plan_.cut.count + stripe);
    pack(problem, stripe, packed(thread));
    return packed(thread);
  }

 private:
  std::byte* packed(int64_t index) { return memory_.get() + index * plan_.stripe_bytes; }
  void pack(int64_t problem, int64_t stripe, std::byte* out) {
    plan_.pack({.data = plan_.data,
                .dtype = plan_.dtype,
                .d = plan_.width,
                .start = problem * plan_.cut.n + plan_.cut.start(stripe),
                .rows = plan_.cut.rows(stripe)},
               out);
  }

  OperandPlan plan_;
  Memory memory_;
};

}  // namespace modalign
