"""Contrastive losses of paired embeddings that never store the similarity matrix.

    functional        info_nce, nt_xent, sigmoid_loss: the public functions and their contracts
    modules           InfoNCE, NTXent, SigmoidLoss: the same losses as modules, with a temperature that may be trained
    chunked           chunked_forward: the forward pass of a large batch in the memory of a small one
    gathering         gather: the rows of all processes, with their gradients
    drop_ins          the losses of other libraries under their signatures
    options           the options of info_nce, checked
    inputs            the conversion of arguments into the tables that the operators take
    evaluation        the computation of info_nce: rows -> sides -> losses -> reduction
    sides             the loss of each anchor of one direction, from its pools of candidates
    pools             sums over the candidates of each anchor
    reduction         "mean", "sum" and "none" over the losses of anchors
    statistics        Stats, the by-products of info_nce
    shared_batches    batches of several ranks: what they agree on, and ranks without rows
    eager_gradients   info_nce differentiated at once, for the norms of its gradients

The products and sums over tiles of the similarity matrix are operators of ``modalign.ops``. Nothing here knows a
backend, a data set or an experiment.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
