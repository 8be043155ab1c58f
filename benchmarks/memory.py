"""Peak memory of one call above its inputs, in megabytes: python -m benchmarks.memory SUITE CASE RIVAL."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from benchmarks.cases import few
from benchmarks.suites import CASES


def peak() -> float:
    # not getrusage: its maximum starts at the parent's
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    suite, name, rival = sys.argv[1:]
    case = next(case for case in CASES[suite]() if case.name == name)
    inputs = case.make()
    case.rivals[rival](*few(inputs))  # whatever a first call loads stays out
    # what making the inputs took and gave back is neither in the base nor room for the call
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    base = peak()
    case.rivals[rival](*inputs)
    print(peak() - base)


if __name__ == "__main__":
    main()
