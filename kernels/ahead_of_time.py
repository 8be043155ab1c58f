"""Compile every row of the tile table for sm_80, sm_90 and sm_100, without a device, and report its resources.

A kernel with tables that a call may lack is compiled twice: "lean" as the common call, "full" with every table.

``python -m modalign.kernels.ahead_of_time`` prints a table, with ``--json`` one record a line. TRITON_INTERPRET must be
unset. Registers, stack and local memory are read with cuobjdump, which Triton includes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from modalign.kernels.knn.exact_scores import _knn_exact_kernel
from modalign.kernels.knn.neighbor_overlap import _neighbor_overlap_kernel
from modalign.kernels.knn.screen import _knn_screen_kernel
from modalign.kernels.knn.survivors import _knn_append_kernel
from modalign.kernels.losses.info_nce_sums import _info_nce_combine_kernel, _info_nce_fwd_kernel
from modalign.kernels.losses.info_nce_weights import _info_nce_bwd_kernel, _info_nce_weights_kernel
from modalign.kernels.losses.sigmoid_loss import (
    _sigmoid_loss_bwd_kernel,
    _sigmoid_loss_fwd_kernel,
    _sigmoid_loss_weights_kernel,
)
from modalign.kernels.shared.launch import COMPILE_OPTIONS
from modalign.kernels.shared.tiles import ANY, ARCHITECTURES, TABLE, VARIANTS, Row, interpreted

__all__ = ["Record", "compile_row", "compile_table"]

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int64: "i64"}

# the types of each kernel's arguments up to its constants, T for the dtype of the row; T@M and T@N are tables of
# dot_tile, read in blocks of BLOCK_M or BLOCK_N rows. A table marked ? is None in the lean variant, one marked ~ for
# all dtypes but float16
SIDE = "*i64? *fp32? *fp32 *fp32"
KERNELS = {
    "info_nce_forward": (
        _info_nce_fwd_kernel,
        "T@M T@N *fp32 *i64? *fp32? *i64? *fp32?" + 3 * " *fp32" + " *fp32?" + 9 * " i32",
    ),
    "info_nce_combine": (_info_nce_combine_kernel, 6 * "*fp32 " + 3 * "i32 " + 5 * "i64 " + 3 * "i32 "),
    "info_nce_backward": (_info_nce_bwd_kernel, f"*T *T *T *fp32 *fp32~ {SIDE} {SIDE} *fp32 *fp32" + 4 * " i32"),
    "info_nce_weights": (_info_nce_weights_kernel, f"T@M T@N *fp32? *fp32 *fp32~ {SIDE} {SIDE} *fp32 *T" + 10 * " i32"),
    "sigmoid_loss_forward": (_sigmoid_loss_fwd_kernel, "T@M T@N *fp32 *fp32 *i64? *i64? *fp32 i32 i32 i32"),
    "sigmoid_loss_backward": (
        _sigmoid_loss_bwd_kernel,
        "*T *T *fp32 *fp32~ *fp32 *fp32 *i64? *i64? *fp32 *fp32 i32 i32 i32",
    ),
    "sigmoid_loss_weights": (
        _sigmoid_loss_weights_kernel,
        "T@M T@N *fp32 *fp32~ *fp32 *fp32 *i64? *i64? *T *fp32" + 9 * " i32",
    ),
    "knn_screen": (_knn_screen_kernel, "*T *T *i64" + 7 * " *fp32" + " *i64? *i64? *i64 i32 i32 i32 i32 i32"),
    "knn_append": (_knn_append_kernel, "T@M T@N *i64" + 8 * " *fp32" + " *i64? *i64? *i64 *i32 i64 i32 i32 i32 i32"),
    "knn_exact": (_knn_exact_kernel, "*T *T *i64 *fp64 i32 i32 i32"),
    "neighbor_overlap": (_neighbor_overlap_kernel, "*i64 *i64 *i32 i32 i32"),
}
# arguments that are multiples of 16
PADDED = {name: ("d", "e", "stride") for name in KERNELS if name not in ("knn_exact", "neighbor_overlap")}


@dataclasses.dataclass(frozen=True)
class Record:
    """The resources of one kernel on one architecture.

    Attributes:
        kernel, variant, dtype, architecture, up_to: the row of the table, and which of its cases.
        shared: bytes of shared memory of a block.
        registers: registers of a thread.
        local: bytes of stack and local memory of a thread, where registers are spilled to.
        products: the instruction of tl.dot.
        bulk_copies: whether tiles are copied by tensor descriptors.
        fused_float64: whether a float64 product and sum were contracted, which would change the scores.
        seconds: the time of compiling.
    """

    kernel: str
    variant: str
    dtype: str
    architecture: str
    up_to: int
    shared: int
    registers: int
    local: int
    products: str
    bulk_copies: bool
    fused_float64: bool
    seconds: float


def compile_table(architectures: tuple[str, ...] = ARCHITECTURES) -> Iterator[Record]:
    """Yield a record for every row, dtype, architecture and variant."""
    if interpreted():
        raise RuntimeError("kernels made for the interpreter cannot be compiled: unset TRITON_INTERPRET")
    for row in TABLE:
        for architecture in architectures:
            if architecture in row.architectures:
                for dtype in row.dtypes:
                    for variant in row.variants if "?" in KERNELS[row.kernel][1] else VARIANTS[1:]:
                        yield compile_row(row, dtype, architecture, variant)


def compile_row(row: Row, dtype: torch.dtype, architecture: str, variant: str) -> Record:
    """Compile one row for one dtype and architecture, for aligned tensors as torch allocates them."""
    started = time.perf_counter()
    kernel, types = KERNELS[row.kernel]
    kinds = types.replace("T", TYPES[dtype]).split()
    arguments = dict(zip(kernel.arg_names, (_type(kind, row.tile.blocks) for kind in kinds), strict=False))
    missing = ("?" if variant == "lean" else "") + ("" if dtype == torch.float16 else "~")
    constants: dict[str, object] = {**row.tile.blocks, **_flags(row, variant)}
    constants.update((name, None) for name, kind in arguments.items() if kind[-1] in missing)
    arguments = {name: kind.rstrip("?~") for name, kind in arguments.items()}
    arguments.update(dict.fromkeys(constants, "constexpr"))
    padded = PADDED.get(row.kernel, ())
    aligned = [i for i, name in enumerate(kernel.arg_names) if arguments[name][0] == "*" or name in padded]
    source = ASTSource(kernel, arguments, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    options = {"num_warps": row.tile.warps, "num_stages": row.tile.stages, **COMPILE_OPTIONS}
    compiled = triton.compile(source, target=target, options=options)
    usage = _cuobjdump("-res-usage", compiled.asm["cubin"])
    match = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    if match is None:
        raise RuntimeError(f"expected registers in the output of cuobjdump -res-usage, got {usage!r}")
    registers, stack, local = map(int, match.groups())
    ptx = compiled.asm["ptx"]
    return Record(
        kernel=row.kernel,
        variant=variant,
        dtype=TYPES[dtype],
        architecture=architecture,
        up_to=row.up_to,
        shared=compiled.metadata.shared,
        registers=registers,
        local=stack + local,
        products=next((name for name in ("tcgen05.mma", "wgmma.mma_async", "mma.sync") if name in ptx), "fma"),
        bulk_copies="cp.async.bulk.tensor" in ptx,
        fused_float64="f64" in ptx and "DFMA" in _cuobjdump("-sass", compiled.asm["cubin"]),
        seconds=round(time.perf_counter() - started, 2),
    )


def _type(kind: str, blocks: dict[str, int]) -> str:
    """Return Triton's name of an argument's type: T@M is a pointer, or a descriptor of blocks of BLOCK_M x BLOCK_D."""
    dtype, _, side = kind.partition("@")
    if not side:
        return kind
    if not blocks["DESCRIPTORS"]:
        return f"*{dtype}"
    return f"tensordesc<{dtype}[{blocks['BLOCK_' + side]}, {blocks['BLOCK_D']}]>"


def _flags(row: Row, variant: str) -> dict[str, object]:
    """Return the constants that are not tile sizes: those of the common call if lean, else the most demanding ones."""
    mask = "diagonal" if variant == "lean" else "same"
    row_side = variant == "lean"
    return {
        "info_nce_forward": {"MASK": mask, "STATS": not row_side, "ONE_STREAM": False},
        "info_nce_combine": {"STATS": True},
        "info_nce_backward": {"SCALE_ROWS": row_side, "MASK": mask, "ROUND": False},
        "info_nce_weights": {"MASK": mask, "ROUND": False},
        "sigmoid_loss_forward": {},
        "sigmoid_loss_backward": {"SCALE_ROWS": True, "ROUND": False},
        "sigmoid_loss_weights": {"ROUND": False},
        "knn_screen": {"KEPT": row.up_to},
        "knn_append": {"SYMMETRIC": True},
        "knn_exact": {"CANDIDATES": row.up_to <= 128, "EUCLIDEAN": True},
        "neighbor_overlap": {},
    }[row.kernel]


def _cuobjdump(option: str, cubin: bytes) -> str:
    """Return the output of cuobjdump on a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, option, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(arguments: list[str]) -> None:
    """Compile the table and print the records."""
    description = "Compile every Triton kernel without a GPU and report registers, shared memory and spills."
    parser = argparse.ArgumentParser(description=description, prog="python -m modalign.kernels.ahead_of_time")
    architecture_help = "compile for this architecture; may be repeated (default: all)"
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES, help=architecture_help)
    parser.add_argument("--json", action="store_true", help="print one JSON record a line instead of a table")
    options = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Record)]
    widths = [23, 9, 7, 14, 8, 8, 11, 7, 17, 13, 15, 8]
    if not options.json:
        print("".join(name.ljust(width) for name, width in zip(names, widths, strict=True)))
    for record in compile_table(tuple(options.architecture or ARCHITECTURES)):
        values = dataclasses.asdict(record)
        if options.json:
            print(json.dumps(values), flush=True)
        else:
            values["up_to"] = "any" if record.up_to == ANY else record.up_to
            cells = (str(values[name]).ljust(width) for name, width in zip(names, widths, strict=True))
            print("".join(cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
