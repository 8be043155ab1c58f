"""chunked_forward gives the loss and gradients of the whole batch with the activations of one chunk."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import modalign
from modalign.losses.chunked import chunked_forward
from tolerances import TOLERANCE, assert_close

N, D = 10, 6


class Pooled(NamedTuple):
    rows: Tensor
    norms: Tensor


def encoder(dropout: float = 0.0, dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Sequential(
        nn.Linear(D, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, 5)
    ).to(dtype)  # fmt: skip


def run(model: nn.Module, embed: Callable[[Tensor], Tensor], data: Tensor) -> list[Tensor]:
    """Return the loss and the gradients of parameters and inputs, for a loss that couples all rows."""
    model.zero_grad()
    inputs = data.clone().requires_grad_()
    x = embed(inputs)
    loss = modalign.info_nce(x.to(data.dtype), x.to(data.dtype).roll(1, 0), temperature=0.3)
    loss.backward()
    grads = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    assert inputs.grad is not None
    return [loss.detach(), *grads, inputs.grad]


def assert_same(actual: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    assert len(actual) == len(expected)
    for i, (got, wanted) in enumerate(zip(actual, expected, strict=True)):
        assert_close(got, wanted, float(wanted.abs().max()), TOLERANCE[dtype].gradient, f"result {i}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 3, 5, 9, 10, 1000])
def test_chunks_change_neither_loss_nor_gradients(chunk_size: int, dtype: torch.dtype) -> None:
    model, data = encoder(dtype=dtype), torch.randn(N, D, dtype=dtype)
    assert_same(run(model, lambda x: chunked_forward(model, x, chunk_size=chunk_size), data),
                run(model, model, data), dtype)  # fmt: skip


@pytest.mark.parametrize("chunk_size", [N, N + 1])
def test_one_chunk_has_the_dropout_masks_of_the_whole_batch(chunk_size: int) -> None:
    model, data = encoder(dropout=0.5), torch.randn(N, D, dtype=torch.float64)
    torch.manual_seed(7)
    expected = run(model, model, data)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    actual = run(model, lambda x: chunked_forward(model, x, chunk_size=chunk_size), data)
    assert all(torch.equal(got, wanted) for got, wanted in zip(actual, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), after)  # running twice leaves no trace in the random stream


@pytest.mark.parametrize("chunk_size", [1, 4, 7])
def test_the_second_pass_draws_the_masks_of_the_first(chunk_size: int) -> None:
    """The results equal those of the same chunks with activations kept, to the last bit."""
    model, data = encoder(dropout=0.5), torch.randn(N, D, dtype=torch.float64)
    torch.manual_seed(7)
    expected = run(model, lambda x: torch.cat([model(chunk) for chunk in x.split(chunk_size)]), data)
    torch.manual_seed(7)
    actual = run(model, lambda x: chunked_forward(model, x, chunk_size=chunk_size), data)
    assert all(torch.equal(got, wanted) for got, wanted in zip(actual, expected, strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_second_pass_has_the_autocast_of_the_first(dropout: float) -> None:
    model, data = encoder(dropout, torch.float32), torch.randn(N, D)

    def embed(x: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
        torch.manual_seed(7)
        with torch.autocast("cpu", torch.bfloat16):
            out = forward(x)
        assert out.dtype == torch.bfloat16
        return out

    expected = run(model, lambda x: embed(x, lambda x: torch.cat([model(chunk) for chunk in x.split(4)])), data)
    actual = run(model, lambda x: embed(x, lambda x: chunked_forward(model, x, chunk_size=4)), data)
    # one bfloat16 sum over chunks may run in another order
    assert_same(actual, expected, torch.bfloat16)


def test_every_chunk_runs_twice_with_gradients_and_once_without() -> None:
    model, data = encoder(), torch.randn(N, D, dtype=torch.float64)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.no_grad():
        embeddings = chunked_forward(model, data, chunk_size=4)
    assert sizes == [4, 4, 2]
    assert not embeddings.requires_grad
    sizes.clear()
    chunked_forward(model, data, chunk_size=4).sum().backward()
    assert sizes == [4, 4, 2, 2, 4, 4]


def test_between_the_passes_only_inputs_and_embeddings_are_kept() -> None:
    def kept(embed: Callable[[Tensor], Tensor]) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embed(data).square().sum()  # the square keeps the embeddings, as a loss would
        return total

    model, data = encoder(), torch.randn(N, D, dtype=torch.float64)
    assert kept(lambda x: chunked_forward(model, x, chunk_size=3)) == N * 5
    assert kept(model) > N * (D + 3 * 32 + 5)


def test_structures_are_split_and_joined() -> None:
    model = encoder()
    tokens, mask = torch.randn(N, D, dtype=torch.float64), torch.ones(N, 1, dtype=torch.float64)

    def embed(batch: dict[str, Any], pair: tuple[Tensor, list[Tensor]], scale: float, nothing: None) -> dict[str, Any]:
        assert nothing is None
        rows = model(batch["tokens"] * batch["mask"]) * scale + pair[0] + pair[1][0]
        return {"rows": rows, "more": Pooled(rows, rows.norm(dim=1)), "twice": [rows, (rows,)]}

    arguments = ({"tokens": tokens, "mask": mask}, (mask, [mask]), 0.5, None)
    whole, chunked = embed(*arguments), chunked_forward(embed, *arguments, chunk_size=4)
    assert isinstance(chunked["more"], Pooled)
    assert isinstance(chunked["twice"][1], tuple)
    for got, wanted in (
        (chunked["rows"], whole["rows"]),
        (chunked["more"].norms, whole["more"].norms),
        (chunked["twice"][0], whole["rows"]),
        (chunked["twice"][1][0], whole["rows"]),
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_no_rows_are_one_empty_chunk() -> None:
    assert chunked_forward(encoder(), torch.empty(0, D, dtype=torch.float64), chunk_size=4).shape == (0, 5)


@pytest.mark.parametrize(
    ("encode", "inputs", "chunk_size", "error", "message"),
    [
        (torch.sin, (torch.ones(4, 2),), 0, ValueError, "chunk_size must be at least 1, got 0"),
        (torch.sin, (torch.ones(4, 2),), 2.0, TypeError, "chunk_size must be an integer, got 2.0"),
        (torch.sin, (torch.ones(4, 2),), True, TypeError, "chunk_size must be an integer, got True"),
        (torch.sin, ("text", None), 2, ValueError, "hold no tensor to split"),
        (torch.sin, (), 2, ValueError, "hold no tensor to split"),
        (
            torch.add,
            (torch.ones(4, 2), torch.ones(3, 2)),
            2,
            ValueError,
            r"one number of rows, .* \[\(4, 2\), \(3, 2\)",
        ),
        (torch.add, (torch.ones(4, 2), torch.tensor(1.0)), 2, ValueError, r"needs rows .* \[\(4, 2\), \(\)\]"),
        (torch.mean, (torch.ones(4, 2),), 2, ValueError, r"each of its 2 input rows, got shape \(\)"),
        (lambda x: x[:1], (torch.ones(4, 2),), 2, ValueError, r"each of its 2 input rows, got shape \(1, 2\)"),
        (lambda x: {"rows": x, "name": "x"}, (torch.ones(4, 2),), 2, TypeError, "tuple or list of tensors, got str"),
        (lambda _: None, (torch.ones(4, 2),), 2, TypeError, "tuple or list of tensors, got NoneType"),
    ],
)
def test_mistakes_are_named(
    encode: Callable[..., Any], inputs: tuple[Any, ...], chunk_size: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        chunked_forward(encode, *inputs, chunk_size=chunk_size)


PEAK = """
import pathlib, re, sys
import torch, modalign
from modalign.losses.chunked import chunked_forward
torch.set_num_threads(1)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
width, chunk_size = 4096, int(sys.argv[1])
model = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.GELU(), torch.nn.Tanh(), torch.nn.Linear(width, 8))
def step(n):
    x = chunked_forward(model, torch.randn(n, 8), chunk_size=chunk_size)
    modalign.info_nce(x, x.roll(1, 0), workspace=0).backward()
step(64)  # a first call loads libraries, which the measurement leaves out
base = peak()
step(2048)
print(peak() - base)
"""


def test_peak_memory_follows_the_chunk() -> None:
    """In a fresh process, where a layer's activations are 32 MB for the batch and 1 MB for a chunk."""
    # glibc returns freed blocks above 32 MB to the system; here smaller ones too, so that the peak measures memory in
    # use and not the fragmentation of the heap
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}

    def measured(chunk_size: int) -> float:
        command = [sys.executable, "-c", PEAK, str(chunk_size)]
        return float(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300).stdout)

    assert measured(64) < 8
    assert measured(2048) > 3 * 32
