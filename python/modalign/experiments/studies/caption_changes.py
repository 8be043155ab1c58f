"""Captions changed so that they share less with their images: words deleted, or replaced by other captions' words."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modalign.common.checks import one_of

__all__ = ["EMPTY", "KINDS", "changed_captions", "changes"]

KINDS = ("deleted", "replaced")
EMPTY = "."  # a caption that lost every word: encoders want something to read
EDGES = string.punctuation + "“”‘’…"


def changed_captions(captions: Sequence[str], uniqueness: float, kind: str, *, seed: int = 0) -> list[str]:
    """Return the captions with ``uniqueness`` per cent of their words deleted or replaced.

    Words are separated by spaces. Of a caption's m words, U m / 100 change, rounded up or down at random so that
    the share is right on average. The words that change depend only on the seed, the caption's place and m: those that
    change at 10 % are among those at 20 %, and both kinds change the same words.

    captions: (n), each with a word or more. uniqueness: U, 0 to 100. kind: "deleted", or "replaced": by words drawn
    from the other captions, a word as often as they have it, and none by itself (whatever its case and punctuation).
    Returns (n); a caption that lost every word is ".".
    Raises ValueError for a caption without a word (named), U out of range, another kind, or captions with too few
    different words to replace one.
    Source: the perturbed captions of Tjandrasuwita et al. 2025 (arXiv:2502.16282), by words.

    Examples:
        >>> from modalign.experiments.studies.caption_changes import changed_captions
        >>> captions = ["a red fox runs", "two cats", "one old grey boat"]
        >>> changed_captions(captions, 50, "deleted")
        ['a runs', 'two', 'old grey']
        >>> changed_captions(captions, 50, "replaced")
        ['a boat boat runs', 'two grey', 'runs old grey red']
    """
    one_of("changed_captions", "kind", kind, KINDS)
    if not 0 <= uniqueness <= 100:
        raise ValueError(f"changed_captions: uniqueness is per cent of the words, from 0 to 100, got {uniqueness}")
    words = [caption.split() for caption in captions]
    fates = changes(words, uniqueness, seed=seed)
    if kind == "deleted":
        kept = [[word for word, gone in zip(*pair, strict=True) if not gone] for pair in zip(words, fates, strict=True)]
        return [" ".join(some) or EMPTY for some in kept]
    drawn = _drawn(words, fates, seed)
    return [" ".join(row) for row in drawn]


def changes(words: Sequence[Sequence[str]], uniqueness: float, *, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Return which words of each caption change, as one bool a word.

    Place r of a random order of m words changes where (r + v) / m < U / 100, for one uniform v of the caption.
    """
    fates = []
    for number, some in enumerate(words):
        if not len(some):
            raise ValueError(f"caption {number} (from 0) has no words; take it and its image out")
        rng = np.random.default_rng([seed, 0, number])
        at = (rng.permutation(len(some)) + rng.random()) / len(some)
        fates.append((at < uniqueness / 100) | (uniqueness >= 100))
    return fates


def _drawn(words: list[list[str]], fates: list[NDArray[np.bool_]], seed: int) -> list[list[str]]:
    pool = [word for some in words for word in some]
    bare = [word.strip(EDGES).casefold() for word in pool]
    found, start = [], 0
    for number, (some, fate) in enumerate(zip(words, fates, strict=True)):
        stop, others = start + len(some), len(pool) - len(some)
        # a draw for each word, changed or not, so that a word's replacement is the same at every uniqueness
        draws = np.random.default_rng([seed, 1, number]).integers(0, max(others, 1), len(some))
        row = list(some)
        for place in np.flatnonzero(fate):
            for step in range(others):
                at = (int(draws[place]) + step) % others
                at += len(some) if at >= start else 0
                if bare[at] != bare[start + place]:
                    row[place] = pool[at]
                    break
            else:
                raise ValueError(
                    f"no other caption has a word to replace {some[place]!r} of caption {number} (from 0); give more "
                    "captions"
                )
        found.append(row)
        start = stop
    return found
