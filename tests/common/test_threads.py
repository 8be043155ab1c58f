"""Pools of threads where the system gives few of them, or the process is a forked child."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modalign.common import threads
from modalign.common.interruption import Watch, watched
from modalign.common.threads import startable_threads, thread_pool


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Hold the number of threads that still start."""
    left, start = [0], threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    return left


def test_threads_that_start_are_counted(given: list[int]) -> None:
    assert startable_threads(3) == 0
    given[0] = 2
    assert startable_threads(3) == 2
    given[0] = 9
    assert startable_threads(3) == 3


def test_a_pool_has_as_many_threads_as_start(given: list[int]) -> None:
    given[0] = 4  # two that are tried, and two that work
    with thread_pool(2) as pool:
        assert isinstance(pool, ThreadPoolExecutor)
        assert [future.result() for future in [pool.submit(pow, 2, power) for power in range(3)]] == [1, 2, 4]


@pytest.mark.parametrize("reason", ["no thread", "forked"])
def test_a_pool_without_threads_computes_in_the_calling_thread(
    reason: str, given: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "forked":
        given[0] = 99
        monkeypatch.setattr(threads, "IMPORTED_BY", -1)
    before = torch.get_num_threads()
    with thread_pool(2) as pool:
        assert pool.submit(threading.get_ident).result() == threading.get_ident()
        assert pool.submit(torch.get_num_threads).result() == 1
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
    assert torch.get_num_threads() == before


def test_a_watched_call_runs_in_the_calling_thread_where_none_starts(given: list[int]) -> None:
    seen = []

    def run(watch: Watch) -> int:
        watch.done.fill_(7)
        return threading.get_ident()

    assert watched(run, seen.append) == threading.get_ident()
    assert seen == [7]
    given[0] = 1
    assert watched(run, seen.append) != threading.get_ident()


def test_torch_keeps_one_thread_where_no_others_start(given: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4000)  # more than this process has
    try:
        with pytest.warns(RuntimeWarning, match="torch uses one thread, because the system does not start the 4000"):
            threads.leave_torch_threads_that_start()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
