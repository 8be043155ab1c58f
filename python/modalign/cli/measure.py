"""``modalign mutual-knn``, ``align`` and ``advise``: measurements of embeddings, before any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from modalign.cli.common import Page, Quiet, command, require_html, require_pictures, require_writable
from modalign.cli.streams import echo
from modalign.common.doors import drawing
from modalign.common.names import did_you_mean
from modalign.files.paths import expanded
from modalign.metrics.registry import DEFAULT_METRICS, METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modalign.alignment.items import Ids
    from modalign.alignment.results import Alignment, LayerAlignment
    from modalign.common.labels import Labels

__all__: list[str] = []

DEFAULT = ",".join(DEFAULT_METRICS)
SIMILARITIES = tuple(dict.fromkeys(name for metric in METRICS.values() for name in metric.similarities))
KMEANS = "kmeans:"  # beginning of a --within that names a number of clusters
First = Annotated[str, typer.Argument(metavar="A", help="File of (n, d) numbers; row i is item i.")]
Second = Annotated[str, typer.Argument(metavar="B", help="File of (n, d') numbers of the same items.")]
K = Annotated[int, typer.Option(help="Number of nearest neighbours of each item.")]


@command(
    "Compute the mutual k-NN of two files of embeddings: the mean share of nearest neighbours that row i has in both "
    "files.\n\nThe files are those that `modalign align` takes; they are memory-mapped where their format allows it.",
    "Example: `modalign mutual-knn images.npy texts.npy --k 10`",
)
def mutual_knn(a: First, b: Second, k: K = 10) -> None:
    from modalign.files.rows import open_rows
    from modalign.metrics.neighborhoods import mutual_knn

    value, n = mutual_knn(a, b, k=k), open_rows(a).shape[0]
    echo(f"mutual k-NN {value:.4f} (chance {k / (n - 1):.4f}), n = {n}, k = {k}")


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


class _Shared(TypedDict):
    """The arguments that ``modalign.align`` and ``modalign.align_layers`` share."""

    metric: str
    prepare: str | None
    confidence: float
    seed: int
    num_threads: int | None
    progress: bool


class _ItemLabels(TypedDict):
    """The labels of the items that both functions take."""

    groups: Labels | None
    within: Labels | None
    ids: Ids | None


@dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """The options of ``modalign align``."""

    a: First
    b: Second
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Metrics, separated by commas, or `all` but the _code variants. The metrics are "
            f"{', '.join(METRICS)}.",
            show_default=", ".join(DEFAULT_METRICS),
        ),
    ] = DEFAULT
    k: K = 10
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Similarity that defines the neighbours: {', '.join(SIMILARITIES)}; or a metric, as in --metrics.",
            show_default=SIMILARITIES[0],
        ),
    ] = None
    prepare: Annotated[
        str | None,
        typer.Option(
            help="Prepare the rows as a paper's code does: platonic, platonic_exact, emergence or unit_rows; names "
            "that end in _unnorm, such as emergence_unnorm, only clamp them.",
            show_default="unchanged",
        ),
    ] = None
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS",
            help="Group of each item, such as the image of a caption. Items of one group are not each other's "
            "neighbours.",
        ),
    ] = None
    within: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS",
            help="Class of each item; the null distribution relabels items within classes. `kmeans:50` clusters the "
            "rows of A into 50 classes.",
        ),
    ] = None
    ids: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="LABELS LABELS", help="Names of the rows of A and of B; rows are paired by name."),
    ] = None
    sample: Annotated[
        int | None,
        typer.Option(help="Number of items, drawn at random, whose neighbours are searched.", show_default="all"),
    ] = None
    tolerance: Annotated[
        float | None,
        typer.Option(help="Sample until the half-width of the interval (see --confidence) is at most this."),
    ] = None
    null: Annotated[
        str,
        typer.Option(
            help="Null distribution: auto (in closed form where one is known, otherwise by relabelling), relabelled or "
            "none."
        ),
    ] = "auto"
    relabellings: Annotated[
        int | None,
        typer.Option(
            help="Number of random relabellings of the null distribution.", show_default="200, or fewer if slow"
        ),
    ] = None
    intervals: Annotated[bool, typer.Option(help="Compute intervals when all items are searched.")] = True
    size_curve: Annotated[
        bool, typer.Option("--size-curve", help="Also estimate the mutual k-NN of smaller numbers of items.")
    ] = False
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare every pair of layers of two (n, layers, d) files.")
    ] = False
    confidence: Annotated[float, typer.Option(help="Confidence level of intervals and thresholds.")] = 0.95
    seed: Annotated[int, typer.Option(help="Seed of samples and relabellings.")] = 0
    max_memory: Annotated[
        str | None,
        typer.Option(help="Memory limit, such as 1GB; the neighbours are searched block by block within it."),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of threads of the neighbour search.", show_default="all cores"),
    ] = None
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write the result to a .json, .parquet or .html file; pictures of an .html page go to a folder beside "
            "it. May be given several times.",
        ),
    ] = None
    quiet: Quiet = False

    @property
    def names(self) -> str | list[str]:
        """The metrics as ``modalign.align`` takes them: those of --metrics, or those that --metric names."""
        named = [name for name in self._metric if name not in SIMILARITIES]
        for name in named:
            if name not in METRICS and name != "all":
                hint = did_you_mean(name, (*SIMILARITIES, *METRICS))
                raise ValueError(
                    f"--metric must be a similarity ({', '.join(SIMILARITIES)}) or a metric ({', '.join(METRICS)}), "
                    f"got {name!r}{hint and f'; {hint}'}"
                )
        if named and self.metrics != DEFAULT:
            raise ValueError(f"--metric {','.join(named)} and --metrics {self.metrics} both name metrics; give one")
        names = named or _split(self.metrics)
        return "all" if names == ["all"] else names

    @property
    def similarity(self) -> str:
        """The similarity that --metric names."""
        named = [name for name in self._metric if name in SIMILARITIES] or [SIMILARITIES[0]]
        if len(named) > 1:
            raise ValueError(f"--metric takes one similarity of {', '.join(SIMILARITIES)}, got {', '.join(named)}")
        return named[0]

    @property
    def _metric(self) -> list[str]:
        return [name for text in self.metric or () for name in _split(text)]

    @property
    def shared(self) -> _Shared:
        """The arguments that both functions take."""
        return {
            "metric": self.similarity,
            "prepare": self.prepare,
            "confidence": self.confidence,
            "seed": self.seed,
            "num_threads": self.threads,
            "progress": not self.quiet,
        }


@command(
    "Measure the alignment of two files of embeddings in which row i is the same item: each metric with its interval, "
    "its distribution by chance, and the score calibrated by it.\n\nFiles may be larger than memory. They are .npy, "
    ".npz:NAME, .safetensors:NAME, .pt:NAME, .parquet:COLUMN, .arrow:COLUMN or a saved Hugging Face FOLDER:COLUMN; "
    "FILE[3] is layer 3 of an (n, layers, d) file. LABELS are a file with one label a line, a .npy file, or a COLUMN "
    "of a .parquet, .csv or .arrow file.",
    "Examples: `modalign align images.npy texts.npy` · `modalign align a.npy b.npy --metrics all --out a.html` · "
    "`modalign align a.npy b.npy --k 10 --tolerance 0.005 --max-memory 1GB` · "
    "`modalign align a.npy b.npy --within classes.txt` · `modalign align a.npy b.npy --within kmeans:50` · "
    "`modalign align a.npy b.npy --layers`",
)
def align(options: AlignOptions) -> None:
    paths = options.out or []
    _check_outputs(paths)
    if options.layers:
        _refuse_options_without_layers(options)
    for path in paths:
        require_writable(path)
        if path.suffix.lower() == ".html":
            require_pictures(path)
    try:
        result = _align_layers(options) if options.layers else _align_rows(options)
    except KeyboardInterrupt:
        echo("\nstopped; nothing was written", err=True)
        raise typer.Exit(130) from None
    _write_outputs(result, paths)


def _check_outputs(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix.lower() not in {".json", ".html", ".parquet"}:
            raise ValueError(f"--out must end in .json, .html or .parquet, got {path}")


def _refuse_options_without_layers(options: AlignOptions) -> None:
    """Check that no option was given that ``align_layers`` does not have."""
    given = {
        "--sample": options.sample is not None,
        "--tolerance": options.tolerance is not None,
        "--max-memory": options.max_memory is not None,
        "--size-curve": options.size_curve,
        "--no-intervals": not options.intervals,
        "--null": options.null != "auto",
        "all but one of --metrics": options.metrics != DEFAULT and len(options.names) != 1,
    }
    unused = [name for name, is_given in given.items() if is_given]
    if unused:
        raise ValueError(f"--layers takes one metric, of all items, and one null: leave out {', '.join(unused)}")
    if options.within is not None and options.within.startswith(KMEANS):
        raise ValueError(
            f"--within {options.within} clusters the rows of one layer; with --layers give a file of classes"
        )


def _align_layers(options: AlignOptions) -> LayerAlignment:
    from modalign.alignment.layers import align_layers
    from modalign.cli.tables import print_layers

    names = options.names
    relabellings = 200 if options.relabellings is None else options.relabellings
    result = align_layers(
        options.a,
        options.b,
        names if isinstance(names, str) else names[0],
        options.k,
        relabellings=relabellings,
        **_labels(options),
        **options.shared,
    )
    print_layers(result)
    return result


def _align_rows(options: AlignOptions) -> Alignment:
    from modalign.alignment.functional import align
    from modalign.cli.tables import print_alignment

    if options.ids is None:
        _require_same_count(options.a, options.b)
    result = align(
        options.a,
        options.b,
        options.names,
        options.k,
        sample=options.sample,
        tolerance=options.tolerance,
        null=options.null,
        relabellings=options.relabellings,
        intervals=options.intervals,
        size_curve=options.size_curve,
        max_memory=options.max_memory,
        **_labels(options),
        **options.shared,
    )
    print_alignment(result)
    return result


def _labels(options: AlignOptions) -> _ItemLabels:
    """Return the labels and the names of the items, read from their files."""
    from modalign.files.labels import as_classes, read_labels

    return {
        "groups": None if options.groups is None else as_classes(read_labels(options.groups)),
        "within": None if options.within is None else _classes(options.a, options.within, options.seed),
        "ids": None if options.ids is None else (read_labels(options.ids[0]), read_labels(options.ids[1])),
    }


def _require_same_count(a: str, b: str) -> None:
    from modalign.files.rows import open_rows

    counts = [open_rows(rows).shape[0] for rows in (a, b)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"align: A and B must hold the same items in one order, got {counts[0]} and {counts[1]} rows; give the "
            "names of both files' rows to pair them by name: --ids FILE FILE"
        )


def _write_outputs(result: Alignment | LayerAlignment, paths: Sequence[Path]) -> None:
    from modalign.report.html import pictures_beside

    for path in paths:
        echo(f"written: {result.save(path)}")
        if path.suffix.lower() == ".html":
            echo(f"written: {pictures_beside(path)}")


def _classes(rows: str, labels: str, seed: int) -> Labels:
    """Return classes from a file, or from as many clusters of rows as kmeans:COUNT names."""
    from modalign.alignment.relabelling import kmeans_cells
    from modalign.files.labels import as_classes, read_labels

    if not labels.startswith(KMEANS):
        _require_no_misspelling(labels)
        return as_classes(read_labels(labels))
    count = labels.removeprefix(KMEANS)
    if not count.isdecimal():
        raise ValueError(f"--within kmeans:COUNT needs a whole number of clusters, got {labels}")
    return kmeans_cells(rows, int(count), seed=seed)


def _require_no_misspelling(labels: str) -> None:
    """Check that labels are no misspelt kmeans:COUNT: a word, a number behind it, and no file of that name."""
    word, _, count = labels.rpartition(":")
    if count.isdecimal() and did_you_mean(word, ["kmeans"]) and not expanded(word).exists():
        raise FileNotFoundError(f"there is no file {labels}; did you mean {KMEANS}{count}?")


@command(
    "Estimate what alignment can be expected to bring, before any training: the information that X and Y carry about "
    "LABELS, and for each modality the results of pairs with similar information.\n\n"
    "LABELS are a file with one label a line, or a COLUMN of a table.",
    "Examples: `modalign advise images.npy texts.npy labels.txt` · `modalign advise a.npy b.npy items.csv:class` · "
    "`modalign advise a.npy b.npy labels.txt --out advice.html`",
)
def advise(
    x: Annotated[str, typer.Argument(metavar="X", help="File of (n, d) numbers; row i is item i.")],
    y: Annotated[str, typer.Argument(metavar="Y", help="File of (n, d') numbers of the same items.")],
    labels: Annotated[str, typer.Argument(metavar="LABELS", help="Class of each item.")],
    seed: Annotated[int, typer.Option(help="Seed of folds, classifiers and clusters.")] = 0,
    out: Page = None,
) -> None:
    from modalign.experiments import advice as adviser
    from modalign.files.labels import read_labels
    from modalign.files.rows import indexable

    require_html(out)
    first, second = indexable(x), indexable(y)
    advice = adviser.advise(first, second, read_labels(labels), seed=seed)
    echo(str(advice.information))
    for sentence in advice.sentences():
        echo(f"  {sentence}")
    echo(adviser.trust())
    if out is not None:
        settings = {"x": x, "y": y, "labels": labels, "seed": seed}
        echo(f"report: {drawing('advice')(advice, out, settings)}")
