"""The items of one call of ``align``: rows of both representations, paired, and the labels of the items."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modalign.alignment.preparation import prepare
from modalign.common.types import Array
from modalign.files.labels import as_classes
from modalign.files.rows import Rows, RowSource, indexable, open_rows
from modalign.metrics.inputs import group_weights

__all__ = ["Ids", "Indexable", "Items", "Labels", "paired_items"]

# an array or tensor that a tensor of items can index, which NumPy's own types do not allow for
Indexable: TypeAlias = Any

Ids: TypeAlias = tuple[Sequence[object], Sequence[object]]
Labels: TypeAlias = Array | Sequence[int] | Sequence[str]
FEWEST_SHARED = 4  # ids that x and y must have in common


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """Two representations of the same n items.

    Attributes:
        x: (n, d_x) array, tensor or file.
        y: (n, d_y) array, tensor or file; row i is the same item as row i of x.
        groups: int64 tensor of shape (n,), or None. Items that belong together.
        within: int64 tensor of shape (n,), or None. Classes within which the null relabels.
    """

    x: RowSource
    y: RowSource
    groups: Tensor | None = None
    within: Tensor | None = None

    @cached_property
    def sources(self) -> tuple[Rows, Rows]:
        """The rows of x and y with their shapes and names."""
        return open_rows(self.x, "x"), open_rows(self.y, "y")

    @property
    def n(self) -> int:
        """The number of items."""
        return self.sources[0].shape[0]

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of the rows of x and y."""
        return self.sources[0].shape[1], self.sources[1].shape[1]

    @cached_property
    def rows(self) -> tuple[Indexable, Indexable]:
        """x and y as arrays or tensors that a tensor of items can index."""
        return indexable(self.x), indexable(self.y)

    @cached_property
    def weights(self) -> Tensor | None:
        """The weights of the items in a mean over groups; None where every item counts alike."""
        return None if self.groups is None else group_weights(self.groups)

    @cached_property
    def units(self) -> int:
        """The number of groups, or of items where there are no groups."""
        return self.n if self.groups is None else len(torch.unique(self.groups))

    def chance_of_mutual_knn(self, k: int) -> float:
        """Return the mean of mutual k-NN under relabelling; the lists of an item hold items of other groups."""
        if self.groups is None or self.weights is None:
            return k / (self.n - 1)
        _, ids, sizes = torch.unique(self.groups, return_inverse=True, return_counts=True)
        return float(self.weights @ (k / (self.n - sizes[ids].double())))


def paired_items(
    x: RowSource,
    y: RowSource,
    *,
    groups: Labels | None,
    within: Labels | None,
    ids: Ids | None,
    preparation: str | None,
) -> Items:
    """Check the labels, pair the rows by name where ids are given, and prepare them where asked for.

    Raises:
        TypeError: If labels are neither integers nor strings.
        ValueError: If labels, ids or rows do not match each other.
    """
    if groups is not None and within is not None:
        raise ValueError("align: groups relabels whole groups and within inside them: give one of the two")
    n = open_rows(x).shape[0]
    group_labels, classes = _labels("groups", groups, n), _labels("within", within, n)
    if ids is not None:
        left, right = _places_of_shared_names(x, y, ids)
        x, y = indexable(x)[left], indexable(y)[right]
        group_labels = None if group_labels is None else group_labels[left]
        classes = None if classes is None else classes[left]
    if preparation is not None:
        x, y = prepare(x, preparation), prepare(y, preparation, name="y")
    items = Items(x, y, groups=group_labels, within=classes)
    counts = [source.shape[0] for source in items.sources]
    if counts[0] != counts[1]:
        raise ValueError(
            f"align: x and y must hold the same items in one order, got {counts[0]} and {counts[1]} rows; "
            "give ids=(names of x's rows, names of y's rows) to pair them by name"
        )
    return items


def _labels(name: str, labels: Any, n: int) -> Tensor | None:
    """Return labels as int64 numbers; strings are numbered."""
    if labels is None:
        return None
    if not isinstance(labels, Tensor):
        array = np.asarray(labels)
        text = array.dtype.kind == "U" or (
            array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat)
        )
        labels = torch.as_tensor(as_classes(array.tolist()) if text and array.ndim == 1 else array)
    table: Tensor = labels
    if table.dtype.is_floating_point or table.dtype.is_complex or table.dtype == torch.bool:
        raise TypeError(f"align: {name} must be integers, one for each item, got {table.dtype}")
    if tuple(table.shape) != (n,):
        raise ValueError(f"align: {name} must be ({n},), one for each item, got {tuple(table.shape)}")
    return table.long()


def _places_of_shared_names(x: RowSource, y: RowSource, ids: Ids) -> tuple[Tensor, Tensor]:
    """Return the rows of x whose name y has too, in the order of x, and the row of y of each."""
    if len(ids) != 2:
        raise ValueError(f"align: ids must be the names of x's rows and those of y's, got {len(ids)} lists")
    names = [_name_list("x", x, ids[0]), _name_list("y", y, ids[1])]
    place = {name: row for row, name in enumerate(names[1])}
    left = torch.tensor([row for row, name in enumerate(names[0]) if name in place], dtype=torch.int64)
    if len(left) < FEWEST_SHARED:
        raise ValueError(f"align: x and y must share at least {FEWEST_SHARED} ids, got {len(left)}")
    return left, torch.tensor([place[names[0][row]] for row in left.tolist()])


def _name_list(side: str, rows: RowSource, names: Any) -> list[object]:
    """Return the names of the rows of one side, checked to be different and one for each row."""
    listed = names.tolist() if hasattr(names, "tolist") else list(names)
    n = open_rows(rows).shape[0]
    if len(listed) != n:
        raise ValueError(f"align: ids must name every row of {side}, got {len(listed)} for {n} rows")
    if len(set(listed)) < n:
        repeated = Counter(listed).most_common(1)[0][0]
        raise ValueError(f"align: ids must be different, got {repeated!r} twice in {side}")
    return listed
