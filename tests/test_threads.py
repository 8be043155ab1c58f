"""The compiled core runs on torch's threads: in every process, and with bitwise equal results for every number."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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


# refuses threads after a number of them, as a limit on processes does, whatever else the user runs
FEW_THREADS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
static int left = -1;  // any number
void give_threads(int count) { left = count; }
__attribute__((constructor)) static void read_environment(void) {
  const char* count = getenv("GIVE_THREADS");
  if (count) left = atoi(count);
}
int pthread_create(pthread_t* thread, const pthread_attr_t* options, void* (*run)(void*), void* argument) {
  if (left == 0) return EAGAIN;
  if (left > 0) --left;
  int (*create)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) = dlsym(RTLD_NEXT, "pthread_create");
  return create(thread, options, run, argument);
}
"""


@pytest.fixture(scope="module")
def few_threads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process in which ``give_threads`` of C sets how many threads can still start."""
    folder = tmp_path_factory.mktemp("threads")
    (folder / "threads.c").write_text(FEW_THREADS)
    library = folder / "threads.so"
    subprocess.run(["cc", "-shared", "-fPIC", folder / "threads.c", "-o", library, "-ldl"], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return environment | {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}


START = (
    "import ctypes, os, sys, torch; sys.path.insert(0, sys.argv[1]); import test_threads as t\n"
    "give_threads = ctypes.CDLL(None).give_threads\n"
    "torch.set_num_threads(4)\n"
)


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_results_are_complete_if_the_system_starts_few_threads(threads: int, few_threads: dict[str, str]) -> None:
    command = START + (
        f"give_threads({threads})\n"
        "few = t.compute_results()\n"
        "give_threads(-1)\n"
        "sys.exit(0 if all(map(torch.equal, t.compute_results(), few)) else 3)"
    )
    run = [sys.executable, "-c", command, os.path.dirname(__file__)]
    subprocess.run(run, timeout=120, check=True, env=few_threads)


@pytest.mark.parametrize("threads", [0, 2])
def test_results_of_a_forked_child_are_complete_if_it_starts_few_threads(
    threads: int, few_threads: dict[str, str]
) -> None:
    command = START + (
        "before = t.compute_results()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    torch.set_num_threads(4)\n"
        f"    give_threads({threads})\n"
        "    os._exit(0 if all(map(torch.equal, t.compute_results(), before)) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    run = [sys.executable, "-c", command, os.path.dirname(__file__)]
    subprocess.run(run, timeout=120, check=True, env=few_threads)


def test_the_command_line_computes_in_one_thread_if_the_system_starts_no_others(
    few_threads: dict[str, str], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(2000, 20)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    command = "from modalign.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", command, "align", "x.npy", "x.npy", "--k", "5"],
        cwd=tmp_path,
        env=few_threads | {"GIVE_THREADS": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    if torch.get_num_threads() > 1:
        assert "torch uses one thread, because the system does not start the" in run.stderr


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


def large_results() -> list[float]:
    """Return results of operations for which torch starts threads, at every door."""
    x = np.random.default_rng(0).normal(size=(3000, 32)).astype(np.float32)
    a = torch.from_numpy(x[:1500]).requires_grad_()
    loss = modalign.info_nce(a, torch.from_numpy(x[1500:]))
    loss.backward()
    assert a.grad is not None
    scores = modalign.align(x[:1100], x[:1100, :16].copy(), ["mutual_knn", "cka"], k=5, null="none", intervals=False)
    return [
        float(loss),
        float(a.grad.abs().sum()),
        float(modalign.nt_xent(torch.from_numpy(x), torch.from_numpy(x))),
        float(modalign.knn(x, 5).indices.sum()),
        float(modalign.knn(x.astype(np.float64), 5, block_size=1000).indices.sum()),
        modalign.mutual_knn(x, x[:, :16].copy(), k=5),
        modalign.cka(x, x[:, :16].copy()),
        scores["mutual_knn"].value,
        scores["cka"].value,
        float(modalign.preparation.prepare(x, "platonic").sum()),
        float(modalign.data.synthetic(n=4000, information=False).x.sum()),
    ]


def test_a_forked_child_computes_the_same_on_many_numbers() -> None:
    command = (
        "import os, sys, torch; sys.path.insert(0, sys.argv[1]); import test_threads as t\n"
        "torch.set_num_threads(2)\n"
        "torch.randn(2000, 2000).exp()\n"
        "before = t.large_results()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    after = t.large_results()\n"
        "    os._exit(0 if all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(after, before)) else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", command, os.path.dirname(__file__)], timeout=120, check=True)


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
