"""The compiled core runs on torch's threads: in every process, and with bitwise equal results for every number."""

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


def compute_results() -> list[torch.Tensor]:
    """Return results of every operation that starts threads; torch's operations start none for such small inputs."""
    x, y = torch.randn(2, 400, 40, generator=torch.Generator().manual_seed(0)).unbind()
    x.requires_grad_()
    loss = modalign.info_nce(x, y)
    loss.backward()
    assert x.grad is not None
    return [unit_rows(y), loss.detach(), x.grad, modalign.knn(y, 5).indices]


def test_the_number_of_threads_changes_no_bit() -> None:
    torch.set_num_threads(1)
    expected = compute_results()
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert all(map(torch.equal, compute_results(), expected))


def test_results_are_complete_if_the_system_starts_no_threads() -> None:
    """A forked child starts new threads, which a limit on the user's processes may refuse."""
    command = (
        "import os, resource, sys, torch; sys.path.insert(0, sys.argv[1]); import test_threads as t\n"
        "torch.set_num_threads(4)\n"
        "before = t.compute_results()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    if os.getuid() == 0: os.setuid(65533)\n"  # limits do not apply to root
        "    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))\n"
        "    os._exit(0 if all(map(torch.equal, t.compute_results(), before)) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)


def test_an_empty_choice_selects_the_best_instruction_set() -> None:
    command = "from modalign import _core; print(_core.isa() == _core.isa_levels()[0])"
    run = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"MODALIGN_ISA": ""}, capture_output=True, check=True
    )
    assert run.stdout.strip() == b"True"


def test_a_screen_that_an_instruction_set_lacks_is_reset() -> None:
    before = _core.isa()
    for level in _core.isa_levels():
        _core.use_isa(before)
        _core.use_screen(_core.screens()[0])
        _core.use_isa(level)
        assert modalign.knn(torch.randn(20, 4), 3).indices.shape == (20, 3)
    _core.use_screen("auto")
    _core.use_isa(before)


def test_python_threads_may_call_at_the_same_time() -> None:
    expected, results = compute_results(), []
    callers = [threading.Thread(target=lambda: results.append(compute_results())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == len(callers)
    assert all(all(map(torch.equal, result, expected)) for result in results)


@pytest.mark.parametrize("first", ["t.compute_results()", "modalign.doctor()", "0"], ids=["used", "loaded", "imported"])
def test_a_forked_child_does_not_wait_for_threads_of_its_parent(first: str) -> None:
    """OpenMP's threads do not exist after a fork; a child that used them would wait forever."""
    command = (
        "import os, sys, torch; sys.path.insert(0, sys.argv[1]); import modalign, test_threads as t\n"
        "torch.set_num_threads(2)\n"
        "torch.randn(2000, 2000).exp()\n"
        f"{first}\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if len(t.compute_results()) > 1 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)
