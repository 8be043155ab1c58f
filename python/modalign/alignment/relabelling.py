"""Random relabellings of items, and clusters to relabel within."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modalign.common.checks import LARGEST_SEED, torch_seed, whole_number
from modalign.files.rows import RowSource, open_rows

__all__ = ["FEWEST", "kmeans_cells", "random_relabellings", "require_relabellings"]

FITTED = 100_000  # rows on which k-means finds its centres
FEWEST = 19  # relabellings; with fewer no p-value reaches 0.05


def require_relabellings(operation: str, count: int | None) -> int | None:
    """Return a number of relabellings, which must be None or at least 19."""
    return None if count is None else whole_number(operation, "relabellings", count, least=FEWEST)


def random_relabellings(
    n: int, count: int, seed: int = 0, *, within: Tensor | None = None, units: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield random permutations of 0 .. n - 1.

    Args:
        n: int. Number of items.
        count: int. Number of permutations.
        seed: int. Seed of the permutations.
        within: integer tensor of shape (n,), or None. Labels of the items; each item takes the place of an item with
            the same label.
        units: integer tensor of shape (n,), or None. Items that belong together (captions of one image) have one label;
            they take the places of another unit of the same size, in random order.

    Yields:
        int64 tensor of shape (n,).

    Raises:
        ValueError: If both ``within`` and ``units`` are given.

    Examples:
        >>> import torch
        >>> from modalign.alignment.nulls import random_relabellings
        >>> labels = torch.tensor([0, 1, 0, 1, 1])
        >>> all(torch.equal(labels[s], labels) for s in random_relabellings(5, 10, within=labels))
        True
    """
    if within is not None and units is not None:
        raise ValueError("random_relabellings: takes within or units, got both")
    generator = torch.Generator().manual_seed(torch_seed("random_relabellings", seed))

    def shuffled(labels: Tensor) -> Tensor:
        """Return the items sorted by label, in random order within each label."""
        order = torch.randperm(n, generator=generator)
        return order[labels[order].argsort(stable=True)]

    if units is not None:
        ids, sizes = torch.unique(units, return_inverse=True, return_counts=True)[1:]
    for _ in range(count):
        relabelled = torch.empty(n, dtype=torch.int64)
        if within is not None:
            relabelled[within.argsort(stable=True)] = shuffled(within)
        elif units is not None:
            # units in random order, those of one size together; items in random order within their unit
            place = torch.empty_like(sizes)
            mixed = torch.randperm(len(sizes), generator=generator)
            place[mixed[sizes[mixed].argsort(stable=True)]] = torch.arange(len(sizes))
            fixed = torch.empty_like(sizes)
            fixed[sizes.argsort(stable=True)] = torch.arange(len(sizes))
            relabelled[fixed[ids].argsort(stable=True)] = shuffled(place[ids])
        else:
            relabelled = torch.randperm(n, generator=generator)
        yield relabelled


def kmeans_cells(x: RowSource, count: int, *, seed: int = 0) -> Tensor:
    """Cluster the rows into cells, within which ``modalign.align`` can relabel where there are no classes.

    Alignment beyond a null within cells is finer than the cells. A null within few cells is close to the plain null;
    cells of 20 to 100 items make a demanding one.

    The rows are divided by their norms and assigned to the nearest of ``count`` centres. k-means finds the centres on
    at most 100,000 rows, which the seed draws.

    Args:
        x: (n, d) array, tensor or file, as ``modalign.files.rows.open_rows`` takes it.
        count: int, 2 <= count <= n / 2. Number of cells.
        seed: int. Seed of the drawn rows and of k-means.

    Returns:
        int64 tensor of shape (n,), the cell of each row. Peak memory: the fitted rows in float32, and a block of rows.
        Time O(n d count).

    Raises:
        TypeError: If ``count`` is not an integer.
        ValueError: If ``count`` is below 2 or above n / 2, or if a row is not finite.

    Source:
        ``MiniBatchKMeans`` of scikit-learn.

    Examples:
        >>> import numpy as np
        >>> from modalign.alignment.nulls import kmeans_cells
        >>> x = np.repeat(np.eye(3), 10, axis=0)
        >>> len(set(kmeans_cells(x, 3).tolist()))
        3
    """
    from sklearn.cluster import MiniBatchKMeans

    rows = open_rows(x)
    n, d = rows.shape
    count = whole_number("kmeans_cells", "count", count)
    seed = whole_number("kmeans_cells", "seed", seed, least=0, most=LARGEST_SEED)
    if not 2 <= count <= n // 2:
        raise ValueError(f"kmeans_cells: count must be from 2 to half of the {n} rows, got {count}")
    block = max(1, (1 << 24) // d)
    starts = range(0, n, block)
    drawn = torch.zeros(n, dtype=torch.bool)
    drawn[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:FITTED]] = True

    def unit_rows(start: int) -> Tensor:
        return torch.nn.functional.normalize(rows.read(start, min(n, start + block)).double()).float()

    fitted = torch.cat([unit_rows(start)[drawn[start : start + block]] for start in starts])
    kmeans = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=max(1024, 4 * count)).fit(fitted.numpy())
    cells = [torch.from_numpy(kmeans.predict(unit_rows(start).numpy())).long() for start in starts]
    return torch.cat(cells)
