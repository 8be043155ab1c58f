"""The options of ``modalign.info_nce``, and the checks of each by itself and of those that exclude each other."""

from __future__ import annotations

import dataclasses
import math
import numbers

from torch import Tensor

from modalign.common.checks import number, one_of, require_like
from modalign.losses.reduction import REDUCTIONS
from modalign.ops.info_nce import INFO_NCE

__all__ = ["DIRECTIONS", "POSITIVES", "InfoNCEOptions", "require_choices"]

DIRECTIONS = ("both", "x_to_y", "y_to_x")
POSITIVES = ("pair", "out", "in")


@dataclasses.dataclass(frozen=True)
class InfoNCEOptions:
    """The keyword arguments of ``modalign.info_nce``, which documents them."""

    temperature: float | Tensor
    normalize: bool
    direction: str
    negatives: Tensor | None
    queue: Tensor | None
    groups: Tensor | None
    positives: str
    label_smoothing: float
    teacher: tuple[Tensor, Tensor, float] | None
    margin: float | None
    weights: Tensor | None
    ignore: Tensor | None
    reduction: str
    stats: bool | str
    workspace: int | None
    check_finite: bool | str
    backend: str
    sharded_queue: bool = False

    def require_valid(self, x: Tensor) -> None:
        """Raise a TypeError or ValueError for the first option that is wrong for the rows x (..., n, d).

        Temperature, groups, weights and ignore are checked where they are converted, in ``modalign.losses.inputs``.
        """
        one_of("info_nce", "direction", self.direction, DIRECTIONS)
        one_of("info_nce", "positives", self.positives, POSITIVES)
        one_of("info_nce", "backend", self.backend, INFO_NCE.backends)
        require_choices("info_nce", self.reduction, self.check_finite)
        self._require_numbers()
        batch, n, d = x.shape[:-2], *x.shape[-2:]
        if self.negatives is not None:
            require_like("info_nce", "negatives", self.negatives, x, shapes=((*batch, n, "h", d),))
        if self.queue is not None:
            require_like("info_nce", "queue", self.queue, x, shapes=(("m", d), (*batch, "m", d)))
        if self.teacher is not None:
            _require_teacher(self.teacher, x)
        self._require_compatible()

    def _require_numbers(self) -> None:
        workspace, smoothing = self.workspace, self.label_smoothing
        whole = isinstance(workspace, numbers.Integral) and not isinstance(workspace, bool)
        if workspace is not None and (not whole or workspace < 0):
            raise ValueError(f"info_nce: workspace must be None or a number of bytes, not negative, got {workspace!r}")
        if self.stats not in (False, True, "gradient"):
            raise ValueError(f"info_nce: stats must be False, True or 'gradient', got {self.stats!r}")
        if not 0 <= number("info_nce", "label_smoothing", smoothing) < 1:
            raise ValueError(f"info_nce: label_smoothing must be in [0, 1), got {smoothing}")
        if self.margin is not None and not math.isfinite(number("info_nce", "margin", self.margin)):
            raise ValueError(f"info_nce: margin must be a finite number or None, got {self.margin}")

    def _require_compatible(self) -> None:
        extra = self.negatives is not None or self.queue is not None
        several, margin, teacher = self.positives != "pair", self.margin is not None, self.teacher is not None
        smoothing = self.label_smoothing > 0
        conflicts = {
            f"positives={self.positives!r} needs groups": several and self.groups is None,
            "negatives and queue are candidates for x: direction must not be 'y_to_x'": (
                extra and self.direction == "y_to_x"
            ),
            "teacher excludes negatives, queue, margin and positives other than 'pair'": (
                teacher and (extra or margin or several)
            ),
            "margin excludes label_smoothing and positives other than 'pair'": margin and (several or smoothing),
            "positives='in' has no label_smoothing: its target is a sum": self.positives == "in" and smoothing,
            "stats='gradient' needs reduction 'mean' or 'sum'": self.stats == "gradient" and self.reduction == "none",
        }
        for message, present in conflicts.items():
            if present:
                raise ValueError(f"info_nce: {message}")


def require_choices(operation: str, reduction: str, check_finite: bool | str) -> None:
    """Raise a ValueError for a reduction or a value of ``check_finite`` that the losses do not have."""
    one_of(operation, "reduction", reduction, REDUCTIONS)
    if check_finite not in ("auto", True, False):
        raise ValueError(f"{operation}: check_finite must be 'auto', True or False, got {check_finite!r}")


def _require_teacher(teacher: tuple[Tensor, Tensor, float], x: Tensor) -> None:
    if not isinstance(teacher, (tuple, list)) or len(teacher) != 3:
        raise TypeError("info_nce: teacher must be (tx, ty, teacher_temperature)")
    tx, ty, temperature = teacher
    shapes = ((*x.shape[:-1], "d'"),)
    for name, rows in (("teacher's x", tx), ("teacher's y", ty)):
        require_like("info_nce", name, rows, x, shapes=shapes, any_float=True)
    if tx.shape != ty.shape:
        raise ValueError(
            f"info_nce: the teacher's x and y must have one shape, got {tuple(tx.shape)} and {tuple(ty.shape)}"
        )
    if not 0 < number("info_nce", "the teacher's temperature", temperature) < math.inf:
        raise ValueError(f"info_nce: the teacher's temperature must be positive and finite, got {temperature}")
