"""The simulation of sharded losses counts the work that ranks do, and hides traffic only behind it."""

import pytest
from benchmarks.sharded_simulation import CLUSTERS, PAIRS, Cluster, Kernels, gathered, ring


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: str(cluster.ranks))
@pytest.mark.parametrize("n", PAIRS)
def test_no_way_is_faster_than_its_work_or_its_traffic(cluster: Cluster, n: int) -> None:
    d, rate = 512, 4e14
    work = 8 * n * n * d / cluster.ranks / rate
    rows = n * d * (cluster.ranks - 1) / cluster.ranks
    assert gathered(cluster, Kernels(rate, 0.0), n, d) > work + 6 * rows / cluster.gathered
    assert ring(cluster, Kernels(rate, 0.0), n, d) > max(work, 8 * rows / cluster.hop)


def test_traffic_hides_where_blocks_are_large() -> None:
    """A hop costs the longer of work and traffic: twice the rows are four times the work and twice the traffic."""
    cluster = CLUSTERS[1]
    hidden = [ring(cluster, Kernels(4e14), n, 512) / (8 * n * n * 512 / 64 / 4e14) for n in PAIRS]
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[0] > 1.5
    assert hidden[-1] < 1.1


def test_without_links_both_ways_take_the_time_of_the_work() -> None:
    free = Cluster("free", 8, gathered=1e30, hop=1e30, latency=0.0)
    for way in (gathered, ring):
        assert way(free, Kernels(4e14, 0.0), 65_536, 512) == pytest.approx(8 * 65_536**2 * 512 / 8 / 4e14)
