"""The step on all ranks, and the comparison of its loss, gradients and items with those of one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.distributed.advice import advised, likely_cause, row_notes
from modalign.distributed.draws import Draw, Part, parts_of, unequal_draws
from modalign.distributed.findings import (
    TINY,
    Finding,
    Measured,
    loss_finding,
    parameter_finding,
    without_chance_multiples,
)
from modalign.distributed.report import RankCheck
from modalign.distributed.single_process import gradients_in
from modalign.distributed.stepping import Described, Step, place_of, run_step, step_at
from modalign.distributed.watched import Watch

__all__ = ["StepOnRanks", "compare", "usual_tolerance"]

# relative differences of gradients by their dtype: sums in another order, products in TF32
TOLERANCES = {"torch.float64": 1e-6, "torch.float32": 1e-3}
TOLERANCE_OF_HALF = 5e-2
VIEWS = (1, 2)  # how often the batch may stand in a dimension of a draw, one after the other
SAME_WEIGHTS = 1e-4  # relative difference of their norms


@dataclasses.dataclass
class StepOnRanks:
    """The step on this rank, beside those on the others.

    Attributes:
        watch: The ranks.
        step: The step, or its name.
        shard: Its arguments on this rank.
        seed: The seed of every run.
    """

    watch: Watch
    step: Step | str
    shard: Sequence[Any]
    seed: int

    def run(self, parts: Sequence[Part | None] = ()) -> list[Described]:
        """Run the step, keep this rank's gradients, and return the outcomes of all ranks."""

        def work() -> Described:
            step = step_at(*place_of(self.step)) if isinstance(self.step, str) else self.step
            outcome = run_step(step, self.shard, seed=self.seed, parts=parts)
            self.gradients = outcome.gradients
            return outcome.described()

        return self.watch.everyone("the step", work)

    def measure(self, single: Described, outcomes: Sequence[Described], folder: str) -> dict[str, Measured]:
        """Compare the gradients that all ranks and one process have, whose shapes are equal."""
        shapes: Mapping[str, Any] = single["gradients"]
        names = [
            name
            for name, shape in shapes.items()
            if shape is not None and all(one["gradients"].get(name) == shape for one in outcomes)
        ]

        def work() -> list[Any]:
            wanted = gradients_in(folder) if self.watch.rank == 0 else {}
            return [dataclasses.astuple(_measured(self.gradients[name], wanted.get(name))) for name in names]

        everyone = self.watch.everyone("the comparison", work)
        measured = {}
        for name, rows in zip(names, zip(*everyone, strict=True), strict=True):
            values = [Measured(*row) for row in rows]
            measured[name] = dataclasses.replace(values[0], spread=max(value.spread for value in values))
        return measured


def compare(ranks: StepOnRanks, single: Described, folder: str, tolerance: float) -> RankCheck:
    """Run the step on all ranks, with the random draws of one process, and compare it with that.

    Args:
        ranks: The ranks.
        single: The outcome in one process.
        folder: Where its gradients are, on rank 0.
        tolerance: The relative difference up to which losses and gradients are equal.
    """
    judge = Judge(ranks, single, folder, tolerance)
    outcomes = ranks.run()
    draws, whole = [_draws(one) for one in outcomes], _draws(single)
    unequal = unequal_draws(draws, whole)
    if unequal is not None or all(_shapes(one) == _shapes(whole) for one in draws):
        return judge.result(outcomes, unequal=unequal)
    results = []
    for views in VIEWS:
        results.append(judge.result(ranks.run(parts_of(draws, whole, ranks.watch.rank, views)), divided=True))
        if results[-1].ok:
            return results[-1]
    return results[0]


def usual_tolerance(outcome: Described) -> float:
    """Return the tolerance for the lowest precision in which a step computes."""
    if outcome["half"]:
        return TOLERANCE_OF_HALF
    dtypes = {shape[-1] for shape in outcome["gradients"].values() if shape is not None}
    return max(TOLERANCES.get(dtype, TOLERANCE_OF_HALF) for dtype in dtypes)


def _draws(outcome: Described) -> list[Draw]:
    return [Draw(name, tuple(shape), tuple(order)) for name, shape, order in outcome["draws"]]


def _shapes(draws: Sequence[Draw]) -> list[Any]:
    return [draw.shape for draw in draws]


def _measured(gradient: Tensor | None, wanted: Tensor | None) -> Measured:
    """Compare a gradient with that of one process, which rank 0 has; every rank calls this."""
    assert gradient is not None
    own = gradient if gradient.dtype == torch.float64 else gradient.float()
    single = torch.empty_like(own) if wanted is None else wanted.to(own)
    dist.broadcast(single, 0)
    mean = own.clone()
    dist.all_reduce(mean)
    mean /= dist.get_world_size()
    norm, norm_of_single = _norm(mean), _norm(single)
    factor = float((mean * single).sum(dtype=torch.float64)) / max(norm_of_single, TINY) ** 2
    return Measured(
        norm=norm,
        single=norm_of_single,
        factor=factor,
        residual=_norm(mean - factor * single) / max(norm, TINY),
        error=_norm(mean - single) / max(norm_of_single, TINY),
        spread=_norm(own - mean) / max(norm, TINY),
        numbers=own.numel(),
    )


def _norm(table: Tensor) -> float:
    return float(torch.linalg.vector_norm(table, dtype=torch.float64))


@dataclasses.dataclass
class Judge:
    """The outcome in one process, against which those of the ranks are judged.

    Attributes:
        ranks: The ranks.
        single: The outcome in one process.
        folder: Where its gradients are, on rank 0.
        tolerance: The relative difference up to which losses and gradients are equal.
    """

    ranks: StepOnRanks
    single: Described
    folder: str
    tolerance: float

    def result(self, outcomes: Sequence[Described], *, unequal: str | None = None, divided: bool = False) -> RankCheck:
        """Compare the outcomes of all ranks.

        Args:
            outcomes: Those of the ranks.
            unequal: Which random draws are not those of one process, None for none.
            divided: Whether draws were divided among the ranks.
        """
        single, tolerance = self.single, self.tolerance
        losses = [one["loss"] for one in outcomes]
        loss, parameters = loss_finding(losses, single["loss"], tolerance), self._parameters(outcomes)
        same = loss.kind == "equal" and all(finding.kind == "equal" for finding in parameters)
        items = [one["rows"] for one in (single, *outcomes)]
        rows, lost = row_notes(items[1:], items[0]) if all(one is not None for one in items) else ([], False)
        cause = "see what is off about the rows, below" if rows else likely_cause(losses, single["loss"], tolerance)
        notes = _causes(outcomes, single, unequal)
        loss, parameters = advised(loss, parameters, len(outcomes), "see the note" if notes else cause)
        if any(finding.kind == "different" for finding in parameters):
            notes += _suspects(single, divided)
        if any(finding.kind == "unreduced" for finding in parameters):
            notes += _unused(single)
        return RankCheck(
            ranks=len(outcomes),
            tolerance=tolerance,
            loss=loss,
            losses=tuple(losses),
            single_loss=single["loss"],
            parameters=tuple(parameters),
            rows=tuple(rows),
            notes=() if same else tuple(notes),
            ok=same and not lost,
        )

    def _parameters(self, outcomes: Sequence[Described]) -> list[Finding]:
        """Compare the gradient of every parameter."""
        measured = self.ranks.measure(self.single, outcomes, self.folder)
        largest = max((value.single for value in measured.values()), default=0.0)
        if measured and all(value.norm == value.single == 0 for value in measured.values()):
            raise RuntimeError(
                "check: every gradient is zero, on the ranks and in one process, so nothing can be compared; let the "
                "step compute a loss that depends on the parameters, of several items"
            )
        findings = []
        everywhere = (self.single, *outcomes)
        for name in dict.fromkeys(name for one in everywhere for name in one["gradients"]):
            if name in measured:
                findings.append(parameter_finding(name, measured[name], largest, self.tolerance))
            elif any(one["gradients"].get(name) is not None for one in everywhere):
                findings.append(Finding(name, "missing"))
        return without_chance_multiples(findings, len(outcomes))


def _causes(outcomes: Sequence[Described], single: Described, unequal: str | None) -> list[str]:
    """Return a sentence on what keeps the ranks and one process from being compared; [] for nothing."""
    if unequal is not None:
        return [f"random draws of the ranks are not those of one process: {unequal}; check the step without them"]
    for rank, one in enumerate(outcomes):
        for name, norm in single["weights"].items():
            if abs(one["weights"].get(name, norm) - norm) > SAME_WEIGHTS * max(norm, TINY):
                return [
                    f"{name} has other values on rank {rank} than in one process: build the module in the step without "
                    "a seed of the rank or load one checkpoint everywhere, and leave the optimizer out of the step"
                ]
    return []


def _unused(single: Described) -> list[str]:
    """Return a sentence on parameters without a gradient, which keep DistributedDataParallel from reducing others."""
    unused = [name for name, shape in single["gradients"].items() if shape is None]
    if not unused:
        return []
    return [
        f"{unused[0]}{f' and {len(unused) - 1} more' if len(unused) > 1 else ''} got no gradient, which keeps "
        "DistributedDataParallel from reducing the others: pass find_unused_parameters=True, or freeze what is not used"
    ]


def _suspects(single: Described, divided: bool) -> list[str]:
    """Return sentences on what else may make gradients differ."""
    notes = []
    if single["batch_norm"]:
        notes.append(
            "batch norm of a rank's own rows is another function than that of the whole batch: use "
            "torch.nn.SyncBatchNorm, or eval() for the check"
        )
    if divided:
        notes.append(
            "random draws are divided among the ranks by their shapes: if the rows of a rank do not follow each other "
            "in them, check the step without dropout"
        )
    return notes
