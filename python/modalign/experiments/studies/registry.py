"""The registry of studies: each is declared once, and ``modalign reproduce`` and the docs derive from ``STUDIES``.

A study is a function that takes ``StudyOptions``, does its work in ``options.folder`` and leaves claims.json there, the
paper's claims with verdicts. It is named as "module:function", so that a help text imports neither torch nor a study.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from modalign.common.names import require_reference, resolve, suggestion

if TYPE_CHECKING:
    from modalign.common.progress import Reporter

__all__ = ["PROTOCOLS", "STUDIES", "Protocol", "StudyEntry", "StudyOptions", "register", "studies_table"]

Protocol = Literal["default", "paper"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """What the caller of a study chooses.

    Attributes:
        folder: the folder of the results.
        full: the paper's whole grid, or a small one.
        protocol: one of ``PROTOCOLS``: "default", or "paper", which follows the paper's published code step by step.
        fresh: start over, and forget what the folder holds of an earlier study.
        workers: the number of parts that run at once; None for one a core.
        reporter: where progress is shown; None for nowhere.
        storage: URL of Optuna's storage; None for SQLite in the folder.
        device: where encoders run; None for the CPU.
        images, captions, encoders: image features, texts and text encoders of vision-language; None for its defaults.
        data, dataset: files and name of a data set of MultiBench.
        setting: fields of the study's grid with other values.
    """

    folder: Path
    full: bool = False
    protocol: str = "default"
    fresh: bool = False
    workers: int | None = None
    reporter: Reporter | None = None
    storage: str | None = None
    device: str | None = None
    images: tuple[str, ...] | None = None
    captions: str | None = None
    encoders: tuple[str, ...] | None = None
    data: Path | None = None
    dataset: str | None = None
    setting: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            hint = suggestion(self.protocol, PROTOCOLS)
            raise ValueError(f"protocol must be {' or '.join(PROTOCOLS)}, got {self.protocol!r}{hint}")

    def grid(self, grids: Mapping[str, tuple[Any, Any]]) -> Any:
        """Return the grid to run, a dataclass, on the device that was chosen.

        grids: for each protocol of the study its whole grid and its small one.
        """
        from modalign.experiments.studies.settings import changed

        full, quick = grids[self.protocol]
        chosen = changed(full if self.full else quick, self.setting)
        return chosen if self.device is None else dataclasses.replace(chosen, device=self.device)


@dataclasses.dataclass(frozen=True)
class StudyEntry:
    """One study.

    Attributes:
        name: the name on the command line.
        question: what the study asks, for help texts.
        function: "module:function" that runs it, given ``StudyOptions``.
        options: names of the options that it takes and some other study does not.
        required: those of ``options`` that must be given, each with what it is.
        where: where to get what is required.
        instead: options that it does not take, each with what to do instead.
        page: the name of its page in ``modalign.common.doors.DRAWINGS``, or None for a study that has no page.
        protocols: those of ``PROTOCOLS`` that it can follow.
        grids: "module:GRIDS", for each protocol the whole grid and the small one of a study that takes ``setting``.
        published_code: whether the paper publishes code, which the protocol "paper" then follows.
    """

    name: str
    question: str
    function: str
    options: tuple[str, ...] = ()
    required: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""
    instead: Mapping[str, str] = dataclasses.field(default_factory=dict)
    page: str | None = None
    protocols: tuple[str, ...] = ("default",)
    grids: str | None = None
    published_code: bool = True

    def __post_init__(self) -> None:
        require_reference(self.function, f"StudyEntry {self.name}: function")

    def resolve(self) -> Callable[[StudyOptions], None]:
        """Import and return the function that runs the study."""
        function: Callable[[StudyOptions], None] = resolve(self.function)
        return function


STUDIES: dict[str, StudyEntry] = {}


def register(study: StudyEntry) -> None:
    """Add a study, which ``modalign reproduce`` then runs by its name. Raises ValueError for a name that is taken.

    Examples:
        >>> from modalign.experiments.studies.registry import STUDIES, StudyEntry, register
        >>> register(StudyEntry("toy", "whether two is more than one", "my_study:run"))
        >>> STUDIES.pop("toy").question
        'whether two is more than one'
    """
    if study.name in STUDIES:
        raise ValueError(f"register: there is a study {study.name!r} already; choose another name")
    STUDIES[study.name] = study


for _study in (
    StudyEntry(
        "emergence",
        question="when alignment emerges without an alignment loss",
        function="modalign.experiments.studies.emergence:reproduce",
        options=("storage", "device", "setting"),
        page="emergence",
        protocols=PROTOCOLS,
        grids="modalign.experiments.studies.emergence_grid:GRIDS",
    ),
    StudyEntry(
        "align",
        question="what alignment of a chosen strength does to each modality",
        function="modalign.experiments.studies.strength:reproduce",
        protocols=("default", "paper"),
        options=("device", "data", "dataset"),
        page="align",
        published_code=False,
        instead={
            "setting": "it runs sweeps: change a copy of the config.yaml that each leaves in its folder, and run "
            "`modalign sweep`"
        },
    ),
    StudyEntry(
        "multibench",
        question="whether alignment goes with performance, on your copy of MultiBench's files",
        function="modalign.experiments.studies.multibench:reproduce",
        protocols=("default", "paper"),
        options=("storage", "device", "data", "dataset", "setting"),
        required={
            "data": "a file of MultiBench or the folder of AV-MNIST",
            "dataset": "mosi, mosei, humor, sarcasm or av_mnist",
        },
        where="`modalign data list` says where to get them",
        page="multibench",
        grids="modalign.experiments.studies.multibench_grid:GRIDS",
    ),
    StudyEntry(
        "vision-language",
        question="whether frozen encoders align less when captions say less about their images",
        function="modalign.experiments.studies.vision_language:reproduce",
        options=("device", "images", "captions", "encoder", "setting"),
        page="vision-language",
        protocols=PROTOCOLS,
        grids="modalign.experiments.studies.vision_language_grid:GRIDS",
    ),
):
    register(_study)


def studies_table() -> str:
    """Return the Markdown table of studies that docs/experiments.md shows."""
    lines = ["| study | asks | protocols | options of its own |", "|---|---|---|---|"]
    for study in STUDIES.values():
        options = ", ".join(f"`--{name}`" + (" (required)" if name in study.required else "") for name in study.options)
        protocols = ", ".join(study.protocols)
        lines.append(f"| `{study.name}` | {study.question} | {protocols} | {options or 'none'} |")
    return "\n".join(lines)
