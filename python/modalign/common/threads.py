"""Threads that may be missing: in a forked child, and where the system gives no more of them.

torch's OpenMP threads do not exist in a forked child, which would wait for them for ever in the first operation on more
than 32,768 numbers. Importing ``modalign`` therefore leaves torch one thread in forked children, as torch's own data
loaders do.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["is_forked", "leave_torch_threads_that_start", "startable_threads", "thread_pool"]

IMPORTED_BY = os.getpid()  # the process that imported the package
_Result = TypeVar("_Result")


def is_forked() -> bool:
    """Return whether this process is a forked child of the one that imported the package."""
    return os.getpid() != IMPORTED_BY


def _leave_torch_one_thread() -> None:
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_num_threads is not None:
        set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_torch_one_thread)


def startable_threads(most: int) -> int:
    """Return how many threads the system would start now, up to ``most``."""
    tried = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(most):
            thread = threading.Thread(target=tried.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:  # a limit on processes
        pass
    tried.set()
    for thread in threads:
        thread.join()
    return len(threads)


def leave_torch_threads_that_start() -> None:
    """Leave torch one thread, with a warning, if the system does not start as many as it uses.

    OpenMP would end the process in the first operation on more than 32,768 numbers.
    """
    import torch

    wanted = torch.get_num_threads()
    running = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    if running < wanted and startable_threads(wanted - 1) < wanted - 1:
        torch.set_num_threads(1)
        warnings.warn(
            f"torch uses one thread, because the system does not start the {wanted} that it would use; raise the limit "
            "on processes (ulimit -u), or set OMP_NUM_THREADS",
            RuntimeWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def thread_pool(most: int) -> Iterator[Executor]:
    """Yield up to ``most`` threads in each of which torch has one thread.

    A forked child, in which torch may not be called from new threads, and a process to which the system gives no thread
    compute in the calling thread.
    """
    import torch

    count = 0 if is_forked() else startable_threads(most)
    if count:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _CallingThread()
    finally:
        torch.set_num_threads(before)


class _CallingThread(Executor):
    """An executor that computes what is submitted at once."""

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
