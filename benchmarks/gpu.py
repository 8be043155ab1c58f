"""The losses on a GPU: answers checked, then turns taken inside one process, beside the machine's bfloat16 matrix rate.

python -m benchmarks.gpu --out FILE.json        what `make gpu` runs
python -m benchmarks.gpu --device cpu --small   that the script itself works, where there is no GPU
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

import modalign
from modalign import provenance

TEMPERATURE = 0.07
# rows, features, bytes of logits kept, whether rivals that store the matrix fit
CASES = ((8192, 512, 0, True), (65536, 512, 0, False), (65536, 512, 1 << 35, False), (65536, 1024, 0, False),
         (1048576, 512, 0, False))  # fmt: skip
SMALL = ((256, 32, 0, True), (256, 32, 1 << 20, True))


def _dense(x: Tensor, y: Tensor) -> Tensor:
    logits = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T / TEMPERATURE
    pairs = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _ours(x: Tensor, y: Tensor, workspace: int, backend: str = "auto") -> Tensor:
    loss: Tensor = modalign.info_nce(x, y, temperature=TEMPERATURE, workspace=workspace, backend=backend)
    return loss


def _step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    value = loss(*leaves)
    return (value.detach(), *torch.autograd.grad(value, leaves))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def matrix_rate(device: torch.device, size: int) -> float:
    """Operations a second of a dense bfloat16 product: what the shares are of."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16).unbind()
    return 2 * size**3 / min(_seconds(lambda: a @ b, device) for _ in range(10))


def measure(n: int, d: int, workspace: int, dense: bool, device: torch.device, rounds: int) -> dict[str, Any]:
    generator = torch.Generator(device).manual_seed(0)
    x, y = torch.randn(2, n, d, generator=generator, device=device).to(torch.bfloat16).unbind()
    rivals: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"modalign": functools.partial(_ours, workspace=workspace)}
    if n <= 65536:  # the floor: the same blocks through the vendor's matrix products
        rivals["modalign, torch backend"] = functools.partial(_ours, workspace=0, backend="torch")
    if dense:
        rivals |= {"dense torch": _dense, "torch.compile": torch.compile(_dense, dynamic=False)}
    answers = {name: _step(rival, x, y) for name, rival in rivals.items()}
    for name, answer in answers.items():
        # rivals in bfloat16 are off by 0.1 in the loss
        if abs(float(answer[0] - answers["modalign"][0])) > 0.2:
            raise SystemExit(f"{n} x {d}: {name} and modalign disagree: there is nothing to time")
    del answers
    memory = {}
    for name, rival in rivals.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            base = torch.cuda.memory_allocated(device)
            _step(rival, x, y)
            memory[name] = (torch.cuda.max_memory_allocated(device) - base) / 2**20
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, rival in rivals.items():
            times[name].append(_seconds(functools.partial(_step, rival, x, y), device))
    medians = {name: statistics.median(own) for name, own in times.items()}
    rate = matrix_rate(device, 8192 if device.type == "cuda" else 512)
    return {
        "case": f"{n} x {d}" + (f", {workspace >> 20} MiB kept" if workspace else ""),
        "milliseconds": {name: 1e3 * own for name, own in medians.items()},
        "operations_per_second": 8.0 * n * n * d / medians["modalign"],
        "matrix_rate": rate,
        "share_of_matrix_rate": 8.0 * n * n * d / medians["modalign"] / rate,
        "megabytes": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a machine without a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; --device cpu --small shows that the script works")
    table = Table("case", "ms", "TFLOP/s", "share of matrix rate", "rivals, ms", "MiB above inputs")
    rows = []
    for case in SMALL if arguments.small else CASES:
        row = measure(*case, device, arguments.rounds)
        rows.append(row)
        rivals = ", ".join(f"{name} {ms:.2f}" for name, ms in row["milliseconds"].items() if name != "modalign")
        table.add_row(
            row["case"], f"{row['milliseconds']['modalign']:.2f}", f"{row['operations_per_second'] / 1e12:.2f}",
            f"{row['share_of_matrix_rate']:.0%}", rivals,
            ", ".join(f"{name} {value:.0f}" for name, value in row["megabytes"].items()),
        )  # fmt: skip
    Console().print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "rows": rows}
        provenance.write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))


if __name__ == "__main__":
    main()
