"""``modalign mutual-knn``, ``align``, ``embed`` and ``advise``: what embeddings say, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.alignment.functional import DEFAULT_METRICS
from modalign.cli.common import Page, Quiet, command, require_html, require_place, resumable

__all__: list[str] = []

DEFAULT = ",".join(DEFAULT_METRICS)


@command(
    "Mutual k-NN of two files of embeddings: the share of nearest neighbours that row i has in both. "
    "The files are those that `modalign align` takes, memory-mapped where their kind allows.",
    "Example: `modalign mutual-knn images.npy texts.npy --k 10`",
)
def mutual_knn(
    a: Annotated[str, typer.Argument(metavar="A", help="(n, d) numbers; row i is item i.")],
    b: Annotated[str, typer.Argument(metavar="B", help="(n, d') numbers of the same items.")],
    k: Annotated[int, typer.Option(help="Neighbours of each item.")] = 10,
) -> None:
    from modalign.files.rows import open_rows
    from modalign.metrics.neighborhoods import mutual_knn

    value, n = mutual_knn(a, b, k=k), open_rows(a).shape[0]
    typer.echo(f"mutual k-NN {value:.4f} (chance {k / (n - 1):.4f}), n = {n}, k = {k}")


@command(
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
    metrics: Annotated[str, typer.Option(help="Names with commas between them, or `all`.")] = DEFAULT,
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
    from modalign.alignment.functional import align
    from modalign.alignment.layers import align_layers
    from modalign.cli.tables import print_alignment, print_layers
    from modalign.files.labels import as_classes, read_labels
    from modalign.report.pages import alignment as alignment_page

    names: Any = "all" if metrics == "all" else [name.strip() for name in metrics.split(",") if name.strip()]
    for path in out or ():
        if path.suffix not in {".json", ".html"} | (set() if layers else {".parquet"}):
            raise ValueError(f"--out must end in .json, .html{'' if layers else ' or .parquet'}, got {path}")
    common: dict[str, Any] = {
        "metric": metric, "prepare": prepare, "confidence": confidence, "seed": seed, "num_threads": threads,
        "progress": not quiet,
    }  # fmt: skip
    if layers:
        given = {
            "--groups": groups, "--within": within, "--ids": ids, "--sample": sample, "--tolerance": tolerance,
            "--max-memory": max_memory, "--size-curve": size_curve or None, "--no-intervals": None if intervals else 1,
            "--null": None if null == "auto" else null,
            "all but one of --metrics": None if metrics == DEFAULT or len(names) == 1 else 1,
        }  # fmt: skip
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ValueError(f"--layers takes one metric and relabels whole items: leave out {', '.join(unused)}")
    for path in out or ():
        require_place(path)
    try:
        if layers:
            first = names if isinstance(names, str) else names[0]
            found: Any = align_layers(
                a, b, first, k, relabellings=200 if relabellings is None else relabellings, **common
            )
            print_layers(found)
        else:
            named = None if ids is None else (read_labels(ids[0]), read_labels(ids[1]))
            found = align(
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


@command(
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
    from modalign.encoders.embedding import embed as write

    with resumable():
        path = write(
            encoder, inputs, out, layers=layers, pooling=pooling, batch_size=batch_size, device=device, dtype=dtype,
            fresh=fresh, progress=not quiet,
        )  # fmt: skip
    typer.echo(f"written: {path}")


@command(
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

    from modalign.experiments import advice as adviser
    from modalign.files.labels import as_classes, read_labels
    from modalign.files.rows import indexable, open_rows
    from modalign.report.pages import advice as advice_page

    require_html(out)
    first, second = (np.asarray(indexable(open_rows(side))) for side in (x, y))
    found = adviser.advise(first, second, as_classes(read_labels(labels)), seed=seed)
    typer.echo(str(found.information))
    for sentence in found.sentences():
        typer.echo(f"  {sentence}")
    typer.echo(adviser.trust())
    if out is not None:
        about = {"x": x, "y": y, "labels": labels, "seed": seed}
        typer.echo(f"report: {advice_page.write(found, out, about)}")


def _cells(rows: str, labels: str, seed: int) -> Any:
    """Classes from a file, or as many clusters of rows as kmeans:COUNT names."""
    from modalign.alignment.nulls import kmeans_cells
    from modalign.files.labels import as_classes, read_labels

    if not labels.startswith("kmeans:"):
        return as_classes(read_labels(labels))
    count = labels.removeprefix("kmeans:")
    if not count.isdecimal():
        raise ValueError(f"--within kmeans:COUNT needs a whole number of clusters, got {labels}")
    return kmeans_cells(rows, int(count), seed=seed)
