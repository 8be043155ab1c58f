"""The command line: ``modalign align``, ``embed``, ``sweep``, ``tune``, ``reproduce``, ``data``, ``demo`` and more."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import modalign

__all__ = ["app", "main"]

CONFIGS = Path(__file__).parent / "experiments" / "configs"

app = typer.Typer(
    name="modalign",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Measure whether aligning two modalities helps.",
    epilog="Examples: `modalign demo` · `modalign align images.npy texts.npy --tolerance 0.005` · "
    "`modalign sweep my.yaml --out results/mine` · `modalign doctor`",
)


def main() -> None:
    """The entry point of the ``modalign`` command."""
    app()


def _command(help: str, examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose user's mistakes end in one line on standard error and exit code 2.

    MODALIGN_TRACEBACK=1 shows where they were raised instead.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def careful(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except (ValueError, TypeError, OSError, NotImplementedError, ArithmeticError) as error:
                if os.environ.get("MODALIGN_TRACEBACK") == "1":
                    raise
                typer.echo(f"modalign: {_message(error)}", err=True)
                raise typer.Exit(2) from None

        name = function.__name__.strip("_").replace("_", "-")
        return app.command(name, help=help, epilog=examples)(careful)

    return register


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C ends with 130 and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nstopped; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modalign {modalign.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


Out = Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="results/NAME")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds of an earlier sweep.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the results.")]
Bar = Annotated[bool | None, typer.Option("--bar/--lines", help="A progress bar, or lines.", show_default="terminal")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Chunks that train at once.", show_default="one for each core")
]


Page = Annotated[
    Path | None, typer.Option(metavar="PAGE.html", help="Write a page, and its pictures into PAGE-figures.")
]
Log = Annotated[
    list[str] | None, typer.Option(metavar="TRACKER", help="Also write tensorboard or wandb files; may be repeated.")
]


@_command(
    "Train every case of CONFIG at every strength and seed, and write a report. An interrupted sweep resumes.",
    "Examples: `modalign sweep my.yaml` · `modalign sweep my.yaml --out results/mine --fresh` · "
    "`modalign sweep my.yaml --log tensorboard`",
)
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration of the sweep.")],
    out: Out = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    bar: Bar = None,
    workers: Workers = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Train on a Ray cluster: local, auto or ray://HOST:PORT.")
    ] = None,
    log: Log = None,
) -> None:
    from modalign.experiments.config import load
    from modalign.experiments.trackers import require_tracker

    for tracker in log or ():
        require_tracker(tracker)
    again = f"modalign sweep {config}" + (f" --out {out}" if out else "") + (f" --ray {ray}" if ray else "")
    _log(_sweep(load(config), out, fresh, quiet, bar, workers, again, ray).parent, log)


@_command(
    "Write the report of a finished sweep again, and print its conclusions.",
    "Examples: `modalign report results/emoji` · `modalign report results/emoji --log wandb`",
)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a finished sweep.")], log: Log = None
) -> None:
    _report(folder)
    _log(folder, log)


@_command(
    "Compare two finished sweeps of the same cases: which settings differ, the best strengths, and what changed.",
    "Examples: `modalign compare results/emoji results/emoji-wide` · "
    "`modalign compare results/emoji results/emoji-wide --out compared.html`",
)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder of a finished sweep.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Folder of another.")],
    out: Page = None,
) -> None:
    from modalign.printing import print_differences
    from modalign.report import comparison_page

    _require_html(out)
    print_differences(first, second)
    if out is not None:
        typer.echo(f"report: {comparison_page.write(first, second, out)}")


@_command(
    "Mutual k-NN of two files of embeddings: the share of nearest neighbours that row i has in both. "
    "The files are memory-mapped.",
    "Example: `modalign mutual-knn images.npy texts.npy --k 10`",
)
def mutual_knn(
    a: Annotated[Path, typer.Argument(metavar="A.npy", help="(n, d) floats; row i is item i.")],
    b: Annotated[Path, typer.Argument(metavar="B.npy", help="(n, d') floats of the same items.")],
    k: Annotated[int, typer.Option(help="Neighbours of each item.")] = 10,
) -> None:
    x, y = _array(a), _array(b)
    value = modalign.mutual_knn(x, y, k=k)
    typer.echo(f"mutual k-NN {value:.4f} (chance {k / (len(x) - 1):.4f}), n = {len(x)}, k = {k}")


@_command(
    "Alignment of two files of embeddings, row i of both the same item: every metric asked for, with its interval, "
    "what chance gives, and the score calibrated by it. Files may be larger than memory: .npy, .npz:NAME, "
    ".safetensors:NAME, .pt:NAME, .parquet:COLUMN, .arrow:COLUMN, a saved Hugging Face FOLDER:COLUMN, and of layers "
    "(n, L, d) one as FILE[3]. LABELS are a file of one label a line, a .npy, or a COLUMN of .parquet, .csv or .arrow.",
    "Examples: `modalign align images.npy texts.npy` · `modalign align a.npy b.npy --metrics all --out a.html` · "
    "`modalign align a.npy b.npy --k 10 --tolerance 0.005 --max-memory 1GB` · "
    "`modalign align a.npy b.npy --within classes.txt` · `modalign align a.npy b.npy --within kmeans:50` · "
    "`modalign align a.npy b.npy --layers`",
)
def align(
    a: Annotated[str, typer.Argument(metavar="A", help="(n, d) numbers; row i is item i.")],
    b: Annotated[str, typer.Argument(metavar="B", help="(n, d') numbers of the same items.")],
    metrics: Annotated[str, typer.Option(help="Names with commas between them, or `all`.")] = ",".join(
        modalign.alignment.DEFAULT_METRICS
    ),
    k: Annotated[int, typer.Option(help="Neighbours of each item.")] = 10,
    metric: Annotated[str, typer.Option(help="Of the neighbours: cosine, dot or euclidean.")] = "cosine",
    prepare: Annotated[
        str | None, typer.Option(help="Rows as a paper's code has them: platonic, emergence or unit_rows.")
    ] = None,
    groups: Annotated[str | None, typer.Option(metavar="LABELS", help="What belongs together: captions.")] = None,
    within: Annotated[
        str | None, typer.Option(metavar="LABELS", help="Classes the null relabels within; kmeans:50 makes 50 of A.")
    ] = None,
    ids: Annotated[tuple[str, str] | None, typer.Option(metavar="LABELS LABELS", help="Names of the rows.")] = None,
    sample: Annotated[int | None, typer.Option(help="Search the neighbours of so many items.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Of as many as make the interval so narrow.")] = None,
    null: Annotated[str, typer.Option(help="auto, relabelled or none.")] = "auto",
    relabellings: Annotated[int | None, typer.Option(help="How many.", show_default="as time allows")] = None,
    intervals: Annotated[bool, typer.Option(help="Whether all items get intervals.")] = True,
    size_curve: Annotated[bool, typer.Option("--size-curve", help="Mutual k-NN of smaller sets, too.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Of (n, layers, d): every pair of layers.")] = False,
    confidence: Annotated[float, typer.Option(help="Of intervals and thresholds.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of samples and relabellings.")] = 0,
    max_memory: Annotated[str | None, typer.Option(help="Such as 1GB: search block by block.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the search.", show_default="all cores")] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write .json, .parquet or .html (with its pictures in a folder beside); may be repeated."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    from modalign.labels import as_classes, read_labels
    from modalign.printing import print_alignment, print_layers
    from modalign.report import alignment_page

    names: Any = "all" if metrics == "all" else [name.strip() for name in metrics.split(",") if name.strip()]
    for path in out or ():
        if path.suffix not in {".json", ".html"} | (set() if layers else {".parquet"}):
            raise ValueError(f"--out must end in .json, .html{'' if layers else ' or .parquet'}, got {path}")
    common: dict[str, Any] = {
        "metric": metric, "prepare": prepare, "confidence": confidence, "seed": seed, "num_threads": threads,
        "progress": not quiet,
    }  # fmt: skip
    try:
        if layers:
            first = names if isinstance(names, str) else names[0]
            found: Any = modalign.align_layers(
                a, b, first, k, relabellings=200 if relabellings is None else relabellings, **common
            )
            print_layers(found)
        else:
            named = None if ids is None else (read_labels(ids[0]), read_labels(ids[1]))
            found = modalign.align(
                a, b, names, k, groups=groups and as_classes(read_labels(groups)),
                within=within and _cells(a, within, seed), ids=named, sample=sample,
                tolerance=tolerance, null=null, relabellings=relabellings, intervals=intervals, size_curve=size_curve,
                max_memory=max_memory, **common,
            )  # fmt: skip
            print_alignment(found)
    except KeyboardInterrupt:
        typer.echo("\nstopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    for path in out or ():
        alignment_page.write(found, path) if path.suffix == ".html" else found.save(path)
        typer.echo(f"written: {path}")
        if path.suffix == ".html":
            typer.echo(f"written: {alignment_page.draw(found, path)}")


@_command(
    "Embed images or texts with an encoder that is on this machine; nothing is downloaded. ENCODER is "
    "sentence-transformers:FOLDER, transformers:FOLDER, timm:MODEL@WEIGHTS or python:module:function. INPUTS are a "
    "text file of one text a line, a folder of images, or FILE:COLUMN of a .csv, .parquet or .arrow. An interrupted "
    "run goes on where it stopped.",
    "Examples: `modalign embed sentence-transformers:models/minilm captions.txt --out texts.npy` · "
    "`modalign embed transformers:models/dinov2 photos/ --layers all --out images.npy`",
)
def embed(
    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="KIND:WHERE.")],
    inputs: Annotated[str, typer.Argument(metavar="INPUTS", help="Texts or images.")],
    out: Annotated[Path, typer.Option(help="The .npy file to write.")],
    layers: Annotated[str, typer.Option(help="last, or all hidden states of a transformers model.")] = "last",
    pooling: Annotated[str | None, typer.Option(help="mean, cls or last.", show_default="mean; cls of images")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs at once.")] = 64,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float16 or float32.")] = "float16",
    fresh: Annotated[bool, typer.Option("--fresh", help="Write anew what the file holds of something else.")] = False,
    quiet: Quiet = False,
) -> None:
    from modalign.embedding import embed as write

    with _resumable():
        path = write(
            encoder, inputs, out, layers=layers, pooling=pooling, batch_size=batch_size, device=device, dtype=dtype,
            fresh=fresh, progress=not quiet,
        )  # fmt: skip
    typer.echo(f"written: {path}")


@_command(
    "The data sets that `sweep` can train on: what is available here, how to get the rest, and under which licence.",
    "Example: `modalign data list`",
)
def data(action: Annotated[str, typer.Argument(metavar="[list]", help="The default.")] = "list") -> None:
    from modalign.printing import print_catalogue

    if action != "list":
        raise ValueError(f"data takes list or nothing, got {action}")
    print_catalogue()


@_command(
    "Find the best alignment strength of every case of CONFIG, with an interval, from a fraction of a grid's runs; "
    "the strengths and seeds of CONFIG play no part. An interrupted search goes on where it stopped.",
    "Examples: `modalign tune my.yaml` · `modalign tune my.yaml --highest 10 --rounds 5 --seeds 4`",
)
def tune(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration of a sweep.")],
    highest: Annotated[float, typer.Option(help="The largest strength looked at.")] = 4.0,
    first: Annotated[int, typer.Option(help="Strengths of the first round.")] = 5,
    rounds: Annotated[int, typer.Option(help="Rounds after it.")] = 3,
    seeds: Annotated[int, typer.Option(help="Runs of each strength.")] = 3,
    against: Annotated[Path | None, typer.Option(help="A finished sweep of the same cases, to compare with.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.", show_default="results/NAME-tuned")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds of an earlier search.")] = False,
    quiet: Quiet = False,
    bar: Bar = None,
    workers: Workers = None,
) -> None:
    from modalign.experiments import tune as search
    from modalign.experiments.config import load
    from modalign.experiments.progress import Reporter
    from modalign.printing import print_optima, print_regret
    from modalign.report import tune_page

    sweep = load(config)
    folder = out or Path("results") / f"{sweep.name}-tuned"
    budget = search.Budget(highest=highest, first=first, rounds=rounds, seeds=seeds)
    reporter = Reporter("none" if quiet else _style(bar))
    with _resumable():
        search.run(sweep, folder, budget, fresh=fresh, reporter=reporter, workers=workers)
    print_optima(folder)
    if against is not None:
        print_regret(search.against_grid(folder, against))
    typer.echo(f"report: {tune_page.write(folder)}")


@_command(
    "What alignment may be expected to bring, before any training: the information X and Y have about LABELS, the "
    "regime, and for each modality what pairs with the like information showed. LABELS are a file of one label a line, "
    "or a COLUMN of a table.",
    "Examples: `modalign advise images.npy texts.npy labels.txt` · `modalign advise a.npy b.npy items.csv:class` · "
    "`modalign advise a.npy b.npy labels.txt --out advice.html`",
)
def advise(
    x: Annotated[str, typer.Argument(metavar="X", help="(n, d) numbers; row i is item i.")],
    y: Annotated[str, typer.Argument(metavar="Y", help="(n, d') numbers of the same items.")],
    labels: Annotated[str, typer.Argument(metavar="LABELS", help="Classes of the items.")],
    seed: Annotated[int, typer.Option(help="Of folds, classifiers and clusters.")] = 0,
    out: Page = None,
) -> None:
    import numpy as np

    from modalign.experiments import advise as adviser
    from modalign.labels import as_classes, read_labels
    from modalign.report import advice_page
    from modalign.sources import indexable, open_rows

    _require_html(out)
    first, second = (np.asarray(indexable(open_rows(side))) for side in (x, y))
    found = adviser.advise(first, second, as_classes(read_labels(labels)), seed=seed)
    typer.echo(str(found.information))
    for sentence in found.sentences():
        typer.echo(f"  {sentence}")
    typer.echo(adviser.trust())
    if out is not None:
        about = {"x": x, "y": y, "labels": labels, "seed": seed}
        typer.echo(f"report: {advice_page.write(found, out, about)}")


@_command(
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
    from modalign.experiments import align as align_study
    from modalign.experiments import emergence, multibench, vision_language
    from modalign.experiments.progress import Reporter
    from modalign.printing import print_claims
    from modalign.report import align_page, emergence_page, multibench_page, vision_language_page

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
        "fresh": fresh, "workers": workers, "reporter": Reporter("none" if quiet else _style(bar)),
    }  # fmt: skip
    with _resumable():
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
    for note in vision_language.notes(folder) if study == "vision-language" else ():
        typer.echo(f"note: {note}")
    typer.echo(f"report: {page}")


@_command(
    "What this installation can do: versions, devices, and which backend runs each operation.",
    "Example: `modalign doctor`",
)
def doctor() -> None:
    typer.echo(modalign.doctor())


@_command(
    "The main job on embedded data, in a few minutes: a synthetic sweep, an emoji sweep, and alignment of the pairs.",
    "Examples: `modalign demo` · `modalign demo --out results/demo --fresh`",
)
def demo(out: Out = None, fresh: Fresh = False, quiet: Quiet = False, bar: Bar = None, workers: Workers = None) -> None:
    from modalign.experiments.config import load

    again = "modalign demo" + (f" --out {out}" if out else "")
    reports = []
    for name in ("synthetic", "emoji"):
        config = load(CONFIGS / f"{name}.yaml")
        size = f"{len(config.cases)} cases x {len(config.strengths)} strengths x {len(config.seeds)} seeds"
        typer.echo(f"\n{config.name}: {size}")
        reports.append(_sweep(config, (out or Path("results")) / config.name, fresh, quiet, bar, workers, again))
    typer.echo("\nmutual k-NN (k = 10) between the embedded emoji features")
    for line in _emoji_alignment():
        typer.echo(f"  {line}")
    typer.echo("\nreports:")
    for path in reports:
        typer.echo(f"  {path}")


def _sweep(
    config: Any,
    out: Path | None,
    fresh: bool,
    quiet: bool,
    bar: bool | None,
    workers: int | None,
    again: str,
    ray: str | None = None,
) -> Path:
    """Run a sweep and report on it; Ctrl-C says how to go on and ends with 130."""
    from modalign.experiments.progress import Reporter
    from modalign.experiments.sweep import run

    style = "none" if quiet else _style(bar)
    folder = out or Path("results") / config.name
    try:
        run(config, folder, fresh=fresh, reporter=Reporter(style), workers=workers, ray=ray)
        return _report(folder)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; `{again}` continues where it stopped", err=True)
        raise typer.Exit(130) from None


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


def _style(bar: bool | None) -> str:
    return {None: "auto", True: "bar", False: "lines"}[bar]


def _report(folder: Path) -> Path:
    from modalign.report import conclusions, draw, write

    path = write(folder)
    draw(folder)
    for sentence in conclusions(folder):
        typer.echo(f"  {sentence}")
    typer.echo(f"report: {path}")
    return path


def _require_html(out: Path | None) -> None:
    if out is not None and out.suffix != ".html":
        raise ValueError(f"--out must end in .html, got {out}")


def _log(folder: Path, trackers: list[str] | None) -> None:
    from modalign.experiments.trackers import log_runs

    for tracker in trackers or ():
        typer.echo(f"{tracker}: {log_runs(folder, tracker)}")


def _cells(rows: str, labels: str, seed: int) -> Any:
    """Classes from a file, or as many clusters of rows as kmeans:COUNT names."""
    from modalign.labels import as_classes, read_labels
    from modalign.significance import kmeans_cells

    if not labels.startswith("kmeans:"):
        return as_classes(read_labels(labels))
    count = labels.removeprefix("kmeans:")
    if not count.isdecimal():
        raise ValueError(f"--within kmeans:COUNT needs a whole number of clusters, got {labels}")
    return kmeans_cells(rows, int(count), seed=seed)


def _array(path: Path) -> Any:
    import numpy as np

    try:
        with path.open("rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                raise ValueError("it does not begin as numpy.save writes it")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (ValueError, EOFError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as a .npy array: {reason}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        shape = getattr(array, "shape", "several arrays")
        raise ValueError(f"{path} must hold one (n, d) array, got {shape}")
    return array


def _emoji_alignment() -> list[str]:
    """Mutual k-NN of the embedded pairs: how much two kinds of features agree before any training."""
    lines = []
    for pair, pairing in (
        ("image-image", "true"), ("text-text", "true"), ("image-text", "true"), ("image-text", "within-group"),
        ("image-text", "random"),
    ):  # fmt: skip
        data = modalign.data.emoji(pair, pairing=pairing)
        value = modalign.mutual_knn(data.x, data.y, k=10)
        lines.append(f"{pair:<12} {pairing:<13} {value:.3f}   (chance {10 / (len(data.x) - 1):.3f}, n = {len(data.x)})")
    return lines
