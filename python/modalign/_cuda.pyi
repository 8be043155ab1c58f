architectures: str

def neighbor_overlap(a: int, b: int, n: int, k: int, counts: int, device: int, stream: int) -> None: ...
def knn_survivors(
    queries: int, gallery: int, bfloat16: bool, symmetric: bool, row: list[int], col: list[int], extremes: int,
    excluded: int, groups: list[int], keys: int, counts: int, m: int, n: int, d: int, capacity: int, device: int,
    stream: int,
) -> None: ...  # fmt: skip
