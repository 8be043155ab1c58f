// The sigmoid loss of a batch. python/modalign/reference/info_nce.py defines it.
#pragma once

#include "cpu/losses/similarity.hpp"

namespace modalign {

// row_loss [b, n]; bias [b]
template <class T>
void sigmoid_loss_forward(const Similarity<T>& call, const T* bias, T* row_loss);

template <class T>
struct SigmoidGradients {
  const T* bias;      // [b]
  const T* grad_row;  // [b, n]: gradients by row_loss
  T* slope;           // [b, n]: the result, for each row the sum over j of the derivative by S_ij
};

template <class T>
void sigmoid_loss_backward(const Similarity<T>& call, const SigmoidGradients<T>& grads, const Products<T>& products);

}  // namespace modalign
