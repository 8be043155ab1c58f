"""``align`` holds no more than ``max_memory``, measured in a new process, or refuses it with the number it needs."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import modalign

SCRIPT = """
import json, pathlib, re, sys
import numpy as np, torch, modalign
torch.set_num_threads(2)
call = json.loads(sys.argv[1])
def peak():
    return int(re.search(r"VmHWM:\\\\s+(\\\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
def rows(n):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, d)).astype(np.float32) for d in call["widths"]]
def align(n, limit):
    return modalign.align(*rows(n), call["metrics"], k=5, max_memory=limit, **call["options"])
align(400, "2GB")  # loads libraries, which are not measured
try:
    align(call["n"], 1000)
except ValueError as error:
    needed = int(re.search(r"max_memory must be at least (\\\\d+) bytes", str(error))[1])
x, y = rows(call["n"])
base = peak()
modalign.align(x, y, call["metrics"], k=5, max_memory=int(needed * call["share"]), **call["options"])
print(json.dumps([peak() - base, needed]))
"""
CALLS: dict[str, dict[str, Any]] = {
    "neighbours with intervals": {"n": 4000, "widths": [16, 8], "metrics": ["mutual_knn"]},
    "neighbours that read rows": {"n": 3000, "widths": [64, 32], "metrics": ["mutual_knn", "cknna"]},
    "moments": {"n": 3000, "widths": [300, 200], "metrics": ["cka", "svcca"]},
    "pairs": {"n": 1000, "widths": [16, 16], "metrics": ["rsa", "retrieval"]},
}


@pytest.mark.parametrize(("name", "share"), [*((name, 1) for name in CALLS), ("neighbours with intervals", 2)])
def test_the_limit_holds_and_what_is_needed_is_enough(name: str, share: int) -> None:
    options = {"null": "none"} if share == 2 else {"relabellings": 19}
    call = CALLS[name] | {"share": share, "options": options}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("\\\\", "\\"), json.dumps(call)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    used, needed = json.loads(run.stdout.splitlines()[-1])
    assert used <= needed * share
    assert needed < 20 * max(used, 20_000_000)  # no number that refuses everything


def test_too_little_memory_is_refused_with_the_number() -> None:
    x = np.random.default_rng(0).normal(size=(500, 8))
    with pytest.raises(
        ValueError, match=r'align: max_memory must be at least \d+ bytes \("\d+MB"\) for mutual_knn, cka of'
    ):
        modalign.align(x, x, ["mutual_knn", "cka"], max_memory="1MB")
    result = modalign.align(x, x, ["mutual_knn", "cka"], max_memory="1GB", k=5)
    assert result["mutual_knn"].value == modalign.align(x, x, ["mutual_knn", "cka"], k=5)["mutual_knn"].value
