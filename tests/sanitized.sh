#!/usr/bin/env bash
# Run the tests of the compiled core, built with the address and undefined-behaviour sanitizers, and those of the CUDA
# kernels on a CPU. The core is in a copy of the package, which python -S (no .pth files) finds instead of the editable one.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
copy=$PWD/build/sanitized
rm -rf "$copy/package"
"$python" -m pip install --quiet --no-deps --target "$copy/package" \
  --config-settings=cmake.define.MODALIGN_SANITIZE=ON --config-settings=build-dir="$copy/cmake" .
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# tests of the definitions, in Triton's interpreter and of approximate neighbours (numba) do not call the core; second
# derivatives and opcheck call what other tests call, hundreds of times
# leaks are not reported, because Python itself leaks by design
MODALIGN_FUZZ=4 CXXFLAGS=-fsanitize=address,undefined ASAN_OPTIONS=detect_leaks=0:strict_init_order=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so):$(${CXX:-g++} -print-file-name=libubsan.so)" \
PYTHONPATH="$copy/package:$site" "$python" -S -m pytest -q -p no:cacheprovider tests/losses tests/neighbors tests/ops tests/test_bad_input.py \
  tests/kernels/test_cuda_info_nce.py tests/kernels/test_cuda_survivors.py \
  -k "(cpp or exact or many_blocks or threads or core or beyond or host or bits) and not (survivors_of or reference or second_derivatives or opcheck)" --ignore tests/neighbors/test_approximate.py --ignore tests/neighbors/test_blocks.py --deselect tests/ops/test_operators.py::test_compiles_as_one_graph
