"""The load of the machine, which decides whether a ratio of times means anything."""

from __future__ import annotations

import os
import sys

__all__ = ["require_idle_machine"]


def require_idle_machine(even_if_loaded: bool) -> float:
    """Return the load average of the last minute; exit if it exceeds the number of cores, unless ``even_if_loaded``."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores + 0.5 and not even_if_loaded:
        sys.exit(
            f"load {load:.1f} on {cores} cores: a ratio of times measured now means nothing "
            "(wait until the machine is idle, or pass --even-if-loaded)"
        )
    return load
