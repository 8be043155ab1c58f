#!/usr/bin/env bash
# MODALIGN_WITH_CUDA=ON: the module compiles, is in the wheel, and imports on a machine without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
build=$PWD/build/cuda
rm -rf "$build/package"
"$python" -m pip install --quiet --no-deps --target "$build/package" \
  --config-settings=cmake.define.MODALIGN_WITH_CUDA=ON --config-settings=build-dir="$build/cmake" .
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PYTHONPATH="$build/package:$site" "$python" -S - <<'PYTHON'
import torch, modalign
from modalign import _cuda
print("modalign._cuda for", _cuda.architectures)
if not torch.cuda.is_available():
    try:
        _cuda.neighbor_overlap(0, 0, 1, 1, 0, 0, 0)
    except RuntimeError as error:
        assert str(error).startswith("CUDA: "), error
        print("a launch here raises:", error)
    else:
        raise SystemExit("a launch without a GPU must raise")
PYTHON
