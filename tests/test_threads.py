"""The compiled core's threads are torch's own: wherever a process is, they come, and they change no bit."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

import modalign
from modalign.ops.unit_rows import unit_rows


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def answer() -> list[torch.Tensor]:
    """Of every operation that starts threads; torch's own operations are too small here to start any."""
    x, y = torch.randn(2, 400, 40, generator=torch.Generator().manual_seed(0)).unbind()
    x.requires_grad_()
    loss = modalign.info_nce(x, y)
    loss.backward()
    assert x.grad is not None
    return [unit_rows(y), loss.detach(), x.grad, modalign.knn(y, 5).indices]


def test_the_number_of_threads_changes_no_bit() -> None:
    torch.set_num_threads(1)
    one = answer()
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, answer(), one))


def test_threads_of_python_may_call_at_the_same_time() -> None:
    expected, found = answer(), []
    callers = [threading.Thread(target=lambda: found.append(answer())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(found) == len(callers)
    assert all(all(map(torch.equal, one, expected)) for one in found)


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    """OpenMP's threads do not survive a fork: a child that called on them would never come back."""
    command = (
        "import os, sys, torch; sys.path.insert(0, sys.argv[1]); import test_threads as t; torch.set_num_threads(2)\n"
        "before = t.answer()\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if all(map(torch.equal, t.answer(), before)) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)
