"""The scripts of examples/many_gpus run on two ranks, and end with the parameters that one process finds."""

import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "many_gpus"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "two_towers")
INSTALLED = [name for name in SCRIPTS if name != "with_deepspeed" or importlib.util.find_spec("deepspeed")]
EQUAL = re.compile(r"2 ranks: InfoNCE 4\.\d\d, \d+% .*\nparameters differ from those of one process by (\S+) at most")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all scripts in two processes of torchrun, which import the packages once."""
    folder = tmp_path_factory.mktemp("printed")
    runner = Path(__file__).with_name("scripts_on_ranks.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ports = free_ports(len(INSTALLED))
    scripts = [f"{port}:{FOLDER / name}.py" for name, port in zip(INSTALLED, ports, strict=True)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*torchrun, str(runner), str(folder), *scripts], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_two_ranks_end_with_the_parameters_of_one_process(name: str, printed: Path) -> None:
    if name not in INSTALLED:
        pytest.skip("DeepSpeed compiles an operator for a minute, so it is no dependency: pip install deepspeed")
    match = EQUAL.search((printed / f"{name}.0").read_text(encoding="utf-8"))
    assert match is not None
    assert float(match[1]) < 1e-5
    assert "InfoNCE" not in (printed / f"{name}.1").read_text(encoding="utf-8")


def test_the_page_lists_every_script() -> None:
    listed = re.findall(r"\]\(many_gpus/(\w+)\.py\)", (FOLDER.parent / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted([*SCRIPTS, "two_towers"])
