"""``modalign sweep``, ``report``, ``compare``, ``tune``, ``data`` and ``demo``: training at chosen strengths."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from modalign.cli.common import (
    Bar,
    Fresh,
    Log,
    Out,
    Page,
    Quiet,
    Workers,
    command,
    require_html,
    resumable,
    style_of,
)

__all__: list[str] = []

CONFIGS = Path(str(files("modalign.experiments"))) / "configs"


@command(
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
    from modalign.experiments.sweep.config import load
    from modalign.experiments.sweep.trackers import require_tracker

    for tracker in log or ():
        require_tracker(tracker)
    again = shlex.join(
        ["modalign", "sweep", str(config), *(("--out", str(out)) if out else ()), *(("--ray", ray) if ray else ())]
    )
    _log(_sweep(load(config), out, fresh, quiet, bar, workers, again, ray).parent, log)


@command(
    "Write the report of a finished sweep again, and print its conclusions.",
    "Examples: `modalign report results/emoji` · `modalign report results/emoji --log wandb`",
)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a finished sweep.")], log: Log = None
) -> None:
    _report(folder)
    _log(folder, log)


@command(
    "Compare two finished sweeps of the same cases: which settings differ, the best strengths, and what changed.",
    "Examples: `modalign compare results/emoji results/emoji-wide` · "
    "`modalign compare results/emoji results/emoji-wide --out compared.html`",
)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder of a finished sweep.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Folder of another.")],
    out: Page = None,
) -> None:
    from modalign.cli.tables import print_differences
    from modalign.report.pages import comparison as comparison_page

    require_html(out)
    print_differences(first, second)
    if out is not None:
        typer.echo(f"report: {comparison_page.write(first, second, out)}")


@command(
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
    from modalign.cli.tables import print_optima, print_regret
    from modalign.common.progress import Reporter
    from modalign.experiments import tuning as search
    from modalign.experiments.sweep.config import load
    from modalign.report.pages import tune as tune_page

    sweep = load(config)
    folder = out or Path("results") / f"{sweep.name}-tuned"
    budget = search.Budget(highest=highest, first=first, rounds=rounds, seeds=seeds)
    if against is not None:  # before hours of training
        search.require_grid(against, highest)
    reporter = Reporter("none" if quiet else style_of(bar))
    with resumable():
        search.run(sweep, folder, budget, fresh=fresh, reporter=reporter, workers=workers)
    print_optima(folder)
    if against is not None:
        print_regret(search.against_grid(folder, against))
    typer.echo(f"report: {tune_page.write(folder)}")


@command(
    "The data sets that `sweep` can train on: what is available here, how to get the rest, and under which licence.",
    "Example: `modalign data list`",
)
def data(action: Annotated[str, typer.Argument(metavar="[list]", help="The default.")] = "list") -> None:
    from modalign.cli.tables import print_catalogue

    if action != "list":
        raise ValueError(f"data takes list or nothing, got {action}")
    print_catalogue()


@command(
    "The main job on embedded data, in a few minutes: a synthetic sweep, an emoji sweep, and alignment of the pairs.",
    "Examples: `modalign demo` · `modalign demo --out results/demo --fresh`",
)
def demo(out: Out = None, fresh: Fresh = False, quiet: Quiet = False, bar: Bar = None, workers: Workers = None) -> None:
    from modalign.experiments.sweep.config import load

    again = shlex.join(["modalign", "demo", *(("--out", str(out)) if out else ())])
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
    from modalign.common.progress import Reporter
    from modalign.experiments.sweep.runner import run

    style = "none" if quiet else style_of(bar)
    folder = out or Path("results") / config.name
    try:
        run(config, folder, fresh=fresh, reporter=Reporter(style), workers=workers, ray=ray)
        return _report(folder)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; `{again}` continues where it stopped", err=True)
        raise typer.Exit(130) from None


def _report(folder: Path) -> Path:
    from modalign.report import conclusions, draw, write

    path = write(folder)
    draw(folder)
    for sentence in conclusions(folder):
        typer.echo(f"  {sentence}")
    typer.echo(f"report: {path}")
    return path


def _log(folder: Path, trackers: list[str] | None) -> None:
    from modalign.experiments.sweep.trackers import log_runs

    for tracker in trackers or ():
        typer.echo(f"{tracker}: {log_runs(folder, tracker)}")


def _emoji_alignment() -> list[str]:
    """Mutual k-NN of the embedded pairs: how much two kinds of features agree before any training."""
    from modalign.data import emoji
    from modalign.metrics.neighborhoods import mutual_knn

    lines = []
    for pair, pairing in (
        ("image-image", "true"), ("text-text", "true"), ("image-text", "true"), ("image-text", "within-group"),
        ("image-text", "random"),
    ):  # fmt: skip
        data = emoji(pair, pairing=pairing)
        value = mutual_knn(data.x, data.y, k=10)
        lines.append(f"{pair:<12} {pairing:<13} {value:.3f}   (chance {10 / (len(data.x) - 1):.3f}, n = {len(data.x)})")
    return lines
