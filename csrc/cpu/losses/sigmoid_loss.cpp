#include "cpu/losses/sigmoid_loss.hpp"

#include "cpu/losses/traversal.hpp"

namespace modalign {

template <class T>
void sigmoid_loss_forward(const Similarity<T>& call, const T* bias, T* row_loss) {
  Traversal<T> traversal(call, {}, nullptr, 0);
  std::fill_n(row_loss, call.problems * call.n, T(0));
  traversal.each_block([&](const Visit<T>& visit) {
    SigmoidBlock<T> block(visit.block);
    block.bias = bias[visit.problem];
    block.row_loss = row_loss + visit.problem * call.n + visit.row;
    traversal.tiles.sigmoid_forward(visit.operands, block);
  });
}

template <class T>
void sigmoid_loss_backward(const Similarity<T>& call, const SigmoidGradients<T>& grads, const Products<T>& products) {
  Traversal<T> traversal(call, products, nullptr, 0);
  clear(products, call);
  std::fill_n(grads.slope, call.problems * call.n, T(0));
  traversal.each_block([&](const Visit<T>& visit) {
    const int64_t row = visit.problem * call.n + visit.row;
    SigmoidBlock<T> block(visit.block);
    set_products(block, products, call, visit);
    block.bias = grads.bias[visit.problem];
    block.grad_row = grads.grad_row + row;
    block.slope = grads.slope + row;
    traversal.tiles.sigmoid_backward(visit.operands, block);
  });
}

#define MODALIGN_INSTANTIATE(T)                                              \
  template void sigmoid_loss_forward<T>(const Similarity<T>&, const T*, T*); \
  template void sigmoid_loss_backward<T>(const Similarity<T>&, const SigmoidGradients<T>&, const Products<T>&);
MODALIGN_INSTANTIATE(float)
MODALIGN_INSTANTIATE(double)

}  // namespace modalign
