"""``modalign reproduce``: the studies of papers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from modalign.cli.common import RunOptions, command, resumable
from modalign.cli.streams import echo
from modalign.common.doors import drawing
from modalign.common.names import resolve, suggestion
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
            "another value of a setting, such as seeds=[2,22]; `--setting help` lists the settings of the study and "
            "ends. May be given several times.",
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
    "`modalign reproduce emergence --setting help` · "
    "`modalign reproduce vision-language --encoder minilm --encoder transformers:FOLDER`",
)
def reproduce(options: ReproduceOptions) -> None:
    from modalign.cli.tables import print_claims, print_settings

    study = _checked_study(options)
    if study.grids is not None and options.setting == ["help"]:
        print_settings(resolve(study.grids))
        return
    _require_options(study, options)
    if options.device is not None:
        from modalign.experiments.studies.settings import require_device

        require_device("--device", options.device)
    folder = options.folder
    with resumable():
        study.resolve()(options.for_study())
        page = None if study.page is None else drawing(study.page)(folder)
    print_claims(folder, read="docs/verdicts.md" if page is None else "the end of the page")
    notes = folder / "notes.json"
    for note in json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else ():
        echo(f"note: {note}")
    echo(f"results: {folder}" if page is None else f"report: {page}")


def _settings(given: Sequence[str]) -> dict[str, object]:
    """Return NAME=VALUE, each value read as YAML, by name."""
    from yaml import YAMLError

    from modalign.experiments.sweep.config import Loader
    from modalign.files.documents import read_yaml

    settings: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(
                f"--setting must be NAME=VALUE, such as seeds=[2,22], or help alone, which lists the settings, got "
                f"{text!r}"
            )
        if name.strip() in settings:
            raise ValueError(f"--setting {name.strip()} is there twice; give it once")
        try:
            settings[name.strip()] = read_yaml(value, Loader)
        except (YAMLError, ValueError):
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
            instead = "".join(f" ({text})" for name, text in study.instead.items() if name == option)
            raise ValueError(f"--{option} is not an option of {options.study}{instead}; it is one of {_takers(option)}")
    return study


def _require_options(study: StudyEntry, options: ReproduceOptions) -> None:
    """Check that the options are there that the study needs."""
    if any(getattr(options, option) is None for option in study.required):
        needed = ", and ".join(f"--{option}, {value}" for option, value in study.required.items())
        raise ValueError(f"reproduce {options.study} needs {needed}; {study.where}")
