"""Operations: what the losses and searches compute, and the choice of the backend that computes it.

                   modalign.info_nce, modalign.knn, ...     functions with checks, in the rooms above
                              |
    info_nce  sigmoid_loss  knn  edge_products  neighbor_overlap  neighborhoods  unit_rows
                              |                             torch operators: schema, fake, gradient and table
                           dispatch                         the first implementation that takes the call
              ________________|_____________________________
             |          |          |           |            |
           _cuda     kernels     _cpp        _torch      reference

    dispatch       the list of operations, the choice of an implementation, and the reasons of all refusals
    info_nce, sigmoid_loss, unit_rows, knn, edge_products, neighbor_overlap, neighborhoods    one operation each
    loss_tables, knn_tables    frozen dataclasses that carry tensors and options from the functions to the backends
    _cpp, _cuda, _torch        the compiled core, the compiled CUDA kernels, and plain torch by blocks of rows
    _refusals, transforms, _examples     reasons for refusals, support of torch's transforms, arguments for ``doctor``

Backends are named as "module:function" and imported when they are first called. Checks of users' arguments and public
docstrings do not belong here; they are in ``losses``, ``neighbors`` and ``metrics``.
"""
