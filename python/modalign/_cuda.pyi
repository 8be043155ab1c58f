# The compiled CUDA kernels (csrc/cuda/bindings.cpp). Tables are addresses of contiguous device memory, 0 if absent.
from typing import TypeAlias

Part: TypeAlias = tuple[int, int, int, int]  # first row, rows, first column, columns

architectures: str

def neighbor_overlap(a: int, b: int, n: int, k: int, counts: int, device: int, stream: int) -> None: ...
def info_nce_sums(
    x: int,
    y: int,
    scale: int,
    row_parts: int,
    row_stride: int,
    col_parts: int,
    positive: int,
    pairs_left_out: bool,
    part: Part,
    n: int,
    m: int,
    d: int,
    device: int,
    stream: int,
) -> None: ...
def info_nce_weights(
    x: int,
    y: int,
    scale: int,
    row: list[int],
    col: list[int],
    positive_grad: int,
    pairs_left_out: bool,
    weights: int,
    stride: int,
    part: Part,
    n: int,
    m: int,
    d: int,
    device: int,
    stream: int,
) -> None: ...
def knn_survivors(
    queries: int,
    gallery: int,
    bfloat16: bool,
    symmetric: bool,
    row: list[int],
    col: list[int],
    extremes: int,
    excluded: int,
    groups: list[int],
    keys: int,
    counts: int,
    m: int,
    n: int,
    d: int,
    capacity: int,
    device: int,
    stream: int,
) -> None: ...
