"""The data of the study of MultiBench: the user's files, cut and scaled as a grid and its protocol say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modalign.common.names import suggestion
from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset, affect, av_mnist, require_trainable
from modalign.experiments.studies.multibench_grid import Grid
from modalign.experiments.sweep.training import inputs_of
from modalign.files.paths import expanded

__all__ = ["DATASETS", "data_of", "facts_of", "file_of"]

# the usual names of the file of each affect data set; the features of the paper's MOSI are those of mosi_data.pkl
AFFECT_FILES = {
    "mosi": ("mosi_raw.pkl", "mosi_data.pkl"),
    "mosei": ("mosei_senti_data.pkl",),
    "humor": ("humor.pkl",),
    "sarcasm": ("sarcasm.pkl",),
}
DATASETS = (*AFFECT_FILES, "av_mnist")
SPECTROGRAM, POOL = (112, 112), 4


def data_of(path: str | Path, dataset: str, grid: Grid) -> PairedDataset:
    """Return the data set, cut as ``grid`` says, from its file or from the folder that holds it under its usual name.

    Affect sets have vision, audio and text; the spectrograms of AV-MNIST are averaged over 4 x 4 (28 tokens of 28),
    files of MFCC tokens are taken as they are. Under the protocol of the paper, features are standardised as its code
    does it. Raises FileNotFoundError for a missing file, and ValueError for one of another form or one that is too
    small.
    """
    if dataset == "mm_imdb":
        raise ValueError(
            "multibench: the paper's study of MM-IMDb, CLIP fine-tuned with BCE + w * CLIP loss and linear probes of "
            "each genre, is not offered: it needs the pictures, the texts and pretrained weights of CLIP. `modalign "
            "sweep` trains encoders on the features of multimodal_imdb.hdf5 at any strength of alignment "
            "(data: {name: mm_imdb, path: ...})"
        )
    if dataset not in DATASETS:
        hint = suggestion(dataset, DATASETS)
        raise ValueError(f"multibench: dataset must be one of {', '.join(DATASETS)}, got {dataset!r}{hint}")
    published = grid.protocol == "paper"
    place = file_of(path, dataset, published=published)
    if dataset == "av_mnist":
        audio = place / "audio" / "train_data.npy"
        shape = np.load(audio, mmap_mode="r", allow_pickle=False).shape[1:] if audio.is_file() else ()
        data = av_mnist(
            place,
            features="tokens",
            audio_pool=POOL if shape == SPECTROGRAM else 1,
            standardise="multibench" if published else True,
            items=grid.items,
        )
    else:
        data = affect(
            place,
            dataset,
            ("vision", "audio", "text"),
            standardise="multibench" if published else True,
            steps=grid.steps,
            items=grid.items,
        )
    require_trainable(data)
    held = min(int((data.split == TEST).sum()), grid.compared)
    if not grid.k < held:
        raise ValueError(f"multibench: k must be less than the number of test pairs compared, got {grid.k} for {held}")
    return data


def file_of(path: str | Path, dataset: str, *, published: bool = False) -> Path:
    """Return the file of a data set in a folder that holds it under a usual name, or the path of the file itself.

    published: whether the file of the paper's features comes first, where a folder holds two.
    """
    place = expanded(path)
    if dataset == "av_mnist":
        if not place.is_dir():
            raise ValueError(f"multibench: av_mnist needs the folder with image/, audio/ and labels, got {place}")
        return place
    if not place.is_dir():
        return place
    names = AFFECT_FILES[dataset]
    there = [name for name in (reversed(names) if published else names) if (place / name).is_file()]
    if not there:
        raise FileNotFoundError(f"multibench: {place} holds no file {' or '.join(names)}")
    return place / there[0]


def facts_of(data: PairedDataset) -> dict[str, Any]:
    """Return the facts that identify the data: sizes, and the fingerprint of every number."""
    return {
        "modalities": {name: list(x.shape[1:]) for name, x in zip(data.modalities, inputs_of(data), strict=True)},
        "pairs": [int((data.split == part).sum()) for part in (TRAIN, VALIDATION, TEST)],
        "fingerprint": data.fingerprint(),
    }
