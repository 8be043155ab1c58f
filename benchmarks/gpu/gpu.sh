#!/usr/bin/env bash
# Run by `make gpu` with a Python executable: test the GPU kernels against the definition, then measure them beside the
# rivals that can be installed. If a step fails, the others still run, and the exit status is 1.
#
# OFFLINE=1       do not use the network; the Python must have torch, triton, pybind11, scikit-build-core, pytest,
#                 pytest-xdist and hypothesis
# WHEELS=folder   the folder with wheels of the rivals, for OFFLINE=1
# RESULTS=folder  the folder of the record (default: benchmarks/results)
set -uo pipefail
cd "$(dirname "$0")/../.."
python=$1
results=${RESULTS:-benchmarks/results}
pip=("$python" -m pip install --quiet --no-deps)
failed=0

if [ -n "${OFFLINE:-}" ]; then
  pip+=(--no-index --no-build-isolation)
  [ -z "${WHEELS:-}" ] || pip+=(--find-links "$WHEELS")
else
  pip+=(--constraint constraints.txt)
fi
# one by one, so that a rival that cannot be installed does not affect the others
for rival in memeff==0.3.1 inf-cl==1.2.1 siglip-kernel==0.1.2 flashlib==0.4.0; do
  "${pip[@]}" "$rival" || echo "rival not installed: $rival"
done

export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || exit 1
if command -v nvcc >/dev/null; then
  [ "$capability" = 90 ] && capability=90a
  "${pip[@]}" --editable . --config-settings=cmake.define.MODALIGN_WITH_CUDA=ON \
    --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$capability-real" || { echo "modalign._cuda was not built"; failed=1; }
else
  echo "modalign._cuda was not built: nvcc was not found"
  [ -z "${OFFLINE:-}" ] || "${pip[@]}" --editable . || exit 1
fi

# the tests of approximate neighbours need packages that may be missing, and no kernel of a GPU
TRITON_INTERPRET=0 "$python" -m pytest tests/losses tests/neighbors tests/ops tests/kernels/test_cuda_*.py -k "triton or device" \
  --ignore tests/neighbors/test_approximate.py --numprocesses "${TEST_PROCESSES:-8}" --dist worksteal || failed=1

card=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr ' ' '-')
mkdir -p "$results"
"$python" -m benchmarks.gpu.run --seconds "${SECONDS_AT_MOST:-420}" --out "$results/$card-$(date +%F-%H%M).json" || failed=1
echo "to add a record in benchmarks/results to the speed page, run: python -m benchmarks.speed --write"
exit "$failed"
