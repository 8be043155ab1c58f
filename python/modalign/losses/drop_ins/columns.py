"""The embeddings of a batch's columns in as few calls of the model as sentence-transformers makes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["embed_columns"]

Features = dict[str, Any]


def embed_columns(model: Callable[[Features], Any], columns: Iterable[Features]) -> list[Tensor]:
    """Return the embeddings (n, d) of each column: of the first by itself, and of the others in one call if they merge.

    Columns merge if they are tokens with the same kinds of features. sentence-transformers' own function takes the
    place of this one where it is loaded, because its wrapper losses tell it when columns must not merge.
    """
    theirs = sys.modules.get("sentence_transformers.base.losses.merged_forward")
    if theirs is not None:
        embeddings: list[Tensor] = theirs.embed_columns(model, columns)
        return embeddings
    first, *others = columns
    merged = _merge(others) if len(others) > 1 else None
    if merged is None:
        return [model(features)["sentence_embedding"] for features in (first, *others)]
    anchor = model(first)["sentence_embedding"]
    return [anchor, *model(merged)["sentence_embedding"].chunk(len(others))]


def _merge(columns: list[Features]) -> Features | None:
    """Return one batch with the rows of all columns in order, or None where columns differ in kind."""
    first = columns[0]
    tokens = [first.get(name) for name in ("input_ids", "attention_mask")]
    tables = [table for table in tokens if isinstance(table, Tensor) and table.ndim > 1]
    if not tables or "cu_seq_lens_q" in first or any(set(column) != set(first) for column in columns):
        return None
    merged: Features = {}
    for name in first:
        values = [column[name] for column in columns]
        if isinstance(first[name], Tensor) and name != "prompt_length":
            merged[name] = _concatenate(values, rows=tables[0].shape[0])
            if merged[name] is None:
                return None
        elif all(_equal(value, first[name]) for value in values):
            merged[name] = first[name]
        else:
            return None
    return merged


def _concatenate(values: list[Any], rows: int) -> Tensor | None:
    """Return tables of ``rows`` rows below each other, those of tokens padded with zeros to one length; None if not."""
    first = values[0]
    if not all(isinstance(value, Tensor) and value.ndim == first.ndim for value in values):
        return None
    if first.ndim == 0 or any(value.shape[0] != rows or value.shape[2:] != first.shape[2:] for value in values):
        return None
    if first.ndim > 1:
        lengths = [value.shape[1] for value in values]
        if max(lengths) > min(lengths) and (first.is_floating_point() or first.is_complex()):
            return None  # numbers, unlike tokens behind a mask, cannot be padded
        values = [
            F.pad(value, [0, 0] * (first.ndim - 2) + [0, max(lengths) - length])
            for value, length in zip(values, lengths, strict=True)
        ]
    return torch.cat(values)


def _equal(a: object, b: object) -> bool:
    """Return whether two values are known to be equal."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.device == b.device and torch.equal(a, b)
    try:
        return bool(a == b)
    except (RuntimeError, ValueError):  # arrays, whose comparison has no truth value
        return False
