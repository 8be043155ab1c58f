"""Triton kernels of the contrastive losses; the similarity matrix is computed tile by tile and never stored.

    info_nce           the operators of info_nce
    info_nce_sums      the forward kernels of info_nce: log-sum-exps of rows and columns
    info_nce_weights   the backward kernels of info_nce
    sigmoid_loss       the operators and kernels of sigmoid_loss
    entries            functions on one tile of similarities: scales, masks, rounding of weights
    products           how the backward products are computed, and the cost model that chooses a schedule

No autograd and no reduction over the batch belongs here: both live in ``modalign.losses``.
"""
