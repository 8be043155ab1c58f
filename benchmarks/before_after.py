"""Compare the speed of two versions of the package in alternating fresh processes.

    python -m benchmarks.before_after OLD NEW               20 rounds of info_nce, knn and align
    python -m benchmarks.before_after OLD NEW --rounds 5    fewer rounds

OLD and NEW are Python executables, each with a version of the package installed. Each round starts one process for
either version, the order alternates, and every process takes the fastest of several calls of each operation after a
warm-up call. Both versions must give the same bits. For each operation the script prints the median over rounds of the
ratio new / old, and a 95 % upper bound of that median from a bootstrap over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

CALLS = 8  # timed calls of an operation in one process; the fastest counts, because a disturbance only adds time


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of the three operations: rows and features."""

    info_nce: tuple[int, int] = (4096, 256)
    knn: tuple[int, int] = (20_000, 128)
    align: tuple[int, int] = (1_000, 64)


SMALL = Sizes(info_nce=(64, 8), knn=(200, 8), align=(60, 8))


def digest(parts: Iterable[bytes]) -> str:
    """Return a hash of the bits of a result."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def operations(sizes: Sizes) -> dict[str, Callable[[], Iterable[bytes]]]:
    """Return the operations by name; each returns the bits of its result. Only the public interface is used."""
    import torch

    import modalign

    def pair(rows: int, features: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = torch.randn(2, rows, features, generator=torch.Generator().manual_seed(0)).unbind()
        return x, x + y

    def tensor_bits(*tensors: torch.Tensor) -> list[bytes]:
        return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]

    x, y = pair(*sizes.info_nce)
    rows = pair(*sizes.knn)[0]
    one, two = pair(*sizes.align)

    def info_nce() -> list[bytes]:
        leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
        loss = modalign.info_nce(*leaves, temperature=0.07)
        return tensor_bits(loss, *torch.autograd.grad(loss, leaves))

    def knn() -> list[bytes]:
        neighbors = modalign.knn(rows, 10)
        return tensor_bits(neighbors.indices, neighbors.scores)

    def align() -> list[bytes]:
        alignment = modalign.align(one, two, ["mutual_knn", "unbiased_cka"], seed=0)
        scores = [alignment[metric] for metric in ("mutual_knn", "unbiased_cka")]
        numbers = [(score.value, score.low, score.high, score.null and score.null.p) for score in scores]
        return [repr(numbers).encode()]

    return {"info_nce, forward and backward": info_nce, "knn, k = 10": knn, "align, two metrics": align}


def measure(sizes: Sizes) -> dict[str, tuple[float, str]]:
    """Return the seconds of each operation and a digest of its result, in this process."""
    measured = {}
    for name, operation in operations(sizes).items():
        result, seconds = digest(operation()), []  # the first call warms up
        for _ in range(CALLS):
            start = time.perf_counter()
            operation()
            seconds.append(time.perf_counter() - start)
        measured[name] = (min(seconds), result)
    return measured


def run_process(python: Path, small: bool) -> dict[str, tuple[float, str]]:
    """Measure the version of the package that a Python executable has, in a fresh process."""
    command = [str(python), str(Path(__file__).absolute()), "--measure", *["--small"] * small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the package of {python} could not be measured:\n{done.stderr.strip()}")
    return {name: (seconds, result) for name, (seconds, result) in json.loads(done.stdout.splitlines()[-1]).items()}


def upper_bound(ratios: list[float]) -> float:
    """Return a 95 % upper bound of the median ratio, from a percentile bootstrap of the logarithms."""
    import numpy as np
    from scipy.stats import bootstrap

    logarithms = np.log(ratios)
    interval = bootstrap((logarithms,), np.median, alternative="less", method="percentile", random_state=0)
    return float(np.exp(interval.confidence_interval.high))


def compare(old: Path, new: Path, rounds: int, *, small: bool) -> dict[str, list[float]]:
    """Return the ratios new / old of each operation, one for each round; exit if the versions differ in any bit."""
    ratios: dict[str, list[float]] = {}
    for number in range(rounds):
        order = (old, new) if number % 2 == 0 else (new, old)
        first, second = (run_process(version, small) for version in order)
        before, after = (first, second) if number % 2 == 0 else (second, first)
        for name, (seconds, result) in before.items():
            if after[name][1] != result:
                raise SystemExit(f"{name}: {old} and {new} give different bits, so their times are not compared")
            ratios.setdefault(name, []).append(after[name][0] / seconds)
    return ratios


def main() -> None:
    """Parse the command line, then compare the versions or measure this process's version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", type=Path, help="OLD and NEW: two Python executables")
    parser.add_argument("--rounds", type=int, default=20, help="number of pairs of processes (default: 20)")
    parser.add_argument("--small", action="store_true", help="use small sizes, to test the script itself")
    parser.add_argument("--even-if-loaded", action="store_true", help="compare on a loaded machine too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(SMALL if options.small else Sizes())))
        return
    if len(options.versions) != 2:
        parser.error(f"expected two versions, OLD and NEW, got {len(options.versions)}")
    missing = [str(version) for version in options.versions if not version.exists()]
    if missing:
        parser.error(f"no such executable: {', '.join(missing)}")
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2 for an upper bound, got {options.rounds}")
    from benchmarks.load import require_idle_machine

    load = require_idle_machine(options.even_if_loaded)
    ratios = compare(*options.versions, options.rounds, small=options.small)
    print(f"new / old over {options.rounds} rounds; load {load:.1f} at the start on {os.cpu_count()} cores")
    for name, values in ratios.items():
        print(f"{name:32s} median {statistics.median(values):.3f}   95 % upper bound {upper_bound(values):.3f}")
    print("both versions gave the same bits")


if __name__ == "__main__":
    main()
