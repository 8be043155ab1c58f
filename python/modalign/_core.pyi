commit: str
compiler: str

def isa_levels() -> list[str]: ...
def isa() -> str: ...
def use_isa(level: str) -> None: ...
def info_nce_forward_float32(
    x: int, y: int, dtype: str, problems: int, n: int, d: int, logit_scale: int,
    row_lse: int, col_lse: int, positive: int, threads: int,
) -> None: ...  # fmt: skip
def info_nce_forward_float64(
    x: int, y: int, dtype: str, problems: int, n: int, d: int, logit_scale: int,
    row_lse: int, col_lse: int, positive: int, threads: int,
) -> None: ...  # fmt: skip
def info_nce_backward_float32(
    grad_row: int, grad_col: int, grad_positive: int, x: int, y: int, dtype: str, problems: int, n: int, d: int,
    logit_scale: int, row_lse: int, col_lse: int, dx: int, dy: int, threads: int,
) -> None: ...  # fmt: skip
def info_nce_backward_float64(
    grad_row: int, grad_col: int, grad_positive: int, x: int, y: int, dtype: str, problems: int, n: int, d: int,
    logit_scale: int, row_lse: int, col_lse: int, dx: int, dy: int, threads: int,
) -> None: ...  # fmt: skip
def knn(
    gallery: int, queries: int, dtype: str, n: int, m: int, d: int, k: int, metric: str,
    indices: int, scores: int, threads: int,
) -> None: ...  # fmt: skip
def neighbor_overlap(a: int, b: int, n: int, k: int, counts: int, threads: int) -> None: ...
