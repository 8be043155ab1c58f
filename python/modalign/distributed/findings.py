"""What a check finds about the loss and each gradient: equal, a multiple of what one process has, or something else."""

from __future__ import annotations

import dataclasses
import math

__all__ = [
    "NEGLIGIBLE",
    "TINY",
    "Finding",
    "Measured",
    "loss_finding",
    "parameter_finding",
    "power_of_ranks",
    "without_chance_multiples",
]

NEGLIGIBLE = 1e-5  # of the largest gradient: smaller ones may be rounding errors of zero
TINY = 1e-30
NEAR = 0.02  # within which a factor is called the number of ranks


@dataclasses.dataclass(frozen=True)
class Measured:
    """A parameter's gradient on the ranks, against that of one process; norms are Euclidean.

    Attributes:
        norm: That of the mean over ranks.
        single: That of one process.
        factor: The multiple of one process's gradient that is nearest to the mean over ranks.
        residual: The distance from it, relative to ``norm``.
        error: The distance of the mean over ranks from one process's gradient, relative to ``single``.
        spread: The largest distance of a rank's gradient from the mean over ranks, relative to ``norm``.
        numbers: How many numbers the gradient has.
    """

    norm: float
    single: float
    factor: float
    residual: float
    error: float
    spread: float
    numbers: int


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found about the loss or one gradient.

    Attributes:
        name: The parameter, or "loss".
        kind: "equal"; "multiple", ``factor`` times that of one process; "different", no multiple of it; "unreduced",
            the ranks have different gradients; "missing", only the ranks or only one process have a gradient; or "not
            finite".
        factor: The multiple of one process's gradient, or loss, that is nearest to that of the ranks.
        error: The distance of both, relative to that of one process.
        numbers: How many numbers it has.
        advice: What it usually means and what to do; "" where it is equal.
    """

    name: str
    kind: str
    factor: float = math.nan
    error: float = math.nan
    numbers: int = 1
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict}" + (f": {self.advice}" if self.advice else "")

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        return {
            "equal": "equal",
            "multiple": self._multiple(),
            "different": f"{'' if self.numbers == 1 else 'not a multiple, '}off by {self.error:.1%}",
            "unreduced": "another one on each rank",
            "missing": "a gradient in one process or on the ranks, and none on the other side",
            "not finite": "NaN or inf",
        }[self.kind]

    def _multiple(self) -> str:
        if not self.factor > 0:
            return f"{self.factor:.2f} x that of one process"
        large = self.factor > 1
        return f"{self.factor if large else 1 / self.factor:.2f} x too {'large' if large else 'small'}"


def loss_finding(values: list[float], single: float, tolerance: float) -> Finding:
    """Compare the losses of the ranks with that of one process.

    Equal are losses that are all that of one process, and parts whose mean is.
    """
    mean = sum(values) / len(values)
    if not all(map(math.isfinite, [*values, single])):
        return Finding("loss", "not finite")
    error = abs(mean - single) / max(abs(single), TINY)
    factor = mean / single if single else math.nan
    if error <= tolerance or abs(mean - single) <= TINY:
        return Finding("loss", "equal", factor, error)
    named = power_of_ranks(factor, len(values)) is not None
    return Finding("loss", "multiple" if named else "different", factor, error)


def parameter_finding(name: str, measured: Measured, largest: float, tolerance: float) -> Finding:
    """Compare the gradient of a parameter; ``largest`` is the largest norm of a gradient of one process."""
    m = measured
    if not (math.isfinite(m.norm) and math.isfinite(m.single) and math.isfinite(m.spread)):
        kind = "not finite"
    elif max(m.norm, m.single) <= TINY:
        kind = "equal"
    elif m.spread > tolerance and not _is_noise(m, largest):
        kind = "unreduced"
    elif m.error <= tolerance or _is_noise(m, largest):
        kind = "equal"
    else:
        kind = "multiple" if m.residual <= tolerance else "different"
    return Finding(name, kind, m.factor, m.error, numbers=m.numbers)


def without_chance_multiples(findings: list[Finding], ranks: int) -> list[Finding]:
    """Return the findings, where a single number is a multiple only by a factor that means something.

    One number always is a multiple of another. The factor means something if it is a power of the number of ranks, or
    that of a gradient of several numbers.
    """
    factors = [one.factor for one in findings if one.kind == "multiple" and one.numbers > 1]
    return [
        dataclasses.replace(one, kind="different")
        if one.kind == "multiple"
        and one.numbers == 1
        and power_of_ranks(one.factor, ranks) is None
        and not any(math.isclose(one.factor, factor, rel_tol=NEAR) for factor in factors)
        else one
        for one in findings
    ]


def power_of_ranks(factor: float, ranks: int) -> int | None:
    """Return p where a factor is the number of ranks to the power p, one of -2, -1, 1 and 2; else None.

    Examples:
        >>> from modalign.distributed.findings import power_of_ranks
        >>> power_of_ranks(0.125, 8), power_of_ranks(3.0, 8)
        (-1, None)
    """
    for power in (-1, 1, -2, 2):
        if math.isfinite(factor) and abs(factor / ranks**power - 1) <= NEAR:
            return power
    return None


def _is_noise(m: Measured, largest: float) -> bool:
    """Return whether a gradient is zero but for rounding, as that of a bias before a normalisation is."""
    return max(m.norm, m.single) <= NEGLIGIBLE * largest and m.residual > 0.5
