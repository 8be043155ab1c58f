"""Compute losses and gradients with the libraries whose losses ``modalign.losses.drop_ins`` replaces.

    python tests/losses/make_drop_ins.py            runs open_clip, lightly, sentence_transformers; writes drop_ins.npz
    python tests/losses/make_drop_ins.py --check    runs them and modalign, compares; writes nothing

The libraries need not be installed for the tests, which read drop_ins.npz. Inputs come from numpy's legacy generator,
whose stream never changes, so the file holds a seed for each case and no inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name("drop_ins.npz")
PACKAGES = ("open_clip_torch", "lightly", "sentence_transformers", "torch")
SIZES = ((1, 4), (6, 5), (17, 8))
ALL_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
MNRL: list[tuple[int, dict[str, Any]]] = [
    # columns of the batch (anchor, positive, hard negatives), then the options
    (2, {}),
    (3, {"scale": 5.0}),
    (4, {}),
    (2, {"similarity_fct": "dot_score", "scale": 1.0}),
    (4, {"similarity_fct": "dot_score", "scale": 1.0}),
    (2, {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}),
    (4, {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}),
    (4, {"directions": ("query_to_doc", "doc_to_query")}),
    (4, {"directions": ("query_to_doc", "query_to_query"), "scale": 5.0}),
    (4, {"directions": ("query_to_doc", "doc_to_doc"), "scale": 5.0}),
    (2, {"directions": ALL_DIRECTIONS}),
    (4, {"directions": ALL_DIRECTIONS, "scale": 5.0}),
    *((4, {"hardness_mode": mode, "hardness_strength": 5.0, "scale": 3.0})
      for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")),
    (2, {"hardness_mode": "hard_negatives", "hardness_strength": 5.0}),
    (2, {"hardness_mode": "all_negatives", "hardness_strength": 9.0}),
    (3, {"hardness_mode": "in_batch_negatives", "hardness_strength": 2.0, "directions": ALL_DIRECTIONS}),
]  # fmt: skip


def cases() -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = []
    for n, d in SIZES:
        clip: list[dict[str, Any]] = [
            {"logit_scale": 1.0, "unit": False},
            {"logit_scale": 14.3},
            {"logit_scale": 100.0},
        ]
        table += [{"loss": "ClipLoss", "columns": 2, "n": n, "d": d, **case} for case in clip]
        table += [{"loss": "ClipLoss", "columns": 2, "n": n, "d": d, "logit_scale": 14.3, "logit_bias": -10.0}]
        table += [
            {"loss": "NTXentLoss", "columns": 2, "n": n, "d": d, "options": {"temperature": t}} for t in (0.1, 0.5)
        ]
        # a bank that the batches fill and pass: three steps of 17 or 6 rows into 20 places
        options = {"temperature": 0.2, "memory_bank_size": (20, d)}
        table += [{"loss": "NTXentLoss", "columns": 2, "n": n, "d": d, "options": options, "steps": 3}]
    for i, (columns, options) in enumerate(MNRL):
        for n, d in SIZES[1:] if i % 2 else SIZES[:2]:
            table.append(
                {"loss": "MultipleNegativesRankingLoss", "columns": columns, "n": n, "d": d, "options": options}
            )
    sigmoid = {"loss": "SigLipLoss", "columns": 2, "logit_scale": 10.0, "logit_bias": -10.0}
    table += [{**sigmoid, "n": n, "d": d} for n, d in SIZES]
    table += [{**case, "sizes": [n] * ranks} for ranks, n in ((2, 5), (4, 3)) for case in cases_of_ranks(sigmoid)]
    return [
        json.loads(json.dumps({"seed": seed, "dtype": dtype, **case}))  # as the file gives them back
        for seed, case in enumerate(table)
        for dtype in ("float32", "float64")
    ]


def cases_of_ranks(sigmoid: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cases that run on several ranks, without their sizes; ``sigmoid`` is a case of SigLipLoss."""
    clip = {"loss": "ClipLoss", "columns": 2, "d": 6, "logit_scale": 14.3}
    modes = [{"local_loss": local, "gather_with_grad": grad} for local in (False, True) for grad in (False, True)]
    table: list[dict[str, Any]] = [{**clip, "options": mode} for mode in modes]
    table += [{**clip, "logit_bias": -10.0, "options": {**mode, "cache_labels": True}} for mode in modes]
    table += [{**sigmoid, "d": 6, "options": {"dist_impl": way}} for way in ("bidir", "shift", "reduce", "gather")]
    views = {"loss": "NTXentLoss", "columns": 2, "d": 6}
    for options in ({"temperature": 0.1}, {"temperature": 0.5}):
        table.append({**views, "options": {**options, "gather_distributed": True}})
    # three steps of 10 or 12 rows into 20 places
    options = {"temperature": 0.2, "memory_bank_size": (20, 6), "gather_distributed": True}
    table.append({**views, "options": options, "steps": 3})
    ranking = {"loss": "MultipleNegativesRankingLoss", "d": 6}
    gathered = {"gather_across_devices": True}
    return table + [{**ranking, "columns": columns, "options": {**options, **gathered}} for columns, options in MNRL]


def inputs(case: dict[str, Any], rank: int = 0) -> list[list[Tensor]]:
    """Return for each step the columns of the batch, which require gradients. Row i of all columns belongs together.

    Of a case of several ranks they are the rows of one.
    """
    sizes = case.get("sizes", [case.get("n")])
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    random = np.random.RandomState(case["seed"])
    steps = []
    for _ in range(case.get("steps", 1)):
        shared = random.standard_normal((sum(sizes), case["d"]))
        columns = [shared + random.standard_normal(shared.shape) for _ in range(case["columns"])]
        if case["loss"] in ("ClipLoss", "SigLipLoss") and case.get("unit", True):
            columns = [column / np.linalg.norm(column, axis=1, keepdims=True) for column in columns]
        dtype = getattr(torch, case["dtype"])
        steps.append([torch.tensor(column[rows], dtype=dtype).requires_grad_() for column in columns])
    return steps


def bank(case: dict[str, Any]) -> Tensor | None:
    """Return the initial rows of a memory bank. The library fills it at random, which no seed of ours can repeat."""
    size = case.get("options", {}).get("memory_bank_size")
    if not size:
        return None
    rows = np.random.RandomState(1000 + case["seed"]).standard_normal(size)
    return torch.tensor(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=getattr(torch, case["dtype"]))


class Columns(nn.Module):
    """A sentence encoder whose features are the embeddings."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["embedding"]}


def run(case: dict[str, Any], losses: types.SimpleNamespace, rank: int = 0) -> list[np.ndarray]:
    """Return the losses of all steps, then the last step's gradients at each column and at the logit scale and bias.

    A case of several ranks runs on each of them. ``shares`` are factors of the ranks' losses, 1 without them.
    """
    options = dict(case.get("options", {}))
    if "directions" in options:
        options["directions"] = tuple(options["directions"])
    if "memory_bank_size" in options:
        options["memory_bank_size"] = tuple(options["memory_bank_size"])
    if "similarity_fct" in options:
        options["similarity_fct"] = getattr(losses, options["similarity_fct"])
    scale = torch.tensor(case.get("logit_scale", 1.0), dtype=getattr(torch, case["dtype"]), requires_grad=True)
    extra: list[Tensor] = []
    place = {"rank": rank, "world_size": len(case["sizes"])} if "sizes" in case else {}
    if case["loss"] == "ClipLoss":
        module, extra = losses.ClipLoss(**options, **place), [scale]
        bias = torch.tensor(case["logit_bias"], dtype=scale.dtype) if "logit_bias" in case else None
        forward = lambda x: module(*x, scale, logit_bias=bias, output_dict=True)["contrastive_loss"]  # noqa: E731
    elif case["loss"] == "SigLipLoss":
        bias = torch.tensor(case["logit_bias"], dtype=scale.dtype, requires_grad=True)
        module, extra = losses.SigLipLoss(**options, **place), [scale, bias]
        forward = lambda x: module(*x, scale, bias, output_dict=True)["contrastive_loss"]  # noqa: E731
    elif case["loss"] == "NTXentLoss":
        module = losses.NTXentLoss(**options)
        rows = bank(case)
        if rows is not None:
            (module.memory_bank if hasattr(module, "memory_bank") else module).bank = rows
        forward = lambda x: module(*x)  # noqa: E731
    else:
        module = losses.MultipleNegativesRankingLoss(Columns(), **options)
        forward = lambda x: module([{"embedding": column} for column in x], None)  # noqa: E731
    values = []
    for step in inputs(case, rank):
        loss = forward(step)
        values.append(loss.detach().clone())
        loss = loss * case.get("shares", [1.0] * (rank + 1))[rank]
        gradients = torch.autograd.grad(loss, [*step, *extra])
    return [torch.stack(values).numpy(), *(gradient.numpy() for gradient in gradients)]


@contextlib.contextmanager
def bare_packages(*names: str) -> Iterator[None]:
    """Import packages without running their __init__, so that one module can be imported without the others."""
    for name in names:
        package = types.ModuleType(name)
        parent, _, last = name.rpartition(".")
        where = sys.modules[parent].__path__ if parent else None
        spec = importlib.machinery.PathFinder.find_spec(last if parent else name, where)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"{name} is not installed: see the versions in {FILE.name}")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if any(f"{name}.".startswith(f"{bare}.") for bare in names)]:
            del sys.modules[name]


def originals() -> types.SimpleNamespace:
    with bare_packages("open_clip"):
        clip = importlib.import_module("open_clip.loss")
    with bare_packages("lightly", "lightly.loss", "lightly.models", "lightly.models.modules", "lightly.utils"):
        # lightly.models.utils imports one layer of torchvision, which no loss uses
        sys.modules["torchvision"], layers = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        layers.StochasticDepth = nn.Identity  # type: ignore[attr-defined]
        sys.modules["torchvision.ops"] = layers
        ntxent = importlib.import_module("lightly.loss.ntx_ent_loss").NTXentLoss
        del sys.modules["torchvision"], sys.modules["torchvision.ops"]
    ranking = importlib.import_module("sentence_transformers.sentence_transformer.losses.multiple_negatives_ranking")
    util = importlib.import_module("sentence_transformers.util")
    return types.SimpleNamespace(
        ClipLoss=clip.ClipLoss,
        SigLipLoss=clip.SigLipLoss,
        NTXentLoss=ntxent,
        MultipleNegativesRankingLoss=ranking.MultipleNegativesRankingLoss,
        dot_score=util.dot_score,
    )


def ours() -> types.SimpleNamespace:
    from modalign.losses import drop_ins

    return types.SimpleNamespace(**{name: getattr(drop_ins, name) for name in drop_ins.__all__}, dot_score="dot_score")


def run_all(table: list[dict[str, Any]], library: str) -> list[list[np.ndarray]]:
    """Return the results of all cases, those of several ranks one rank after the other."""
    from losses.drop_in_ranks import run_on_ranks

    losses = originals() if library == "originals" else ours()
    shared = iter(run_on_ranks([case for case in table if "sizes" in case], library)[0])
    return [next(shared) if "sizes" in case else run(case, losses) for case in table]


def read() -> tuple[dict[str, str], list[tuple[dict[str, Any], list[np.ndarray]]]]:
    """Return the versions that made the file, and each case with its results as ``run`` returns them."""
    with np.load(FILE) as file:
        about, flat = json.loads(str(file["about"])), {name: file[name] for name in ("float32", "float64")}
    golden = []
    for case, shapes in zip(about["cases"], about["shapes"], strict=True):
        arrays, values = [], flat[case["dtype"]]
        for shape in shapes:
            arrays.append(values[: math.prod(shape)].reshape(shape))
            values = values[math.prod(shape) :]
        flat[case["dtype"]] = values
        golden.append((case, arrays))
    return about["versions"], golden


def write() -> None:
    table = cases()
    results = run_all(table, "originals")
    about = {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cases": table,
        "shapes": [[array.shape for array in result] for result in results],
    }
    flat = {
        dtype: np.concatenate([array.ravel() for result in results for array in result if array.dtype == dtype])
        for dtype in ("float32", "float64")
    }
    np.savez_compressed(FILE, about=np.array(json.dumps(about)), **flat)
    print(f"{len(table)} cases, {FILE.stat().st_size / 1000:.0f} kB, {about['versions']}")


def check() -> None:
    versions, golden = read()
    table, worst = [case for case, _ in golden], 0.0
    print(f"file: {versions}; here: { {name: importlib.metadata.version(name) for name in PACKAGES} }")
    for (case, stored), live, replaced in zip(golden, run_all(table, "originals"), run_all(table, "ours"), strict=True):
        for other, name in ((stored, "the file"), (replaced, "modalign")):
            error = max(
                float(np.abs(a - b).max() / max(np.abs(a).max(), 1.0)) for a, b in zip(live, other, strict=True)
            )
            error /= np.finfo(case["dtype"]).eps
            worst = max(worst, error)
            if error > 500:  # the tests allow this much in float32
                raise SystemExit(f"{case}: {name} is {error:.0f} roundings away from the library")
    print(f"{len(golden)} cases agree; the worst difference is {worst:.0f} roundings")


if __name__ == "__main__":
    sys.path.insert(0, str(FILE.parents[1]))  # the processes that it starts import it as losses.make_drop_ins
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check() if parser.parse_args().check else write()
