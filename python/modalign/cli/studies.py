"""``modalign reproduce``: the papers' studies."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.common import Bar, Quiet, Workers, command, resumable, style_of

__all__: list[str] = []


@command(
    "Reproduce a paper's study: train, measure, and write a report with its numbers beside the paper's. STUDY is "
    "`emergence` (when alignment arises by itself), `align` (what alignment of chosen strength does), `multibench` "
    "(whether it goes with performance, on your copy of MultiBench's files) or "
    "`vision-language` (frozen encoders on captions that say less and less of their images). About ten "
    "minutes on two cores, or the paper's whole grid with --full. An interrupted study goes on where it stopped.",
    "Examples: `modalign reproduce emergence` · `modalign reproduce align --out results/align` · "
    "`modalign reproduce emergence --full --storage postgresql://...` · "
    "`modalign reproduce multibench --data mosi_raw.pkl --dataset mosi` · "
    "`modalign reproduce vision-language --encoder minilm --encoder transformers:FOLDER`",
)
def reproduce(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="emergence, align, multibench or vision-language.")],
    full: Annotated[bool, typer.Option("--full/--quick", help="The paper's grid, or a small one.")] = False,
    storage: Annotated[str | None, typer.Option(help="URL of Optuna's storage.", show_default="SQLite")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="FILE[,FILE]", help="vision-language: image features.", show_default="emoji")
    ] = None,
    captions: Annotated[
        str | None, typer.Option(metavar="FILE", help="vision-language: texts, one a line, or FILE:COLUMN.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:WHERE",
            show_default="what is installed",
            help="vision-language: of texts, as `embed` takes it, or tfidf, minilm, wordllama, smollm2; repeatable.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE_OR_FOLDER", help="multibench: the pickle, or the folder of AV-MNIST.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="multibench: mosi, mosei, humor, sarcasm or av_mnist.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where encoders run, as cuda; not of align.", show_default="cpu")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="results/STUDY")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds of an earlier study.")] = False,
    quiet: Quiet = False,
    bar: Bar = None,
    workers: Workers = None,
) -> None:
    from modalign.cli.tables import print_claims
    from modalign.common.progress import Reporter
    from modalign.experiments.studies import emergence, multibench, vision_language
    from modalign.experiments.studies import strength as align_study
    from modalign.report.pages import emergence as emergence_page
    from modalign.report.pages import multibench as multibench_page
    from modalign.report.pages import strength as align_page
    from modalign.report.pages import vision_language as vision_language_page

    if study not in ("emergence", "align", "multibench", "vision-language"):
        raise ValueError(f"STUDY must be emergence, align, multibench or vision-language, got {study!r}")
    if (storage is not None and study in ("align", "vision-language")) or (device is not None and study == "align"):
        raise ValueError(
            "--storage and --device are of the studies emergence and multibench, which tune encoders; --device also of "
            "vision-language"
        )
    if study == "multibench" and (data is None or dataset is None):
        raise ValueError(
            "reproduce multibench needs --data, a file of MultiBench or the folder of AV-MNIST, and --dataset, "
            f"{', '.join(multibench.DATASETS)}; `modalign data` says where to get them"
        )
    if study != "multibench" and any(option is not None for option in (data, dataset)):
        raise ValueError("--data and --dataset are of the study multibench")
    if study != "vision-language" and any(option is not None for option in (images, captions, encoder)):
        raise ValueError("--images, --captions and --encoder are of the study vision-language")
    folder = out or Path("results") / (f"multibench-{dataset}" if study == "multibench" else study)
    common: dict[str, Any] = {
        "fresh": fresh, "workers": workers, "reporter": Reporter("none" if quiet else style_of(bar)),
    }  # fmt: skip
    with resumable():
        if study == "emergence":
            emergence.run(_on(device, emergence.FULL if full else emergence.QUICK), folder, storage=storage, **common)
            page = emergence_page.write(folder)
        elif study == "multibench":
            assert data is not None
            assert dataset is not None
            grid = _on(device, multibench.FULL if full else multibench.QUICK)
            multibench.run(multibench.data_of(data, dataset, grid), grid, folder, storage=storage, **common)
            page = multibench_page.write(folder)
        elif study == "vision-language":
            vision_language.run(
                _on(device, vision_language.FULL if full else vision_language.QUICK), folder,
                images=images.split(",") if images else None, captions=captions, encoders=encoder, **common,
            )  # fmt: skip
            page = vision_language_page.write(folder)
        else:
            align_study.run(align_study.FULL if full else align_study.QUICK, folder, **common)
            page = align_page.write(folder)
    print_claims(folder)
    from modalign.experiments.studies.vision_language_claims import notes

    for note in notes(folder) if study == "vision-language" else ():
        typer.echo(f"note: {note}")
    typer.echo(f"report: {page}")


def _on(device: str | None, grid: Any) -> Any:
    """The grid of a study on a device."""
    import torch

    if device is None:
        return grid
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"--device must be cpu, cuda or cuda:0, cuda:1 ..., got {device}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: torch sees no GPU here; leave it out, or see `modalign doctor`")
    return dataclasses.replace(grid, device=device)
