"""Simulate the time of a sharded ``info_nce`` on many GPUs, gathered and around the ring. It is no measurement.

    python -m benchmarks.sharded_simulation                     8 and 64 GPUs, 65,536 to 1,048,576 pairs, d = 512
    python -m benchmarks.sharded_simulation --rate 300          another rate of the kernels, TFLOP/s
    python -m benchmarks.sharded_simulation --page docs/many-gpus.md

A rank computes 2 n N d FLOPs in the forward and 6 n N d in the backward pass, at the rate of the kernels, and each call
of an operator has an overhead. Gathered, rows travel before the forward pass and gradients after the backward pass.
In the ring a block of rows travels while the one before is computed, so that a hop takes the longer of both; gradients
travel in the same way, in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.pages import put_on_page
from modalign.distributed.ranks import Ranks

PAIRS = tuple(1 << bits for bits in range(16, 21))
BEGIN, END = "<!-- simulated times: made by benchmarks/sharded_simulation.py -->", "<!-- end of the simulated times -->"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """GPUs and their links.

    Attributes:
        name: What the table calls it.
        ranks: The number of GPUs.
        gathered: Bytes per second at which a rank receives the rows of all others in a collective.
        hop: Bytes per second of the slowest link between neighbours of the ring.
        latency: Seconds of a message between neighbours; a collective takes one for every doubling of the ranks.
    """

    name: str
    ranks: int
    gathered: float
    hop: float
    latency: float


CLUSTERS = (
    Cluster("8 in one machine", 8, gathered=360e9, hop=360e9, latency=5e-6),
    # a machine receives all rows once through 8 links, and spreads them inside; in the ring one link crosses machines
    Cluster("64 in 8 machines", 64, gathered=8 * 40e9, hop=40e9, latency=20e-6),
)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The rate of the kernels in FLOP per second, and the seconds that a call takes beyond it."""

    rate: float
    overhead: float = 30e-6

    def seconds(self, entries: int, d: int, products: int) -> float:
        """Return the time of a call that computes so many entries of S, and products of S and tables of width d."""
        return 2 * entries * d * products / self.rate + self.overhead


def gathered(cluster: Cluster, kernels: Kernels, n: int, d: int) -> float:
    """Return the seconds of forward and backward pass with gathered rows in bfloat16."""
    ranks = Ranks("", cluster.ranks // 2, (n // cluster.ranks,) * cluster.ranks)
    own = n // cluster.ranks
    blocks = [own * own, *(_entries(block.rows, block.columns) for block in ranks.merged_blocks(one_stream=False))]
    rounds = cluster.latency * cluster.ranks.bit_length()
    share = (cluster.ranks - 1) / cluster.ranks
    rows, gradients, sums = (n * width * share / cluster.gathered + rounds for width in (2 * d, 4 * d, 4))
    return (
        rows
        + gradients
        + 3 * sums
        + sum(kernels.seconds(entries, d, products) for entries in blocks for products in (1, 3))
    )


def ring(cluster: Cluster, kernels: Kernels, n: int, d: int) -> float:
    """Return the seconds of forward and backward pass around the ring, rows in bfloat16."""
    own, hops = n // cluster.ranks, cluster.ranks - 1
    travel = own * 2 * d / cluster.hop + cluster.latency
    sums = own * 4 * d / cluster.hop + cluster.latency  # beside the rows, by the same link
    forward, backward = (kernels.seconds(own * own, d, products) for products in (1, 3))
    vectors = 3 * (n * 4 / cluster.gathered + cluster.latency * cluster.ranks.bit_length())
    return max(forward, travel) * hops + forward + max(backward, travel + sums) * hops + backward + sums + vectors


def _entries(rows: slice, columns: slice) -> int:
    return int((rows.stop - rows.start) * (columns.stop - columns.start))


def table(rate: float, d: int) -> list[tuple[str, ...]]:
    """Return the rows of the table: GPUs, pairs, milliseconds of the FLOPs alone, gathered and ring."""
    kernels, found = Kernels(rate), []
    for cluster in CLUSTERS:
        for n in PAIRS:
            floor = 8 * n * n * d / cluster.ranks / rate
            ways = gathered(cluster, kernels, n, d), ring(cluster, kernels, n, d)
            best = ("gathered", "ring")[ways[1] < ways[0]]
            shown = (f"{1e3 * seconds:.1f}" for seconds in (floor, *ways))
            found.append((cluster.name, f"{n:,}", *shown, best))
    return found


HEADER = ("GPUs", "pairs", "FLOPs alone, ms", "gathered, ms", "ring, ms", "faster")


def main() -> None:
    """Print the table, or put it on a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=400.0, help="rate of the kernels in TFLOP/s (400)")
    parser.add_argument("--d", type=int, default=512, help="width of the rows (512)")
    parser.add_argument("--page", type=Path, help="the page that shows the table")
    arguments = parser.parse_args()
    rows = table(1e12 * arguments.rate, arguments.d)
    shown = Table(*HEADER, title=f"Simulated at {arguments.rate:g} TFLOP/s, d = {arguments.d}")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    if arguments.page is not None:
        lines = [f"| {' | '.join(cells)} |" for cells in (HEADER, ("---",) * len(HEADER), *rows)]
        put_on_page(arguments.page, "\n".join(lines), (BEGIN, END))


if __name__ == "__main__":
    main()
