#!/usr/bin/env bash
# The contract tests of the compiled core, with the core built with ASan and UBSan, in a copy of the package that hides
# the installed one (python -S: no .pth files, so the editable install is not seen), and the CUDA kernels that run on a CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
copy=$PWD/build/sanitized
rm -rf "$copy/package"
"$python" -m pip install --quiet --no-deps --target "$copy/package" \
  --config-settings=cmake.define.MODALIGN_SANITIZE=ON --config-settings=build-dir="$copy/cmake" .
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# what runs in triton's interpreter has nothing of the core to find, and approximate neighbours are numba's
# python itself leaks by design; what must be found is a bad access or undefined arithmetic
MODALIGN_FUZZ=4 CXXFLAGS=-fsanitize=address,undefined ASAN_OPTIONS=detect_leaks=0:strict_init_order=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so):$(${CXX:-g++} -print-file-name=libubsan.so)" \
PYTHONPATH="$copy/package:$site" "$python" -S -m pytest -q -p no:cacheprovider tests/losses tests/neighbors tests/ops tests/test_bad_input.py \
  tests/kernels/test_cuda_info_nce.py tests/kernels/test_cuda_survivors.py \
  -k "(cpp or exact or many_blocks or threads or core or beyond or host or bits) and not survivors_of" --ignore tests/neighbors/test_approximate.py --deselect tests/ops/test_operators.py::test_compiles_as_one_graph
