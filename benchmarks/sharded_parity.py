"""Compare the losses of P ranks with those of one process, for every option: the loss and every gradient.

    python -m benchmarks.sharded_parity                          1, 2, 3, 4 and 8 processes of gloo, some minutes
    python -m benchmarks.sharded_parity --ranks 2 4 --out FILE.json

An error is the largest difference from one process with the whole batch, as a share of the largest value of the result
(loss, gradient at x, y, temperature, bias, weights, negatives, queue, or a by-product). Shards are uneven, and from
three ranks on one of them is empty.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table
from torch import Tensor

import modalign
from modalign.common import provenance
from modalign.distributed import Sharding, transport
from modalign.files.atomic import write_atomically

PROBLEMS, D, QUEUE = 2, 5, 4
SIZES = {1: (5,), 2: (5, 8), 3: (4, 0, 6), 4: (3, 5, 0, 7), 8: (3, 1, 0, 4, 2, 5, 1, 2)}  # rows of each rank
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Tensors = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a loss.

    Attributes:
        loss: The name of the loss in ``modalign``.
        options: Its plain options.
        tables: The names of the options that are tensors, of ``batch``.
        needs_all: Whether the ring refuses it.
    """

    loss: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    tables: tuple[str, ...] = ()
    needs_all: bool = False

    @property
    def name(self) -> str:
        words = [*self.tables, *(f"{name}={value}" for name, value in self.options.items())]
        return f"{self.loss}({', '.join(words)})"


CASES = (
    *(Case("info_nce", {"direction": direction}) for direction in ("both", "x_to_y", "y_to_x")),
    *(Case("info_nce", {"reduction": reduction}) for reduction in ("sum", "none")),
    Case("info_nce", tables=("groups",)),
    *(Case("info_nce", {"positives": name}, ("groups",), needs_all=True) for name in ("out", "in")),
    *(Case("info_nce", tables=(name,)) for name in ("ignore", "weights", "negatives", "queue")),
    Case("info_nce", tables=("sharded_queue",), needs_all=True),
    Case("info_nce", {"margin": 0.1}, ("queue", "ignore")),
    Case("info_nce", {"label_smoothing": 0.1}),
    Case("info_nce", {"label_smoothing": 0.1}, ("groups", "ignore"), needs_all=True),
    *(Case("info_nce", tables=("teacher", *more), needs_all=True) for more in ((), ("groups",))),
    *(Case("info_nce", tables=(name,)) for name in ("temperature_of_anchors", "temperature_of_problems")),
    Case("info_nce", {"stats": True}),
    Case("info_nce", {"stats": True}, ("groups", "ignore"), needs_all=True),
    Case("info_nce", {"stats": "gradient"}, ("weights",)),
    *(Case(loss, {"reduction": name}) for loss in ("nt_xent", "sigmoid_loss") for name in ("mean", "sum", "none")),
    *(Case("sigmoid_loss", tables=tables) for tables in (("groups",), ("ignore",), ("groups", "ignore"))),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Ranks with so many rows each, and how these travel."""

    sizes: tuple[int, ...]
    way: str
    dtype: str = "float64"
    wire: str = ""
    piece: int = 0  # rows and columns that the ring computes at once, 0 for as many as it does

    @property
    def name(self) -> str:
        words = [f"P = {len(self.sizes)}", self.way, self.dtype]
        words += [f"{self.wire} on the wire"] * bool(self.wire) + [f"{self.piece} at once"] * bool(self.piece)
        return ", ".join(words)


def batch(setting: Setting) -> Tensors:
    """Return the tables of the global batch."""
    generator, n, ranks = torch.Generator().manual_seed(1), sum(setting.sizes), len(setting.sizes)
    shapes = {"x": (n, D), "y": (n, D), "tx": (n, 4), "ty": (n, 4), "negatives": (n, 2, D)}
    tables = {name: torch.randn(PROBLEMS, *shape, generator=generator) for name, shape in shapes.items()}
    tables |= {"queue": torch.randn(QUEUE * ranks, D, generator=generator)}
    tables = {name: table.to(DTYPES[setting.dtype]) for name, table in tables.items()}
    groups = torch.randint(0, 5, (PROBLEMS, n), generator=generator)
    positive = {
        "weights": (PROBLEMS, n),
        "temperature_of_anchors": (PROBLEMS, n),
        "temperature_of_problems": (PROBLEMS,),
    }
    sums = torch.float64 if setting.dtype == "float64" else torch.float32
    tables |= {name: (torch.rand(shape, generator=generator) + 0.2).to(sums) for name, shape in positive.items()}
    return tables | {"groups": groups, "ignore": torch.rand(PROBLEMS, n, generator=generator) < 0.25}


def results(case: Case, tables: Tensors, part: tuple[slice, slice], process_group: Any) -> Tensors:
    """Return the loss, the gradients and the by-products of some rows of the batch, with some of the queue."""
    rows, queue = part
    sums = torch.promote_types(tables["x"].dtype, torch.float32)
    leaves = {"x": tables["x"][:, rows], "y": tables["y"][:, rows], "temperature": torch.tensor(0.4, dtype=sums)}
    options = dict(case.options)
    for name in case.tables:
        if name in ("groups", "ignore"):
            options[name] = tables[name][:, rows]
        elif name == "teacher":
            options[name] = (tables["tx"][:, rows], tables["ty"][:, rows], 0.3)
        elif name in ("queue", "sharded_queue"):
            leaves["queue"] = tables["queue"][queue if name == "sharded_queue" else slice(None)]
        elif name.startswith("temperature"):
            leaves["temperature"] = tables[name] if name.endswith("problems") else tables[name][:, rows]
        else:
            leaves[name] = tables[name][:, rows]
    if case.loss == "sigmoid_loss":
        leaves["bias"] = torch.tensor(-1.0, dtype=sums)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves.items()}
    found = getattr(modalign, case.loss)(**leaves, **options, process_group=process_group)
    loss, stats = found if isinstance(found, tuple) else (found, None)
    factors = torch.ones_like(loss) if options.get("reduction") == "none" else torch.arange(1.0, loss.numel() + 1)
    (loss * factors).sum().backward()
    wanted = {} if stats is None else {name: value for name, value in stats._asdict().items() if value is not None}
    by_products = {name: value.detach() for name, value in wanted.items()}
    gradients = {f"d{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"loss": loss.detach(), **gradients, **by_products}


def part_of(case: Case, name: str, whole: Tensor, part: tuple[slice, slice]) -> Tensor:
    """Return what a rank with some rows, and some of the queue, should have of a result of one process."""
    rows, queue = part
    none = case.options.get("reduction") == "none"
    if name == "loss" and none and case.loss == "nt_xent":
        return torch.cat([half[:, rows] for half in whole.chunk(2, 1)], 1)
    if name == "dqueue":
        return whole[queue] if "sharded_queue" in case.tables else whole
    by_row = {"dx", "dy", "dnegatives", "dweights", "x_lse", "y_lse"}
    by_row |= {"dtemperature"} if "temperature_of_anchors" in case.tables else set()
    by_row |= {"loss"} if none else set()
    return whole[:, rows] if name in by_row else whole


def error(case: Case, setting: Setting, group: dist.ProcessGroup) -> float:
    """Return the largest error of this rank's results."""
    ranks, rank, tables = len(setting.sizes), dist.get_rank(group), batch(setting)
    start = sum(setting.sizes[:rank])
    part = slice(start, start + setting.sizes[rank]), slice(QUEUE * rank, QUEUE * (rank + 1))
    wire = DTYPES[setting.wire] if setting.wire else None
    kind = "sharded" if "sharded_queue" in case.tables else "replicated"
    found = results(case, tables, part, Sharding(group, way=setting.way, wire=wire, queue=kind))
    wanted, errors = results(case, tables, (slice(None), slice(None)), "self"), []
    for name, result in found.items():
        value = result
        if name == "dqueue" and kind == "replicated":  # as DistributedDataParallel does with parameters
            dist.all_reduce(value, group=group)
        none = case.options.get("reduction") == "none"
        if name in ("dtemperature", "dbias") and "temperature_of_anchors" not in case.tables:
            value = value * ranks if none else value
        elif name.startswith("d") and not none:
            value = value / ranks
        own, size = part_of(case, name, wanted[name], part), wanted[name].abs().amax()
        off = torch.where(value == own, 0, (value - own).abs())
        errors.append(float(off.amax() / size.clamp_min(1e-30)) if off.numel() else 0.0)
    return max(errors)


def run_rank(rank: int, world: int, address: str, settings: Sequence[Setting]) -> None:
    """Compare all cases in all settings, and save this rank's errors."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{address}", timedelta(seconds=120), world, rank)
    piece = transport.PIECES["cpu"]
    groups = {count: dist.new_group(list(range(count))) for count in sorted({len(one.sizes) for one in settings})}
    found: dict[str, dict[str, float]] = {}
    for setting in settings:
        if rank < len(setting.sizes):
            transport.PIECES["cpu"] = setting.piece or piece
            cases = [case for case in CASES if setting.way == "gathered" or not case.needs_all]
            group = groups[len(setting.sizes)]
            found[setting.name] = {case.name: error(case, setting, group) for case in cases}
    Path(f"{address}.{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    os._exit(0)  # gloo's threads may outlive the interpreter


def worst_errors(settings: Sequence[Setting], start: Callable[..., Any] = mp.spawn) -> dict[str, dict[str, float]]:
    """Return the largest error over all ranks, by setting and case."""
    world = max(len(setting.sizes) for setting in settings)
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "meeting")
        start(run_rank, (world, address, settings), world)
        ranks = [json.loads(Path(f"{address}.{rank}.json").read_text(encoding="utf-8")) for rank in range(world)]
    worst: dict[str, dict[str, float]] = {}
    for found in ranks:
        for setting, errors in found.items():
            row = worst.setdefault(setting, {})
            row |= {case: max(value, row.get(case, 0.0)) for case, value in errors.items()}
    return worst


def table(worst: dict[str, dict[str, float]], settings: Sequence[Setting]) -> Table:
    """Return a table of the errors in settings of one dtype, of each number of ranks gathered / around the ring."""
    by_ranks: dict[int, list[str]] = {}
    for setting in settings:
        by_ranks.setdefault(len(setting.sizes), []).append(setting.name)
    shown = Table(f"{settings[0].dtype}, gathered / ring", *(f"P = {ranks}" for ranks in by_ranks))
    for case in CASES:
        errors = ([worst[name].get(case.name) for name in names] for names in by_ranks.values())
        cells = (["refused" if error is None else f"{error:.0e}" for error in pair] for pair in errors)
        shown.add_row(case.name, *(" / ".join(pair) for pair in cells))
    return shown


def main() -> None:
    """Compare, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="*", default=list(SIZES), choices=SIZES, help="numbers of processes")
    parser.add_argument("--dtypes", nargs="*", default=["float64", "float32"], choices=DTYPES, help="dtypes of rows")
    parser.add_argument("--out", type=Path, help="the JSON file of the record")
    arguments = parser.parse_args()
    settings = [
        Setting(SIZES[ranks], way, dtype)
        for ranks in arguments.ranks
        for way in ("gathered", "ring")
        for dtype in arguments.dtypes
    ]
    worst = worst_errors(settings)
    for dtype in arguments.dtypes:
        Console(width=150).print(table(worst, [setting for setting in settings if setting.dtype == dtype]))
    if arguments.out is not None:
        text = json.dumps({"provenance": provenance.collect(), "errors": worst}, indent=1) + "\n"
        write_atomically(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
