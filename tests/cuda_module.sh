#!/usr/bin/env bash
# Check that MODALIGN_WITH_CUDA=ON compiles modalign._cuda into the wheel, and that it imports on a machine without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
build=$PWD/build/cuda
rm -rf "$build/package"
"$python" -m pip install --quiet --no-deps --target "$build/package" \
  --config-settings=cmake.define.MODALIGN_WITH_CUDA=ON --config-settings=build-dir="$build/cmake" .
# the kernels of sm_90a must use the intended instructions, and must not spill registers to memory
cuobjdump=$("$python" -c 'import triton; print(triton.knobs.nvidia.cuobjdump.path)')
"$python" - "$cuobjdump" "$build"/package/modalign/_cuda*.so <<'PYTHON'
import re, subprocess, sys
NEEDED = {
    "knn_survivors_kernel": (4, ("HGMMA.64x256x16.F32", "UTMALDG.2D")),
    "info_nce_sums_kernel": (1, ("HGMMA.64x256x16.F32.BF16", "UTMALDG.2D")),
    "info_nce_weights_kernel": (1, ("HGMMA.64x256x16.F32.BF16", "UTMALDG.2D", "UTMASTG.2D", "F2FP.BF16")),
}
def read(option):
    command = [sys.argv[1], option, "-arch", "sm_90a", sys.argv[2]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
usage = re.findall(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", read("-res-usage"))
kernels = {text.split()[0]: text for text in read("-sass").split("Function : ")[1:]}
for kernel, (count, instructions) in NEEDED.items():
    functions = [function for function in usage if kernel in function[0]]
    assert len(functions) == count, (kernel, usage)
    for name, registers, stack, shared, local in functions:
        print(f"{name}: {registers} registers, {stack} bytes of stack, {local} of local memory")
        assert int(stack) == int(local) == 0 and int(registers) == 168  # as give_registers and take_registers assume
        assert all(instruction in kernels[name] for instruction in instructions), instructions
PYTHON
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
