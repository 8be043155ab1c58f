"""The result of a check, as it is read and printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from modalign.distributed.findings import Finding

__all__ = ["RankCheck"]

NAMES = 3  # of the parameters with one verdict that a line shows


@dataclasses.dataclass(frozen=True)
class RankCheck:
    """A comparison of a training step on several ranks with the same step in one process. ``str`` shows it.

    Attributes:
        ranks: The number of ranks.
        tolerance: The relative difference up to which losses and gradients are equal.
        loss: What was found about the loss.
        losses: The loss of each rank.
        single_loss: That of one process.
        parameters: What was found about the gradient of each parameter.
        rows: What is off about the items that the ranks use, as sentences; () where the step returns none.
        notes: What limits the comparison, such as random draws that cannot be made equal.
        ok: Whether the loss, all gradients and the items are those of one process.
    """

    ranks: int
    tolerance: float
    loss: Finding
    losses: tuple[float, ...]
    single_loss: float
    parameters: tuple[Finding, ...]
    rows: tuple[str, ...]
    notes: tuple[str, ...]
    ok: bool

    def __str__(self) -> str:
        count = len(self.parameters)
        what = f"the loss and {count} gradient{'s' if count != 1 else ''}"
        if self.ok:
            worst = max(finding.error for finding in (self.loss, *self.parameters) if finding.error == finding.error)
            head = f"all fine: {self.ranks} ranks have {what} of one process, to {worst:.0e}"
        else:
            bad = sum(finding.kind != "equal" for finding in self.parameters)
            head = f"{self.ranks} ranks differ from one process: {bad} of {count} gradients"
            head += ", and the loss" if self.loss.kind != "equal" else ""
        lines = [f"  {line}" for line in (self._loss_line(), *_grouped(self.parameters))] if not self.ok else []
        notes = [f"  rows: {note}" for note in self.rows] + [f"  note: {note}" for note in self.notes]
        return "\n".join([head, *lines, *notes])

    def _loss_line(self) -> str:
        values = ", ".join([*(f"{loss:.6g}" for loss in self.losses[:NAMES]), *(["..."] if self.ranks > NAMES else [])])
        line = f"loss: {self.loss.verdict} ({values} on the ranks, {self.single_loss:.6g} in one process)"
        told = {finding.advice for finding in self.parameters} | {""}
        return line if self.loss.advice in told else f"{line}: {self.loss.advice}"


def _grouped(findings: Iterable[Finding]) -> list[str]:
    """Return a line for each verdict, with the first parameters that have it; those that are equal come last."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        factor = f"{finding.factor:.2f}" if finding.kind == "multiple" else ""
        groups.setdefault((finding.kind, factor, finding.advice), []).append(finding)
    lines = []
    for group in sorted(groups.values(), key=lambda group: group[0].kind == "equal"):
        names = ", ".join(finding.name for finding in group[:NAMES])
        more = f" and {len(group) - NAMES} more" if len(group) > NAMES else ""
        worst = max(group, key=lambda finding: (finding.numbers > 1, finding.error))
        verdict = worst.verdict
        if worst.kind == "different" and len(group) > 1:
            verdict = verdict.replace("off by", "off by up to")
        lines.append(f"{names}{more}: {verdict}" + (f": {worst.advice}" if worst.advice else ""))
    return lines
