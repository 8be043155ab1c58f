"""Inner products of the rows of a table along the edges of a graph, as an operator.

    P_ri = <x_a, x_b>,  a = items_r,  b = others_ri

x is [n, d]; items [m] and others [m, k] are int64 from 0 to n - 1; P is [m, k] float64, summed in the order of the
features without fused multiply-adds, as ``modalign.ops.knn`` defines its dot product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalign.ops import _examples
from modalign.ops._refusals import not_on_cpu, wrong_dtype
from modalign.ops.dispatch import Implementation, Operation, select
from modalign.ops.knn import DTYPES

__all__ = ["EDGE_PRODUCTS", "edge_products"]

EDGE_PRODUCTS = Operation(
    "edge_products",
    (
        Implementation(
            "cpp",
            {"multiply": "modalign.ops._cpp:edge_products"},
            lambda x, *_: not_on_cpu(x) or wrong_dtype(x, DTYPES),
        ),
        Implementation(
            "reference",
            {"multiply": "modalign.reference.edge_products:edge_products"},
            lambda x, *_: wrong_dtype(x, DTYPES),
        ),
    ),
    _examples.edges,
)


@torch.library.custom_op("modalign::edge_products", mutates_args=())
def edge_products(x: Tensor, items: Tensor, others: Tensor, backend: str) -> Tensor:
    products: Tensor = select(EDGE_PRODUCTS, "multiply", backend, (x,))(x, items, others)
    return products


@edge_products.register_fake
def _(x: Tensor, items: Tensor, others: Tensor, backend: str) -> Tensor:
    return x.new_empty(others.shape, dtype=torch.float64)
