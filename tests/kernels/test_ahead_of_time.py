"""Every row of the tile table compiles for each of its architectures and fits; no device is needed."""

import json
import os
import subprocess
import sys

import pytest

from modalign.kernels.shared.tiles import ANY, ARCHITECTURES, TABLE

# bytes of shared memory a block may use: 227 KiB on sm_90 and sm_100. The tiles of sm_80 also serve sm_86, sm_89 and
# sm_120, which have 99 KiB
SHARED_LIMIT = {"sm_80": 99 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
TENSOR_CORES = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma"}
LOSSES = tuple(
    f"{loss}_{kernel}" for loss in ("info_nce", "sigmoid_loss") for kernel in ("forward", "weights", "backward")
)
WITH_PRODUCTS = (*LOSSES, "knn_screen", "knn_append")
WITH_VARIANTS = WITH_PRODUCTS  # the kernels with tables that a call may lack
COPIED = ("info_nce_forward", "info_nce_weights", "sigmoid_loss_forward", "sigmoid_loss_weights", "knn_append")


@pytest.fixture(scope="module")
def records() -> list[dict]:
    """Return the records of another process: the kernels of this one are made for the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "modalign.kernels.ahead_of_time", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_row_was_compiled(records: list[dict]) -> None:
    expected = sum(
        len(row.dtypes) * (len(row.variants) if row.kernel in WITH_VARIANTS else 1)
        for row in TABLE
        for architecture in row.architectures
        if architecture in ARCHITECTURES
    )
    assert len(records) == expected


def test_shared_memory_fits(records: list[dict]) -> None:
    for record in records:
        assert record["shared"] <= SHARED_LIMIT[record["architecture"]], record


def test_no_register_is_spilled(records: list[dict]) -> None:
    for record in records:
        assert record["local"] == 0, record


def test_half_precision_runs_on_the_tensor_cores_of_each_architecture(records: list[dict]) -> None:
    half = [record for record in records if record["kernel"] in WITH_PRODUCTS and record["dtype"] in ("fp16", "bf16")]
    assert half
    for record in half:
        assert record["products"] == TENSOR_CORES[record["architecture"]], record


def test_only_the_half_precision_tiles_of_the_table_are_copied_in_bulk(records: list[dict]) -> None:
    for record in records:
        half_on_hopper = record["dtype"] in ("fp16", "bf16") and record["architecture"] != "sm_80"
        assert record["bulk_copies"] == (half_on_hopper and record["kernel"] in COPIED), record


def test_float32_products_are_not_rounded_to_tf32(records: list[dict]) -> None:
    single = [record for record in records if record["kernel"] in WITH_PRODUCTS and record["dtype"] == "fp32"]
    assert single
    for record in single:
        assert record["products"] == "fma", record


def test_float64_scores_are_not_contracted(records: list[dict]) -> None:
    """The definition of a score rounds every product; a fused multiply-add would give another number."""
    assert not any(record["fused_float64"] for record in records)


def test_the_table_serves_every_size(records: list[dict]) -> None:
    for kernel in {record["kernel"] for record in records}:
        widest = ANY if kernel != "knn_screen" else 128
        for variant in ("lean", "full") if kernel in WITH_VARIANTS else ("full",):
            rows = [r for r in records if (r["kernel"], r["variant"], r["up_to"]) == (kernel, variant, widest)]
            assert {record["architecture"] for record in rows} == set(ARCHITECTURES)
