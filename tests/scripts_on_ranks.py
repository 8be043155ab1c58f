"""Run scripts one after the other in a process that torchrun started, and keep what each prints.

torchrun --nproc-per-node 2 tests/scripts_on_ranks.py FOLDER PORT:SCRIPT ...
"""

import contextlib
import faulthandler
import io
import os
import runpy
import sys
from pathlib import Path

import torch.distributed as dist


def main(folder: str, *scripts: str) -> None:
    faulthandler.dump_traceback_later(240, exit=True)  # a hang ends, and shows where it was
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # each script meets at a port of its own
    _keep_groups()
    for port, path in (script.split(":") for script in scripts):
        os.environ["MASTER_PORT"] = port
        sys.path.insert(0, str(Path(path).parent))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path, run_name="__main__")
        Path(folder, f"{Path(path).stem}.{os.environ['RANK']}").write_text(printed.getvalue(), encoding="utf-8")
    os._exit(0)  # without waiting for gloo's threads, see test_gathering


def _keep_groups() -> None:
    """Keep every process group until the process ends.

    A model of DDP that goes after ``destroy_process_group`` takes the group with it, and with torch 2.13 waits for the
    threads of gloo with the interpreter's lock, for which they may wait to drop the last collective.
    """
    destroy, kept = dist.destroy_process_group, []

    def destroy_but_keep(group: dist.ProcessGroup | None = None) -> None:
        kept.append(dist.group.WORLD)
        destroy(group)

    dist.destroy_process_group = destroy_but_keep


if __name__ == "__main__":
    main(*sys.argv[1:])
