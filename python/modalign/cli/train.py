"""``modalign sweep``, ``report``, ``compare``, ``tune``, ``data`` and ``demo``: training at chosen strengths."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from modalign.cli.common import Log, Page, RunOptions, command, require_html, resumable
from modalign.cli.streams import echo
from modalign.common.doors import drawing
from modalign.data.registry import DATA_SETS

if TYPE_CHECKING:
    from modalign.cli.tables import Regret
    from modalign.experiments.sweep.config import Sweep

__all__: list[str] = []

CONFIGS = Path(str(files("modalign.experiments"))) / "configs"
RESULTS = Path("results")  # the folder of results that no --out names
Config = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Configuration of a sweep.")]
Missing = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE",
        help="Value of the labels that stands for none, such as -1, in the cases of your own data. Training pairs "
        "without a label enter the alignment term alone.",
        show_default="blank, NA, NaN or null",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SweepOptions(RunOptions):
    """The options of ``modalign sweep``."""

    config: Config
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Train on the Ray cluster at this address: local, auto or ray://HOST:PORT."
        ),
    ] = None
    log: Log = None
    missing: Missing = None


@dataclass(frozen=True, kw_only=True)
class TuneOptions(RunOptions):
    """The options of ``modalign tune``."""

    config: Config
    highest: Annotated[float, typer.Option(help="The largest strength of the search.")] = 4.0
    first: Annotated[int, typer.Option(help="Number of strengths in the first round.")] = 5
    rounds: Annotated[int, typer.Option(help="Number of rounds after the first.")] = 3
    seeds: Annotated[int, typer.Option(help="Number of runs at each strength.")] = 3
    against: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of a finished sweep of the same cases to compare with."),
    ] = None
    missing: Missing = None


@command(
    "Train every case of CONFIG at every strength and seed, and write a report. An interrupted sweep continues where "
    "it stopped.",
    "Examples: `modalign sweep my.yaml` · `modalign sweep my.yaml --out results/mine --fresh` · "
    "`modalign sweep my.yaml --log tensorboard`",
)
def sweep(options: SweepOptions) -> None:
    from modalign.experiments.sweep.config import load
    from modalign.experiments.sweep.trackers import require_tracker

    for tracker in options.log or ():
        require_tracker(tracker)
    again = ["modalign", "sweep", str(options.config)]
    again += ["--out", str(options.out)] if options.out else []
    again += ["--ray", options.ray] if options.ray else []
    again += ["--missing", options.missing] if options.missing is not None else []
    page = _sweep(_with_missing(load(options.config), options.missing), options, again, options.ray)
    _log(page.parent, options.log)


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
    "Compare two finished sweeps of the same cases: the settings that differ, the best strengths, and the change of "
    "accuracy.",
    "Examples: `modalign compare results/emoji results/emoji-wide` · "
    "`modalign compare results/emoji results/emoji-wide --out compared.html`",
)
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder of a finished sweep.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Folder of another finished sweep.")],
    out: Page = None,
) -> None:
    from modalign.cli.tables import print_differences

    require_html(out)
    print_differences(first, second)
    if out is not None:
        echo(f"report: {drawing('comparison')(first, second, out)}")


@command(
    "Search the best alignment strength of every case of CONFIG, with an interval, in a fraction of a grid's runs.\n\n"
    "The strengths and seeds of CONFIG are not used. An interrupted search continues where it stopped.",
    "Examples: `modalign tune my.yaml` · `modalign tune my.yaml --highest 10 --rounds 5 --seeds 4`",
)
def tune(options: TuneOptions) -> None:
    from modalign.cli.tables import print_optima, print_regret
    from modalign.experiments import tuning
    from modalign.experiments.sweep.config import load

    config = _with_missing(load(options.config), options.missing)
    folder = options.out or RESULTS / f"{config.name}-tuned"
    budget = tuning.Budget(highest=options.highest, first=options.first, rounds=options.rounds, seeds=options.seeds)
    if options.against is not None:  # before hours of training
        tuning.require_grid(options.against, options.highest)
    with resumable():
        tuning.run(config, folder, budget, fresh=options.fresh, reporter=options.reporter(), workers=options.workers)
    print_optima(folder)
    if options.against is not None:
        print_regret(cast("list[Regret]", tuning.against_grid(folder, options.against)))
    echo(f"report: {drawing('tune')(folder)}")


@command(
    "List the data sets that `sweep` can train on: whether each is available here, how to get it, and its licence.\n\n"
    f"They are {', '.join(DATA_SETS)}.",
    "Example: `modalign data list`",
)
def data(
    action: Annotated[str, typer.Argument(metavar="[list]", help="What to do; list is the only action.")] = "list",
) -> None:
    from modalign.cli.tables import print_catalogue

    if action != "list":
        raise ValueError(f"data takes list or nothing, got {action}")
    print_catalogue()


@command(
    "Run an example on embedded data in a few minutes: a sweep of synthetic data, a sweep of emoji, and the alignment "
    "of the emoji pairs.",
    "Examples: `modalign demo` · `modalign demo --out results/demo --fresh`",
)
def demo(options: RunOptions) -> None:
    from modalign.experiments.sweep.config import load
    from modalign.experiments.sweep.folder import Folder

    again = ["modalign", "demo", *(["--out", str(options.out)] if options.out else [])]
    pages = []
    configs = [load(CONFIGS / f"{name}.yaml") for name in ("synthetic", "emoji")]
    for config in configs:  # both, before the first is started over
        place = Folder((options.out or RESULTS) / config.name).checkpoint
        place.require_ours()
        if options.fresh:
            place.require_removable()
    for config in configs:
        size = f"{len(config.cases)} cases x {len(config.strengths)} strengths x {len(config.seeds)} seeds"
        echo(f"\n{config.name}: {size}")
        pages.append(_sweep(config, replace(options, out=(options.out or RESULTS) / config.name), again))
    echo("\nmutual k-NN (k = 10) between the embedded emoji features")
    for line in _emoji_alignment():
        echo(f"  {line}")
    echo("\nreports:")
    for path in pages:
        echo(f"  {path}")


def _with_missing(config: Sweep, value: str | None) -> Sweep:
    """Return a configuration whose cases of the user's own data take ``value`` for a label that is missing."""
    if value is None:
        return config
    cases = tuple(
        case.model_copy(update={"data": {**case.data, "missing": value}}) if case.data["name"] == "own" else case
        for case in config.cases
    )
    if cases == config.cases:
        raise ValueError(f"--missing {value} changes nothing: no case of {config.name} has the data set own")
    return config.model_copy(update={"cases": cases})


def _sweep(config: Sweep, options: RunOptions, again: Sequence[str], ray: str | None = None) -> Path:
    """Run a sweep, report on it and return its page; on Ctrl-C, say that the command ``again`` continues it."""
    from modalign.experiments.sweep.runner import run

    folder = options.out or RESULTS / config.name
    with resumable(f"`{shlex.join(again)}`"):
        run(config, folder, fresh=options.fresh, reporter=options.reporter(), workers=options.workers, ray=ray)
        return _report(folder)


def _report(folder: Path) -> Path:
    """Write the page and the pictures of a sweep, print its conclusions, and return the page's path."""
    from modalign.report import conclusions, draw, write

    path = write(folder)
    draw(folder)
    for sentence in conclusions(folder):
        echo(f"  {sentence}")
    echo(f"report: {path}")
    return path


def _log(folder: Path, trackers: Sequence[str] | None) -> None:
    """Log the runs of a finished sweep to trackers, and print where."""
    from modalign.experiments.sweep.trackers import log_runs

    for tracker in trackers or ():
        echo(f"{tracker}: {log_runs(folder, tracker)}")


def _emoji_alignment() -> list[str]:
    """Return the mutual k-NN of the embedded pairs, which shows how two kinds of features agree before any training."""
    from modalign.data import emoji
    from modalign.metrics.neighborhoods import mutual_knn

    pairings = {
        "image-image": ("true",),
        "text-text": ("true",),
        "image-text": ("true", "within-group", "random"),
    }
    lines = []
    for pair, kinds in pairings.items():
        for pairing in kinds:
            pairs = emoji(pair, pairing=pairing)
            value, n = mutual_knn(pairs.x, pairs.y, k=10), len(pairs.x)
            lines.append(f"{pair:<12} {pairing:<13} {value:.3f}   (chance {10 / (n - 1):.3f}, n = {n})")
    return lines
