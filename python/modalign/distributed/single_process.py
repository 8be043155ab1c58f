"""The user's step in one process more, with the whole batch: what the ranks are compared with.

The process is a fresh interpreter with a group of its own, in which there is one rank. It imports the step by its name,
runs it twice, and leaves the outcome in a folder.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modalign.distributed.findings import NEGLIGIBLE, TINY
from modalign.distributed.stepping import Described, Outcome, Step, place_of, run_step, step_at
from modalign.distributed.watched import current_gpu

__all__ = ["answer", "gradients_in", "importable_place", "run_alone", "run_twice"]

MAIN = ("__main__", "__mp_main__")  # the script's name in its own process, and in those that it starts
REQUEST, ANSWER, GRADIENTS, LOG = "request.pt", "answer.json", "gradients.pt", "log.txt"
LINES = 20  # of the log of a failed process that the error shows
# what would lead the process to the meeting point of the ranks
OF_THE_LAUNCHER = ("TORCHELASTIC_", "GROUP_", "ROLE_", "MASTER_")


def importable_place(step: object) -> tuple[str, str]:
    """Return the module, or the file of a script, and the name by which another process finds a step.

    Raises:
        TypeError, ValueError: As ``place_of``, and for a step of an interactive session, which no process can import.
    """
    module, name = place_of(step)
    if module not in MAIN:
        return module, name
    main = sys.modules["__main__"]
    if main.__spec__ is not None and main.__spec__.name not in MAIN:
        return main.__spec__.name, name
    file = getattr(main, "__file__", None)
    if file is None:
        raise ValueError(f"check: step {name} must be in a file, which another process can import")
    return str(Path(file).resolve()), name


def run_alone(place: tuple[str, str], inputs: Sequence[Any], folder: str, *, seed: int, timeout: float) -> Described:
    """Run a step in one process more, and return its outcome without the gradients, and how far two runs differ.

    Args:
        place: The step, as ``importable_place`` has it.
        inputs: The global batch.
        folder: Where the process leaves the gradients, for ``gradients_in``.
        seed: The seed of the step.
        timeout: Seconds after which the process is ended.

    Raises:
        RuntimeError: The process failed, or did not end in time.
    """
    request = {"place": place, "inputs": tuple(inputs), "seed": seed, "path": sys.path, "device": current_gpu()}
    torch.save(request | {"backend": dist.get_backend(), "threads": torch.get_num_threads()}, Path(folder, REQUEST))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_LAUNCHER)}
    environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", f"from {__name__} import answer; answer({folder!r})"]
    log = Path(folder, LOG)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"check: one process did not finish the step within {timeout:g} s; timeout= allows more time"
            ) from None
        finally:
            process.kill()
    if not Path(folder, ANSWER).exists():
        last = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:])
        raise RuntimeError(f"check: the step in one process ended with code {process.returncode}:\n  {last}")
    found: Described = json.loads(Path(folder, ANSWER).read_text(encoding="utf-8"))
    if "failure" in found:
        raise RuntimeError(found["failure"])
    return found


def gradients_in(folder: str) -> dict[str, Tensor]:
    """Return the gradients that one process left."""
    found: dict[str, Tensor] = torch.load(Path(folder, GRADIENTS), weights_only=True, mmap=True)
    return found


def answer(folder: str) -> None:
    """Do in one process what ``run_alone`` asked for, and end it."""
    try:
        found = _run_request(torch.load(Path(folder, REQUEST), weights_only=False), folder)
    except Exception as error:  # the user's step may raise anything
        traceback.print_exc()
        text = str(error)
        reason = (
            text
            if text.startswith("check: ")
            else f"check: the step fails in one process: {type(error).__name__}: {text}"
        )
        found = {"failure": reason}
    Path(folder, "unfinished").write_text(json.dumps(found), encoding="utf-8")
    Path(folder, "unfinished").rename(Path(folder, ANSWER))
    sys.stdout.flush()
    # gloo's threads may abort a process that ends its interpreter (pytorch#179291)
    os._exit(0)


def _run_request(request: dict[str, Any], folder: str) -> Described:
    """Become the one process that a request describes, and run its step."""
    sys.path[:] = request["path"]
    torch.set_num_threads(request["threads"])
    if request["device"] is not None:
        torch.cuda.set_device(request["device"])
    step = _step_from(*request["place"])
    meeting = f"file://{folder}/meeting"
    dist.init_process_group(request["backend"], meeting, rank=0, world_size=1)
    return run_twice(step, request["inputs"], folder, seed=request["seed"])


def run_twice(step: Step, inputs: Sequence[Any], folder: str, *, seed: int) -> Described:
    """Run a step in this process, leave its gradients in a folder, and return how far a second run differs, too."""
    outcome = run_step(step, inputs, seed=seed)
    kept = {name: gradient.cpu() for name, gradient in outcome.gradients.items() if gradient is not None}
    torch.save(kept, Path(folder, GRADIENTS))
    again = run_step(step, inputs, seed=seed)
    return outcome.described() | {"deviation": _deviation(outcome, again)}


def _step_from(module: str, name: str) -> Step:
    """Import a step from a module, or from the file of a script, whose guarded part does not run."""
    if not os.path.isabs(module):
        return step_at(module, name)
    spec = importlib.util.spec_from_file_location("__mp_main__", module)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = script
    try:
        spec.loader.exec_module(script)
    except Exception as error:  # the user's script runs here
        raise ValueError(
            f"check: {module} fails where it is imported ({type(error).__name__}: {error}): put what the script runs "
            'under if __name__ == "__main__":'
        ) from error
    return step_at("__mp_main__", name)


def _deviation(first: Outcome, second: Outcome) -> float:
    """Return how far two runs of one process differ: the largest relative difference of the loss or of a gradient.

    NaN where either holds NaN or inf.
    """
    found = [abs(first.loss - second.loss) / max(abs(first.loss), TINY)]
    norms = {name: float(gradient.norm()) for name, gradient in first.gradients.items() if gradient is not None}
    for name, norm in norms.items():
        gradient, other = first.gradients[name], second.gradients.get(name)
        assert gradient is not None
        if other is None or other.shape != gradient.shape:
            return float("inf")
        found.append(float((gradient - other).norm()) / max(norm, TINY, NEGLIGIBLE * max(norms.values())))
    return math.nan if any(map(math.isnan, found)) else max(found)
