"""The embedded emoji: drawings by two vendors and English names, with features of an image and a text encoder.

There are 1,652 of them.

Files, sources and licences: ``emoji_files/items.json`` and NOTICE; ``python -m modalign.data.build_emoji`` makes them.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import require_one_of, scaled, token_ids, vocabulary
from modalign.data.paired import PARTS, TRAIN, PairedDataset, split_of

__all__ = ["emoji", "emoji_texts", "emoji_vocabulary"]

FOLDER = files("modalign.data") / "emoji_files"
SIZE, COLUMNS = 32, 64  # of an icon, and icons in a row of a sheet
FLAGS = "flags"
# pair: (modality names, file of modality 1, file of modality 2)
PAIRS = {
    "image-text": (("image", "text"), "noto", "label"),
    "image-image": (("Twemoji image", "Noto image"), "twemoji", "noto"),
    "text-text": (("label", "tags"), "label", "tags"),
}
FEATURES = ("frozen", "raw")
PAIRINGS = ("true", "within-group", "random")


def emoji(
    pair: str = "image-text",
    *,
    features: str = "frozen",
    pairing: str = "true",
    fraction: float = 1.0,
    pca: int | None = 128,
    flags: bool = False,
    seed: int = 0,
) -> PairedDataset:
    """Return pairs of real modalities in 8 classes (the emoji groups; 9 with flags) and some 95 finer groups.

    Args:
        pair: "image-text" (Noto drawing, English label), "image-image" (Twemoji, Noto) or "text-text" (label, tags).
        features: "frozen" is the float32 output of EfficientNet-Lite0 (1280 wide) for images and of all-MiniLM-L6-v2
            (384) for text, stored as float16; "raw" is uint8 pixels (n, 3, 32, 32) and int64 word ids (n, length), 0
            for padding.
        pairing: "true", or less redundancy: "within-group" and "random" permute modality 2 of a ``fraction`` of the
            pairs, inside a class or over all of them, separately in each part of the split. The permutation is one
            cycle per class (or part), so that each of its pairs is a false one, unless a class has only one. A larger
            fraction permutes the pairs of a smaller one, too.
            Pairing within a group tells an alignment loss the class of every pair, also of those whose label it is not
            given: gains seen there are those of more labels.
        fraction: 0 to 1, of the pairs to permute; used only where ``pairing`` is not "true".
        pca: width that frozen features are reduced to, or None for all of them. Mean, components and scale (one for
            all, so that the mean variance is 1 and the geometry stays) are those of the training part.
        flags: whether to keep the 8 flags that both vendors draw, a class that has 1 or 2 items in the test part.
        seed: fixes the split (70 / 15 / 15 per cent, by finer group) and the permutation.

    Returns: x, y, ``labels`` of the modality-1 items, ``labels_y`` of the modality-2 items where any differs,
    ``groups`` and ``groups_y`` likewise, and the settings.
    Raises ValueError for a setting that does not exist or is out of range.

    Examples:
        >>> from modalign.data import emoji
        >>> data = emoji("image-text")
        >>> data.x.shape, data.y.shape, len(data.classes)
        (torch.Size([1644, 128]), torch.Size([1644, 128]), 8)
    """
    require_one_of("emoji: pair", pair, PAIRS)
    require_one_of("emoji: features", features, FEATURES)
    require_one_of("emoji: pairing", pairing, PAIRINGS)
    seed = whole_number("emoji", "seed", seed, least=0)
    if not 0 <= fraction <= 1:
        raise ValueError(f"emoji: fraction is the share of pairs to permute, from 0 to 1, got {fraction}")
    table = _table()
    group, subgroup = table["group"], table["subgroup"]
    kept = np.flatnonzero(group != table["groups"].index(FLAGS)) if not flags else np.arange(len(group))
    split = split_of(subgroup[kept], seed=seed)
    partner = _partners(group[kept], split.numpy(), pairing, fraction=fraction, seed=seed)

    modalities, first, second = PAIRS[pair]
    train = kept[split.numpy() == TRAIN]
    x, y = (_modality(name, features, pca, kept=kept, train=train) for name in (first, second))
    labels, groups = torch.from_numpy(group[kept]), torch.from_numpy(subgroup[kept])
    moved = bool((partner != np.arange(len(kept))).any())
    return PairedDataset(
        name="emoji",
        modalities=modalities,
        x=x,
        y=y[partner],
        labels=labels,
        split=split,
        classes=tuple(table["groups"][: int(labels.max()) + 1]),
        labels_y=labels[partner] if not torch.equal(labels[partner], labels) else None,
        groups=groups,
        groups_y=groups[partner] if moved else None,
        settings={
            "pair": pair,
            "features": features,
            "pairing": pairing,
            "fraction": fraction,
            "pca": pca,
            "flags": flags,
            "seed": seed,
        },
    )


def emoji_texts(*, tags: bool = False, flags: bool = False) -> list[str]:
    """Return the English labels (or the tags, joined by ", ") in the order of ``emoji(..., pairing="true")``.

    Examples:
        >>> from modalign.data import emoji_texts
        >>> emoji_texts()[0]
        'grinning face'
    """
    table = _table()
    texts = [", ".join(words) for words in table["tags"]] if tags else table["label"]
    return [text for text, group in zip(texts, table["group"], strict=True) if flags or table["groups"][group] != FLAGS]


def emoji_vocabulary(*, seed: int = 0, tags: bool = False, flags: bool = False) -> list[str]:
    """Return the words behind the ids of raw text: by falling number of training texts they occur in, then by alphabet.

    Id 0 is padding, id 1 any word that no training text has. Words are runs of letters and digits, in lower case.
    """
    table = _table()
    texts = emoji_texts(tags=tags, flags=flags)
    kept = [i for i, group in enumerate(table["group"]) if flags or table["groups"][group] != FLAGS]
    split = split_of(table["subgroup"][kept], seed=seed)
    return vocabulary([text for text, part in zip(texts, split.tolist(), strict=True) if part == TRAIN])


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table = json.loads((FOLDER / "items.json").read_text(encoding="utf-8"))
    hexcode, group, subgroup, label, tags = zip(*table["items"], strict=True)
    return {
        "groups": table["groups"],
        "subgroups": table["subgroups"],
        "hexcode": hexcode,
        "group": np.array(group, np.int64),
        "subgroup": np.array(subgroup, np.int64),
        "label": label,
        "tags": tags,
    }


def _partners(
    group: NDArray[np.int64], split: NDArray[np.int8], pairing: str, *, fraction: float, seed: int
) -> NDArray[np.int64]:
    """Return the index of the modality-2 item that goes with each modality-1 item."""
    partner = np.arange(len(group))
    if pairing == "true":
        return partner
    for part in PARTS:
        for label in np.unique(group) if pairing == "within-group" else (-1,):
            inside = (split == part) & ((group == label) | (label == -1))
            members = np.random.default_rng([seed, 2, part, int(label) + 1]).permutation(np.flatnonzero(inside))
            chosen = members[: round(fraction * len(members))]
            partner[chosen] = np.roll(chosen, 1)
    return partner


def _modality(
    name: str, features: str, pca: int | None, *, kept: NDArray[np.int64], train: NDArray[np.int64]
) -> Tensor:
    if features == "frozen":
        return _reduced(name, pca, kept.tobytes(), train.tobytes()).clone()
    if name in ("label", "tags"):
        return _token_ids(name, kept, train)
    return torch.from_numpy(_pixels(name)[kept])


@functools.lru_cache(maxsize=8)
def _reduced(name: str, pca: int | None, kept: bytes, train: bytes) -> Tensor:
    """Return frozen features centred, projected on ``pca`` principal components of the training rows, and scaled.

    kept, train: ids of items as bytes of int64: one key for all cases of a sweep, which differ in pairing alone.
    A component's sign is that of its largest loading, positive, so that the result does not depend on the solver.
    """
    ids = np.frombuffer(kept, np.int64)
    values = _frozen(name)[ids]
    rows = np.isin(ids, np.frombuffer(train, np.int64))
    return scaled(values, rows, pca=pca, name="emoji")


@functools.lru_cache(maxsize=4)
def _frozen(name: str) -> NDArray[np.float32]:
    with (FOLDER / f"{name}.npz").open("rb") as file:
        return np.asarray(np.load(file)["features"], np.float32)


@functools.lru_cache(maxsize=2)
def _pixels(name: str) -> NDArray[np.uint8]:
    """Return the drawings of all items, (items, 3, 32, 32)."""
    from PIL import Image

    with (FOLDER / f"{name}.png").open("rb") as file:
        sheet = np.asarray(Image.open(file).convert("RGB"))
    grid = sheet.reshape(-1, SIZE, COLUMNS, SIZE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(grid.reshape(-1, 3, SIZE, SIZE)[: len(_table()["label"])])


def _token_ids(name: str, kept: NDArray[np.int64], train: NDArray[np.int64]) -> Tensor:
    table = _table()
    texts = table["label"] if name == "label" else [", ".join(words) for words in table["tags"]]
    return token_ids([texts[i] for i in kept], np.isin(kept, train))
