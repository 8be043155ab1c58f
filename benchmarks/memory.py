"""Print the peak memory of one call above its inputs, in megabytes: python -m benchmarks.memory SUITE CASE RIVAL."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from benchmarks.cases import first_rows
from benchmarks.suites import CASES


def peak_megabytes() -> float:
    """Return the peak resident memory of this process."""
    # getrusage would not do: its maximum starts at that of the parent process
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    """Measure one call in this process."""
    suite, name, rival = sys.argv[1:]
    case = next(case for case in CASES[suite]() if case.name == name)
    inputs = case.make()
    case.rivals[rival](*first_rows(inputs))  # a first call loads modules, which are not to be measured
    # memory that was freed while the inputs were made must not be part of the base, nor room for the call
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    base = peak_megabytes()
    case.rivals[rival](*inputs)
    print(peak_megabytes() - base)


if __name__ == "__main__":
    main()
