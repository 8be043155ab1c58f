// InfoNCE of a batch. python/modalign/reference/info_nce.py defines it.
#pragma once

#include "cpu/losses/similarity.hpp"

namespace modalign {

// Results of one side: [b, n] for rows or [b, m] for columns. best and mean are null unless wanted.
template <class T>
struct Summary {
  T* lse;   // log-sum-exp
  T* best;  // largest logit
  T* mean;  // mean logit under the softmax
};

// The first rows of S over all problems: [rows, m]. The forward pass writes them, the backward pass reads them.
template <class T>
struct StoredLogits {
  T* logits;
  int64_t rows;
};

template <class T>
struct InfoNceResults {
  Summary<T> row, col;  // col.lse may be null
  T* positive;          // [b, n]: the diagonal of S, or null
  StoredLogits<T> stored;
};

template <class T>
void info_nce_forward(const Similarity<T>& call, const InfoNceResults<T>& results);

// Gradients by the log-sum-exps and the diagonal, which may be null, and the log-sum-exps. One stream has those of rows
// alone, and computes W v alone.
template <class T>
struct InfoNceGradients {
  const T* row;
  const T* col;
  const T* positive;
  const T* row_lse;
  const T* col_lse;
};

template <class T>
void info_nce_backward(const Similarity<T>& call, const InfoNceGradients<T>& grads, const Products<T>& products,
                       const StoredLogits<T>& stored);

}  // namespace modalign
