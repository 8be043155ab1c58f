"""Compare the rounding error of each backend with that of torch in the same dtype.

    python -m benchmarks.accuracy            print the table, and the worst row of each dtype
    python -m benchmarks.accuracy --write    write both to docs/accuracy.md

The reference is the loss computed in float64 from the inputs as they are stored. The error of a loss is absolute, that
of a gradient is relative to its largest entry. The rule is that an error is at most twice torch's error in the same
dtype, or the bound of that dtype below, whichever is larger.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported: rounding errors can be measured without a GPU

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from modalign import _core

N, D = 300, 48
PAGE = Path(__file__).resolve().parents[1] / "docs" / "accuracy.md"

# bounds of (loss, gradient) that rounding explains: sums of float32 products, and exponentials of logits up to
# 1 / temperature. Half-precision rows are rounded when normalised and gradients when returned, a unit in the last place
# or two.
BOUNDS = {
    torch.float64: (1e-12, 1e-11),
    torch.float32: (1e-5, 1e-4),
    torch.float16: (2e-3, 1e-2),
    torch.bfloat16: (2e-2, 6e-2),
}


@dataclasses.dataclass(frozen=True)
class Hard:
    """A hard case: a change of the inputs, and options of the loss."""

    name: str
    make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    temperature: float = 0.07
    normalize: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """The errors of one backend in one case and dtype, and those of torch."""

    case: str
    dtype: torch.dtype
    backend: str
    loss: float
    gradient: float
    torch_loss: float
    torch_gradient: float

    @property
    def right(self) -> bool:
        loss, gradient = BOUNDS[self.dtype]
        return self.loss <= max(2 * self.torch_loss, loss) and self.gradient <= max(2 * self.torch_gradient, gradient)

    @property
    def share(self) -> float:
        """Return the larger ratio of an error to its bound; the worst row of a dtype has the largest."""
        loss, gradient = BOUNDS[self.dtype]
        return max(self.loss / loss, self.gradient / gradient)


def _duplicated(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x[torch.arange(len(x)) % 7], y[torch.arange(len(y)) % 7]


def _dominant(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows where one pair has far larger logits than all others."""
    x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
    x[5] *= 6
    y[5] = x[5]
    return x, y


CASES = (
    Hard("ordinary", lambda x, y: (x, y)),
    Hard("temperature 0.01", lambda x, y: (x, y), temperature=0.01),
    Hard("duplicated rows", _duplicated),
    Hard("norms of 1e-3, not normalised", lambda x, y: (1e-3 * x, 1e-3 * y), temperature=7e-7 * D, normalize=False),
    Hard("norms of 1e3, not normalised", lambda x, y: (1e2 * x, 1e2 * y), temperature=7e3 * D, normalize=False),
    Hard("one dominant pair", _dominant, normalize=False),
)


def dense(x: Tensor, y: Tensor, case: Hard) -> Tensor:
    """Return the loss by torch with the whole matrix."""
    if case.normalize:
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    logits = x @ y.T / case.temperature
    pairs = torch.arange(len(x))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def loss_and_gradients(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    value = loss(*leaves)
    return value.detach().double(), torch.cat([grad.double() for grad in torch.autograd.grad(value, leaves)])


def measure() -> Iterator[Row]:
    """Yield the errors of every case, dtype and backend."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, N, D, generator=generator, dtype=torch.float64).unbind()
    y = x + y
    level = _core.isa()
    for case in CASES:
        tables = case.make(x.clone(), y.clone())
        for dtype in BOUNDS:
            stored = [table.to(dtype) for table in tables]
            truth = loss_and_gradients(lambda a, b: dense(a, b, case), *(table.double() for table in stored))  # noqa: B023

            def errors(result: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor] = truth) -> tuple[float, float]:
                gradient = (result[1] - truth[1]).abs().max() / truth[1].abs().max()
                return float((result[0] - truth[0]).abs()), float(gradient)

            torch_errors = tuple(
                float("inf") if math.isnan(error) else error
                for error in errors(loss_and_gradients(lambda a, b: dense(a, b, case), *stored))  # noqa: B023
            )
            for backend in (*(f"cpp, {name}" for name in _core.isa_levels()), "triton", "torch"):
                name, _, isa = backend.partition(", ")
                if name == "triton" and dtype == torch.float64:
                    continue
                if isa:
                    _core.use_isa(isa)

                def modalign_loss(a: Tensor, b: Tensor, name: str = name, case: Hard = case) -> Tensor:
                    loss: Tensor = modalign.info_nce(
                        a, b, temperature=case.temperature, normalize=case.normalize, backend=name
                    )
                    return loss

                loss, gradient = errors(loss_and_gradients(modalign_loss, *stored))
                torch_loss, torch_gradient = torch_errors
                yield Row(
                    case.name,
                    dtype,
                    backend,
                    loss=loss,
                    gradient=gradient,
                    torch_loss=torch_loss,
                    torch_gradient=torch_gradient,
                )
    _core.use_isa(level)


def page(rows: list[Row]) -> str:
    """Return the text of docs/accuracy.md."""

    def kind(dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.")

    lines = ["# Accuracy", "", "Made by `python -m benchmarks.accuracy --write`; do not edit.", ""]
    assert __doc__ is not None
    lines += [__doc__.split("\n\n", 2)[2].strip(), ""]
    lines += [
        f"`info_nce` of {N} pairs of {D} features. Bounds of loss and gradient: "
        + "; ".join(f"{kind(dtype)} {loss:g} and {gradient:g}" for dtype, (loss, gradient) in BOUNDS.items())
        + ".",
        "",
    ]
    head = "| case | dtype | backend | loss | gradient | torch: loss | torch: gradient | rule kept |"
    ruler = "|---|---|---|---|---|---|---|---|"

    def line(row: Row) -> str:
        numbers = (row.loss, row.gradient, row.torch_loss, row.torch_gradient)
        cells = [row.case, kind(row.dtype), row.backend, *(f"{number:.1e}" for number in numbers)]
        return "| " + " | ".join([*cells, "yes" if row.right else "**no**"]) + " |"

    worst = [max((row for row in rows if row.dtype == dtype), key=lambda row: row.share) for dtype in BOUNDS]
    lines += ["## The worst row of each dtype", "", head, ruler, *map(line, worst), ""]
    return "\n".join([*lines, "## All rows", "", head, ruler, *map(line, rows), ""])


def main() -> None:
    """Print the page, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    text = page(list(measure()))
    if parser.parse_args().write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
