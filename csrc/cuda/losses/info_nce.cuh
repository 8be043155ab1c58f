// InfoNCE in bfloat16 on sm_90a, by tiles of 128 x 256 logits: the sums that a tile adds to the log-sum-exps of its
// rows and columns (forward), and its weights in bfloat16 (backward), which a matrix product multiplies with the
// inputs. `kernels/losses/info_nce.py` defines both, combines the sums and cuts S into bands.
//
// One exponential serves a row and a column wherever that is safe. Forward, exp(S - the largest logit of the row in the
// tile) is summed along the row; times exp(that largest logit - the largest of the warp) it is summed down the column,
// unless the logits of the 16 rows of a warp differ by so much that the sum of a column could be lost. Backward,
// W = exp(S - c) (u_i + v_j), unless the log-sum-exps of the tile are too far apart for one c.
//
// The warpgroups do not wait for each other: one multiplies while the other takes exponentials.
#pragma once

#include "cuda/losses/info_nce_sums.cuh"
#include "cuda/losses/info_nce_weights.cuh"
