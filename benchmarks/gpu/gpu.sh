#!/usr/bin/env bash
# What `make gpu` runs, with the python it is given: the kernels of a GPU tested against the definition, then the record
# beside the peers that can be had. Whatever fails, the rest is still done; the exit status tells.
#
# OFFLINE=1      no network: the python has torch, triton, pybind11, scikit-build-core, pytest, pytest-xdist and hypothesis
# WHEELS=folder  where pip finds the peers' wheels then
# RESULTS=folder where the record goes
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
# one by one: one that cannot be had costs no other
for peer in memeff==0.3.1 inf-cl==1.2.1 siglip-kernel==0.1.2 flashlib==0.4.0; do
  "${pip[@]}" "$peer" || echo "no peer: $peer"
done

export PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
capability=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || exit 1
if command -v nvcc >/dev/null; then
  [ "$capability" = 90 ] && capability=90a
  "${pip[@]}" --editable . --config-settings=cmake.define.MODALIGN_WITH_CUDA=ON \
    --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$capability-real" || { echo "modalign._cuda: not built"; failed=1; }
else
  echo "modalign._cuda: not built, there is no nvcc"
  [ -z "${OFFLINE:-}" ] || "${pip[@]}" --editable . || exit 1
fi

# approximate neighbours have no kernel, and what they need may be missing
TRITON_INTERPRET=0 "$python" -m pytest tests/losses tests/neighbors tests/ops tests/kernels/test_cuda_*.py -k "triton or device" \
  --ignore tests/neighbors/test_approximate.py --numprocesses "${TEST_PROCESSES:-8}" --dist worksteal || failed=1

card=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr ' ' '-')
mkdir -p "$results"
"$python" -m benchmarks.gpu.run --seconds "${SECONDS_AT_MOST:-420}" --out "$results/$card-$(date +%F-%H%M).json" || failed=1
echo "a record in benchmarks/results belongs on the speed page: python -m benchmarks.speed --write"
exit "$failed"
