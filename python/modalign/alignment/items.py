"""The items of one call of ``align``: rows of both representations, paired, and the labels of the items."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modalign.alignment.preparation import prepare
from modalign.common.conversion import require_same_index
from modalign.common.labels import Labels, entries_of, label_tensor
from modalign.files.rows import Rows, RowSource, as_source, indexable, open_rows
from modalign.metrics.inputs import group_weights

__all__ = ["Ids", "Indexable", "Items", "paired_items", "require_one_kind", "shared_places", "unpaired_note"]

# an array or tensor that a tensor of items can index, which NumPy's own types do not allow for
Indexable: TypeAlias = Any

Ids: TypeAlias = tuple[Sequence[object], Sequence[object]]
FEWEST_SHARED = 4  # ids that x and y must have in common


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """Two representations of the same n items.

    Attributes:
        x: (n, d_x) array, tensor or file.
        y: (n, d_y) array, tensor or file; row i is the same item as row i of x.
        groups: int64 tensor of shape (n,), or None. Items that belong together.
        within: int64 tensor of shape (n,), or None. Classes within which the null relabels.
        unpaired: The numbers of rows of x and of y that were left out, because the other side has no row of their id.
    """

    x: RowSource
    y: RowSource
    groups: Tensor | None = None
    within: Tensor | None = None
    unpaired: tuple[int, int] = (0, 0)

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

    @cached_property
    def fewest_candidates(self) -> int:
        """The number of items that may be neighbours of the item that has the fewest of them."""
        largest = 1 if self.groups is None else int(torch.unique(self.groups, return_counts=True)[1].max())
        return self.n - largest

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
        TypeError: If labels or ids are no list of text or numbers.
        ValueError: If labels, ids or rows do not match each other, or some are missing.
    """
    require_one_kind("align", groups, within)
    if ids is None:
        require_same_index("align", x, y)
    x, y = as_source("align: x", x), as_source("align: y", y)
    n = open_rows(x).shape[0]
    group_labels = None if groups is None else label_tensor("align: groups", groups, n)
    classes = None if within is None else label_tensor("align: within", within, n)
    unpaired = (0, 0)
    if ids is not None:
        left, right = shared_places(x, y, ids)
        unpaired = (n - len(left), open_rows(y).shape[0] - len(right))
        x, y = indexable(x)[left], indexable(y)[right]
        group_labels = None if group_labels is None else group_labels[left]
        classes = None if classes is None else classes[left]
    if preparation is not None:
        x, y = prepare(x, preparation), prepare(y, preparation, name="y")
    items = Items(x, y, groups=group_labels, within=classes, unpaired=unpaired)
    counts = [source.shape[0] for source in items.sources]
    if counts[0] != counts[1]:
        raise ValueError(
            f"align: x and y must hold the same items in one order, got {counts[0]} and {counts[1]} rows; "
            "give ids=(names of x's rows, names of y's rows) to pair them by name"
        )
    return items


def require_one_kind(operation: str, groups: Labels | None, within: Labels | None) -> None:
    """Check that not both kinds of labels are given."""
    if groups is not None and within is not None:
        raise ValueError(f"{operation}: groups relabels whole groups and within inside them: give one of the two")


def unpaired_note(unpaired: tuple[int, int]) -> str:
    """Return the note on the numbers of rows of x and of y without a partner."""
    return (
        f"{unpaired[0]:,} rows of x and {unpaired[1]:,} of y have no row of the same id on the other side and are left "
        "out"
    )


def shared_places(x: RowSource, y: RowSource, ids: Ids) -> tuple[Tensor, Tensor]:
    """Return the rows of x whose name y has too, in the order of x, and the row of y of each."""
    if len(ids) != 2:
        raise ValueError(f"align: ids must be the names of x's rows and those of y's, got {len(ids)} lists")
    names = [_name_list("x", x, ids[0]), _name_list("y", y, ids[1])]
    kinds = ["text" if isinstance(side[0], str) else "numbers" for side in names]
    if kinds[0] != kinds[1]:
        raise TypeError(f"align: ids of x and y must be of one kind, got {kinds[0]} for x and {kinds[1]} for y")
    place = {name: row for row, name in enumerate(names[1])}
    left = torch.tensor([row for row, name in enumerate(names[0]) if name in place], dtype=torch.int64)
    if len(left) < FEWEST_SHARED:
        raise ValueError(f"align: x and y must share at least {FEWEST_SHARED} ids, got {len(left)}")
    return left, torch.tensor([place[names[0][row]] for row in left.tolist()])


def _name_list(side: str, rows: RowSource, names: Any) -> list[object]:
    """Return the names of the rows of one side, checked to be different and one for each row."""
    n = open_rows(rows).shape[0]
    listed: list[object] = entries_of(f"align: ids of {side}", names).tolist()
    if len(listed) != n:
        raise ValueError(f"align: ids must name every row of {side}, got {len(listed)} for {n} rows")
    if len(set(listed)) < n:
        repeated = Counter(listed).most_common(1)[0][0]
        raise ValueError(f"align: ids must be different, got {repeated!r} twice in {side}")
    return listed
