"""The provenance of a result: versions, machine, commit, time, command and seed."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["collect", "commit", "resumed", "versions"]

PACKAGES = ("modalign", "torch", "triton", "numpy", "pandas", "pyarrow")


def collect(seed: object = None) -> dict[str, Any]:
    """Return the versions, machine, commit, time, command and seed that every result file records."""
    import torch

    return {
        "modalign_commit": commit(),
        "versions": {"python": platform.python_version()} | versions(*PACKAGES),
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


def resumed(record: dict[str, Any]) -> dict[str, Any]:
    """Return ``record`` with the provenance of this process added to its list "resumed": another machine or commit."""
    return record | {"resumed": [*record.get("resumed", []), collect()]}


def versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package, None for one that is not installed."""
    return {name: _version(name) for name in packages}


def commit() -> str:
    """Return the commit of the source tree (``+changes`` if it was edited), else the one the package was built from."""
    root = Path(__file__).resolve().parents[3]
    if (root / ".git").exists() and (root / "CMakeLists.txt").is_file():
        try:
            git = ["git", "-C", str(root)]
            head = subprocess.run(
                [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
            ).stdout.strip()
            edited = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pass  # no git or no repository: the build recorded the commit
        else:
            return head + ("+changes" if edited.stdout.strip() else "")
    from modalign import _core

    return str(_core.commit) or "unknown (built outside a repository)"


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
