"""Where a result came from, and how it reaches the disk whole or not at all."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["collect", "write_atomically"]

PACKAGES = ("modalign", "torch", "triton", "numpy", "pandas", "pyarrow")


def collect(seed: object = None) -> dict[str, Any]:
    """Versions, machine, commit, time, command and seed: what every result file records."""
    import torch

    return {
        "modalign_commit": commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {
            "platform": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
    }


def commit() -> str:
    """The commit of the source tree in use (``+changes`` if it was edited), else the one the package was built from."""
    root = Path(__file__).resolve().parents[3]
    if (root / ".git").exists() and (root / "CMakeLists.txt").is_file():
        try:
            git = ["git", "-C", str(root)]
            head = subprocess.run(
                [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip()
            edited = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pass  # no git here, or no repository: the build knows
        else:
            return head + ("+changes" if edited.stdout.strip() else "")
    from modalign import _core

    return str(_core.commit) or "unknown (built outside a repository)"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path``, then put it in place: readers see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:  # the user gave no temporary name
        raise OSError(error.errno, error.strerror, str(path)) from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
