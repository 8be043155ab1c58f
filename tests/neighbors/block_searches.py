"""Rows and searches by blocks that several tests share."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modalign.files import checkpoint as checkpoint_module
from modalign.files.rows import Rows, open_rows
from modalign.neighbors import knn_out_of_core

N, D, K = 203, 7, 5
METRICS = ("cosine", "dot", "euclidean")


def some_rows(n: int = N, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return rows with duplicates far apart, so that ties cross blocks, and a zero row."""
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).mul(8).round().to(dtype)
    x[n // 2 : n // 2 + n // 8] = x[: n // 8]
    x[-1] = 0
    return x


def require_same(result: tuple[Tensor, Tensor, Any], wanted: tuple[Tensor, Tensor]) -> None:
    assert result[2].proved + result[2].redone == len(wanted[0])
    assert result[0].dtype == torch.int64
    assert result[1].dtype == torch.float64
    assert torch.equal(result[0], wanted[0])
    assert torch.equal(result[1], wanted[1])


def run(folder: Path | None, x: Rows | None = None, **others: Any) -> tuple[Tensor, Tensor]:
    settings: dict[str, Any] = {"metric": "euclidean", "block_size": 30, "checkpoint": folder} | others
    return knn_out_of_core(open_rows(some_rows()) if x is None else x, settings.pop("k", K), **settings)


@contextlib.contextmanager
def stopped_after(saves: int, error: type[BaseException] = SystemExit) -> Iterator[None]:
    """Raise ``error`` where the search would write the next block file, as if the process ended there."""
    real, writes = checkpoint_module.write_atomically, []

    def write(path: Path, content: Callable[[Path], Any]) -> None:
        writes.extend([path] * path.name.startswith("block"))
        if len(writes) > saves:
            raise error
        real(path, content)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(error):
        patch.setattr(checkpoint_module, "write_atomically", write)
        yield
