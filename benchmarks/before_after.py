"""Compare the speed of two versions of the package in alternating fresh processes.

    python -m benchmarks.before_after OLD NEW               20 rounds of info_nce, knn and align
    python -m benchmarks.before_after OLD NEW --rounds 5    fewer rounds

OLD and NEW are Python executables, each with a version of the package installed. Each round starts one process for
either version. The two processes take turns, call by call, so that a machine whose speed changes within seconds
changes it for both; the ratio new / old of a round is the median over pairs of neighbouring calls. Both versions must
give the same bits. For each operation the script prints the median over rounds of that ratio, and a 95 % upper bound
of the median from a bootstrap over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import PIPE
from typing import Any

FEWEST_CALLS = 10  # timed pairs of calls of an operation in a round
SECONDS = 18.0  # as many more pairs as fit into this time


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


def serve(sizes: Sizes) -> None:
    """Answer each operation's name on standard input with the digest of its result and the seconds of one call."""
    served = operations(sizes)
    print(json.dumps(list(served)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        result = served[line.strip()]()
        seconds = time.perf_counter() - start
        print(json.dumps([digest(result), seconds]), flush=True)


class Version:
    """A process that has one version of the package and runs one operation at a time."""

    def __init__(self, python: Path, small: bool) -> None:
        self.python = python
        command = [str(python), str(Path(__file__).absolute()), "--serve", *["--small"] * small]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=self.errors, text=True)
        self.operations: list[str] = self.answer()

    def answer(self) -> Any:
        """Return what the process says next; exit with its error if it ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise SystemExit(f"the package of {self.python} could not be measured:\n{self.errors.read().strip()}")
        return json.loads(line)

    def call(self, operation: str) -> tuple[str, float]:
        """Return the digest of an operation's result and the seconds of the call."""
        assert self.process.stdin
        self.process.stdin.write(operation + "\n")
        self.process.stdin.flush()
        result, seconds = self.answer()
        return result, seconds

    def __enter__(self) -> Version:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def upper_bound(ratios: list[float]) -> float:
    """Return a 95 % upper bound of the median ratio, from a percentile bootstrap of the logarithms."""
    import numpy as np
    from scipy.stats import bootstrap

    logarithms = np.log(ratios)
    interval = bootstrap((logarithms,), np.median, alternative="less", method="percentile", random_state=0)
    return float(np.exp(interval.confidence_interval.high))


def run_round(old: Path, new: Path, small: bool) -> dict[str, float]:
    """Return the ratio new / old of each operation in a fresh pair of processes; exit if any bit differs."""
    ratios = {}
    with Version(old, small) as before, Version(new, small) as after:
        for operation in before.operations:
            if before.call(operation)[0] != after.call(operation)[0]:  # these calls warm up, too
                raise SystemExit(f"{operation}: {old} and {new} give different bits, so their times are not compared")
            pairs: list[float] = []
            end = time.perf_counter() + (0 if small else SECONDS)
            while len(pairs) < FEWEST_CALLS or time.perf_counter() < end:
                first, second = (before, after) if len(pairs) % 2 == 0 else (after, before)
                seconds = {version: version.call(operation)[1] for version in (first, second)}
                pairs.append(seconds[after] / seconds[before])
            ratios[operation] = statistics.median(pairs)
    return ratios


def main() -> None:
    """Parse the command line, then compare the versions or measure this process's version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", type=Path, help="OLD and NEW: two Python executables")
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds (default: 20)")
    parser.add_argument("--small", action="store_true", help="use small sizes, to test the script itself")
    parser.add_argument("--even-if-loaded", action="store_true", help="compare on a loaded machine too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(SMALL if options.small else Sizes())
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
    rounds = [run_round(*options.versions, options.small) for _ in range(options.rounds)]
    print(f"new / old over {options.rounds} rounds; load {load:.1f} at the start on {os.cpu_count()} cores")
    for name in rounds[0]:
        values = [ratios[name] for ratios in rounds]
        print(f"{name:32s} median {statistics.median(values):.3f}   95 % upper bound {upper_bound(values):.3f}")
    print("both versions gave the same bits")


if __name__ == "__main__":
    main()
