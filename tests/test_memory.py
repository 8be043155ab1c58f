"""Peak memory of a call, above the memory in use before it, measured in a new process."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, pathlib, re, sys
import torch, numpy as np, modalign
torch.set_num_threads(2)
def peak():
    # getrusage is no alternative, because its maximum starts at that of the parent process
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
def naive(x, y):
    logits = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T / 0.07
    pairs = torch.arange(len(x))
    return (torch.nn.functional.cross_entropy(logits, pairs) + torch.nn.functional.cross_entropy(logits.T, pairs)) / 2
def loss(function, n, d):
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d, requires_grad=True)
    function(x[:64], y[:64]).backward()  # the first call loads libraries, which are not measured
    x.grad = y.grad = None
    base = peak()
    function(x, y).backward()
    return peak() - base
def mutual(n, d):
    x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    modalign.mutual_knn(x[:64], x[:64])
    base = peak()
    modalign.mutual_knn(x, x)
    return peak() - base
print(json.dumps(eval(sys.argv[1])))
"""


def megabytes(call: str) -> float:
    run = subprocess.run([sys.executable, "-c", SCRIPT, call], capture_output=True, text=True, check=True, timeout=300)
    return float(json.loads(run.stdout))


def test_info_nce_memory_grows_with_rows_not_with_pairs() -> None:
    n, d = 6144, 64
    rows = 4 * n * d / 2**20
    assert megabytes(f"loss(modalign.info_nce, {n}, {d})") < 12 * rows + 16  # 34 MB; the matrix alone takes 151 MB
    assert megabytes(f"loss(naive, {n}, {d})") > 2 * 4 * n * n / 2**20


def test_mutual_knn_memory_grows_with_lists_not_with_pairs() -> None:
    n = 8000
    assert megabytes(f"mutual({n}, 32)") < n * (64 * 12 + 600) / 2**20 + 24  # 34 MB; the matrix alone takes 256 MB


@pytest.mark.parametrize("module", ["triton", "modalign._core", "pandas", "plotly", "typer", "sklearn", "pyarrow"])
def test_importing_modalign_does_not_load(module: str) -> None:
    code = f"import sys, modalign; assert {module!r} not in sys.modules, 'import modalign loads {module}'"
    subprocess.run([sys.executable, "-c", code], check=True)
