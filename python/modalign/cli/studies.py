"""``modalign reproduce``: the studies of papers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, TypeVar

import typer

from modalign.cli.common import RunOptions, command, resumable
from modalign.common.doors import drawing
from modalign.data.registry import DATA_SETS

if TYPE_CHECKING:
    from modalign.common.progress import Reporter

__all__: list[str] = []

# MultiBench's data sets of affect, by the names of their files, and AV-MNIST
MULTIBENCH = [source.settings.removeprefix("dataset=") for source in DATA_SETS["affect"].sources] + ["av_mnist"]


class _Running(TypedDict):
    """The arguments that every study takes."""

    fresh: bool
    workers: int | None
    reporter: Reporter


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that ``modalign reproduce`` runs; its page has the same name in ``modalign.common.doors.DRAWINGS``.

    Attributes:
        question (str): What the study asks, for the help text.
        run (callable): The function that runs it with the options of the command.
        options (tuple of str): The options that it takes and some other study does not.
        required (dict of str to str): Those of ``options`` that must be given, with what they take.
        location (str): Where to get what is required.
    """

    question: str
    run: Callable[[ReproduceOptions], None]
    options: tuple[str, ...] = ()
    required: Mapping[str, str] = dataclasses.field(default_factory=dict)
    location: str = ""


def _run_emergence(options: ReproduceOptions) -> None:
    from modalign.experiments.studies.emergence import FULL, QUICK, run

    grid = _on_device(FULL if options.full else QUICK, options.device)
    run(grid, options.folder, storage=options.storage, **options.running())


def _run_align(options: ReproduceOptions) -> None:
    from modalign.experiments.studies.strength import FULL, QUICK, run

    run(FULL if options.full else QUICK, options.folder, **options.running())


def _run_multibench(options: ReproduceOptions) -> None:
    from modalign.experiments.studies.multibench import FULL, QUICK, data_of, run

    grid = _on_device(FULL if options.full else QUICK, options.device)
    pairs = data_of(str(options.data), str(options.dataset), grid)
    run(pairs, grid, options.folder, storage=options.storage, **options.running())


def _run_vision_language(options: ReproduceOptions) -> None:
    from modalign.experiments.studies.vision_language import FULL, QUICK, run

    grid = _on_device(FULL if options.full else QUICK, options.device)
    images = options.images.split(",") if options.images else None
    run(grid, options.folder, images=images, captions=options.captions, encoders=options.encoder, **options.running())


STUDIES = {
    "emergence": Study(
        "when alignment emerges without an alignment loss", _run_emergence, options=("storage", "device")
    ),
    "align": Study("the effect of the alignment strength on accuracy", _run_align),
    "multibench": Study(
        "whether alignment goes with performance, on your copy of MultiBench's files",
        _run_multibench,
        options=("storage", "device", "data", "dataset"),
        required={"data": "a file of MultiBench or the folder of AV-MNIST", "dataset": ", ".join(MULTIBENCH)},
        location="`modalign data` says where to get them",
    ),
    "vision-language": Study(
        "whether frozen encoders align less when captions say less about their images",
        _run_vision_language,
        options=("device", "images", "captions", "encoder"),
    ),
}


def _takers(option: str) -> str:
    """Return the names of the studies that take an option."""
    return ", ".join(name for name, study in STUDIES.items() if option in study.options)


def _option(name: str, help: str, *, metavar: str | None = None, default: str | bool = False) -> object:
    """Return an option of some studies, whose help begins with their names."""
    return typer.Option(metavar=metavar, help=f"{_takers(name)}: {help}", show_default=default)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceOptions(RunOptions):
    """The options of ``modalign reproduce``."""

    study: Annotated[str, typer.Argument(metavar="STUDY", help=f"Name of the study: {', '.join(STUDIES)}.")]
    full: Annotated[bool, typer.Option("--full/--quick", help="Run the paper's whole grid, or a small one.")] = False
    storage: Annotated[
        str | None, _option("storage", "URL of the Optuna storage for the trials.", default="SQLite in the folder")
    ] = None
    images: Annotated[
        str | None, _option("images", "files of image features.", metavar="FILE[,FILE]", default="emoji")
    ] = None
    captions: Annotated[
        str | None, _option("captions", "texts, one a line, or FILE:COLUMN.", metavar="FILE", default="emoji")
    ] = None
    encoder: Annotated[
        list[str] | None,
        _option(
            "encoder",
            "text encoder, as `embed` takes it, or tfidf, minilm, wordllama or smollm2. May be given several times.",
            metavar="KIND:LOCATION",
            default="those installed",
        ),
    ] = None
    data: Annotated[
        Path | None, _option("data", "the pickle file, or the folder of AV-MNIST.", metavar="FILE_OR_FOLDER")
    ] = None
    dataset: Annotated[str | None, _option("dataset", f"one of {', '.join(MULTIBENCH)}.", metavar="NAME")] = None
    device: Annotated[str | None, _option("device", "device of the encoders, such as cuda.", default="cpu")] = None

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.out or Path("results") / (f"{self.study}-{self.dataset}" if self.dataset else self.study)

    def running(self) -> _Running:
        """Return the arguments that every study takes."""
        return {"fresh": self.fresh, "workers": self.workers, "reporter": self.reporter()}


@command(
    "Reproduce a paper's study: train, measure, and write a report with its numbers beside the paper's.\n\nSTUDY is "
    + ", ".join(f"`{name}` ({study.question})" for name, study in STUDIES.items())
    + ". A study takes about ten minutes on two cores; --full runs the paper's whole grid. An interrupted study "
    "continues where it stopped.",
    "Examples: `modalign reproduce emergence` · `modalign reproduce align --out results/align` · "
    "`modalign reproduce emergence --full --storage postgresql://...` · "
    "`modalign reproduce multibench --data mosi_raw.pkl --dataset mosi` · "
    "`modalign reproduce vision-language --encoder minilm --encoder transformers:FOLDER`",
)
def reproduce(options: ReproduceOptions) -> None:
    from modalign.cli.tables import print_claims

    study = _checked_study(options)
    with resumable():
        study.run(options)
        page = drawing(options.study)(options.folder)
    print_claims(options.folder)
    notes = options.folder / "notes.json"
    for note in json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else ():
        typer.echo(f"note: {note}")
    typer.echo(f"report: {page}")


def _checked_study(options: ReproduceOptions) -> Study:
    """Return the study that was named, or refuse a name or an option that does not exist."""
    if options.study not in STUDIES:
        raise ValueError(f"STUDY must be one of {', '.join(STUDIES)}, got {options.study!r}")
    study = STUDIES[options.study]
    for option in dict.fromkeys(name for other in STUDIES.values() for name in other.options):
        if getattr(options, option) is not None and option not in study.options:
            raise ValueError(f"--{option} is not an option of {options.study}; it is one of {_takers(option)}")
    if any(getattr(options, option) is None for option in study.required):
        needed = ", and ".join(f"--{option}, {value}" for option, value in study.required.items())
        raise ValueError(f"reproduce {options.study} needs {needed}; {study.location}")
    return study


Grid = TypeVar("Grid")


def _on_device(grid: Grid, device: str | None) -> Grid:
    """Return the grid of a study with its encoders on ``device``."""
    import torch

    if device is None:
        return grid
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"--device must be cpu, cuda or cuda:0, cuda:1 ..., got {device}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch sees no GPU here; leave it out, or see `modalign doctor`")
    return dataclasses.replace(grid, device=device)  # type: ignore[type-var]
