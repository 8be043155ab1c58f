"""The compiled core's threads are torch's own: wherever a process is, they come, and they change no bit."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

import modalign
from modalign import _core
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


def test_a_system_that_gives_no_threads_costs_none_of_the_answer() -> None:
    """A forked child starts threads of its own, which a limit of the user's processes may refuse."""
    command = (
        "import os, resource, sys, torch; sys.path.insert(0, sys.argv[1]); import test_threads as t\n"
        "torch.set_num_threads(4)\n"
        "before = t.answer()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    if os.getuid() == 0: os.setuid(65533)\n"  # no limit is for root
        "    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))\n"
        "    os._exit(0 if all(map(torch.equal, t.answer(), before)) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)


def test_an_empty_choice_of_instructions_is_none() -> None:
    command = "from modalign import _core; print(_core.isa() == _core.isa_levels()[0])"
    run = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"MODALIGN_ISA": ""}, capture_output=True, check=True
    )
    assert run.stdout.strip() == b"True"


def test_a_screen_that_other_instructions_lack_is_forgotten() -> None:
    before = _core.isa()
    for level in _core.isa_levels():
        _core.use_isa(before)
        _core.use_screen(_core.screens()[0])
        _core.use_isa(level)
        assert modalign.knn(torch.randn(20, 4), 3).indices.shape == (20, 3)
    _core.use_screen("auto")
    _core.use_isa(before)


def test_threads_of_python_may_call_at_the_same_time() -> None:
    expected, found = answer(), []
    callers = [threading.Thread(target=lambda: found.append(answer())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(found) == len(callers)
    assert all(all(map(torch.equal, one, expected)) for one in found)


@pytest.mark.parametrize("first", ["t.answer()", "modalign.doctor()", "0"], ids=["used", "loaded", "imported"])
def test_a_forked_child_waits_for_no_thread_of_its_parent(first: str) -> None:
    """OpenMP's threads do not survive a fork: a child that called on them would never come back."""
    command = (
        "import os, sys, torch; sys.path.insert(0, sys.argv[1]); import modalign, test_threads as t\n"
        "torch.set_num_threads(2)\n"
        "torch.randn(2000, 2000).exp()\n"
        f"{first}\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if len(t.answer()) > 1 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)
