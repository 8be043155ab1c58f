"""``modalign reproduce``: the studies of papers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from modalign.cli.common import RunOptions, command, resumable
from modalign.cli.streams import echo
from modalign.common.doors import drawing
from modalign.common.names import suggestion
from modalign.experiments.studies.registry import PROTOCOLS, STUDIES, StudyEntry, StudyOptions

__all__: list[str] = []

ALIGN = "mosei, sarcasm, av_mnist or synergy"


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
    protocol: Annotated[
        str,
        typer.Option(
            help=f"Follow our choices ({PROTOCOLS[0]}), or the paper's published code step by step ({PROTOCOLS[1]}), "
            "which not every study offers."
        ),
    ] = "default"
    storage: Annotated[
        str | None, _option("storage", "URL of the Optuna storage for the trials.", default="SQLite in the folder")
    ] = None
    images: Annotated[
        str | None, _option("images", "files of image features.", metavar="FILE[,FILE]", default="emoji")
    ] = None
    captions: Annotated[
        str | None,
        _option(
            "captions",
            "texts, one a line, or FILE:COLUMN; or a folder of captions by uniqueness: the published data.json, or "
            "files 10.txt to 100.txt.",
            metavar="FILE_OR_FOLDER",
            default="emoji",
        ),
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
        Path | None,
        _option(
            "data",
            "the pickle file, a folder that holds it, or the folder of AV-MNIST; align takes synergy, too.",
            metavar="FILE_OR_FOLDER",
        ),
    ] = None
    dataset: Annotated[
        str | None,
        _option(
            "dataset",
            f"one of {STUDIES['multibench'].required['dataset']}; align: {ALIGN}, told by the files' names otherwise.",
            metavar="NAME",
        ),
    ] = None
    setting: Annotated[
        list[str] | None,
        _option(
            "setting",
            "another value of a setting of its grid, such as seeds=[2,22] or variant=width, which the page lists. May "
            "be given several times.",
            metavar="NAME=VALUE",
            default="those of the protocol",
        ),
    ] = None
    device: Annotated[str | None, _option("device", "device of the encoders, such as cuda.", default="cpu")] = None

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        named = self.dataset or (None if self.data is None or self.study != "align" else self.data.stem)
        parts = [self.study, named, None if self.protocol == "default" else self.protocol]
        return self.out or Path("results") / "-".join(part for part in parts if part)

    def for_study(self) -> StudyOptions:
        """Return the options as a study takes them."""
        return StudyOptions(
            folder=self.folder,
            full=self.full,
            protocol=self.protocol,
            fresh=self.fresh,
            workers=self.workers,
            reporter=self.reporter(),
            storage=self.storage,
            device=self.device,
            images=tuple(self.images.split(",")) if self.images else None,
            captions=self.captions,
            encoders=tuple(self.encoder) if self.encoder else None,
            data=self.data,
            dataset=self.dataset,
            setting=_settings(self.setting or ()),
        )


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
    if options.device is not None:
        _check_device(options.device)
    folder = options.folder
    with resumable():
        study.resolve()(options.for_study())
        page = None if study.page is None else drawing(study.page)(folder)
    print_claims(folder)
    notes = folder / "notes.json"
    for note in json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else ():
        echo(f"note: {note}")
    echo(f"results: {folder}" if page is None else f"report: {page}")


def _settings(given: Sequence[str]) -> dict[str, object]:
    """Return NAME=VALUE, each value read as YAML, by name."""
    import yaml

    settings = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--setting must be NAME=VALUE, such as seeds=[2,22], got {text!r}")
        try:
            settings[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--setting {name}: the value must be a number, a word or a list, got {value!r}") from None
    return settings


def _checked_study(options: ReproduceOptions) -> StudyEntry:
    """Return the study that was named, or refuse a name or an option that does not exist."""
    if options.study not in STUDIES:
        raise ValueError(
            f"STUDY must be one of {', '.join(STUDIES)}, got {options.study!r}{suggestion(options.study, STUDIES)}"
        )
    study = STUDIES[options.study]
    if options.protocol in PROTOCOLS and options.protocol not in study.protocols:
        raise ValueError(f"reproduce {options.study} has no protocol {options.protocol}; leave --protocol out")
    for option in dict.fromkeys(name for other in STUDIES.values() for name in other.options):
        if getattr(options, option) is not None and option not in study.options:
            raise ValueError(f"--{option} is not an option of {options.study}; it is one of {_takers(option)}")
    if any(getattr(options, option) is None for option in study.required):
        needed = ", and ".join(f"--{option}, {value}" for option, value in study.required.items())
        raise ValueError(f"reproduce {options.study} needs {needed}; {study.where}")
    return study


def _check_device(device: str) -> None:
    """Check that ``device`` names the CPU or a GPU that torch sees."""
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"--device must be cpu, cuda or cuda:0, cuda:1 ..., got {device}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch sees no GPU here; leave it out, or see `modalign doctor`")
