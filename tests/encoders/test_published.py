"""The Transformer of the code of Tjandrasuwita et al. against torch's own blocks, and its dropout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from encoders.published_inputs import rows_of, table_of, weights_of
from modalign.data import TEST, affect
from modalign.encoders import LeakyMLP, MultiBenchConfig, MultiBenchTransformer, build_encoder
from modalign.experiments.sweep.randomness import dropout_seed
from modalign.experiments.sweep.stacked import Layout, Stacked

LENGTHS = torch.tensor([9, 8, 3, 1])
# numbers that the public code gives for the inputs of published_inputs
RECORD = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))


def config(**changes: object) -> MultiBenchConfig:
    return MultiBenchConfig.model_validate({"kind": "multibench", "depth": 3, "dim": 6, **changes})


def padded(features: int = 6) -> Tensor:
    x = torch.randn(4, 9, features, generator=torch.Generator().manual_seed(0))
    x[torch.arange(9)[None] < 9 - LENGTHS[:, None]] = 0
    return x


def built(settings: MultiBenchConfig, x: Tensor) -> MultiBenchTransformer:
    module = build_encoder(settings, x, seed=0)
    assert isinstance(module, MultiBenchTransformer)
    for parameter in module.parameters():  # norms and biases start at 1 and 0
        nn.init.normal_(parameter, std=0.4)
    return module.eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("heads", [1, 2])
def test_layers_are_those_of_torchs_post_norm_encoder_with_padding_on_the_right(pooling: str, heads: int) -> None:
    x = padded()
    module = built(config(pooling=pooling, heads=heads), x)
    right = torch.zeros_like(x)
    for i, n in enumerate(LENGTHS.tolist()):
        right[i, :n] = x[i, 9 - n :]
    steps, mask = module.into(right), torch.arange(9)[None] >= LENGTHS[:, None]
    if module.cls is not None:
        steps = torch.cat([module.cls.expand(4, 1, -1), steps], 1)
        mask = torch.cat([torch.zeros(4, 1, dtype=torch.bool), mask], 1)
    hidden = steps + module.positions
    for block, ours in zip(module.blocks, module.every_layer(x), strict=True):
        theirs = nn.TransformerEncoderLayer(6, heads, 6, batch_first=True)
        theirs.load_state_dict(block.state_dict())
        theirs.train()  # without the fast path, which leaves padding out
        theirs.dropout.p = theirs.dropout1.p = theirs.dropout2.p = theirs.self_attn.dropout = 0.0
        hidden = theirs(hidden, src_key_padding_mask=mask)
        expected = hidden.mean(1) if pooling == "mean" else hidden[:, 0]  # padding counts in the mean
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_steps_of_zeros_are_data_where_nothing_is_padding() -> None:
    x = padded()
    module = built(config(padding=False), x)
    changed = x.clone()
    changed[3, 0] = 1e-3
    assert not torch.equal(module(x)[3], module(changed)[3])
    assert torch.equal(module(x)[0], module(changed)[0])


# counted in the public code
@pytest.mark.parametrize(
    ("width", "depth", "pooling", "length", "count"),
    [
        (20, 3, "mean", 50, 9220),
        (5, 10, "mean", 50, 2280),
        (300, 10, "mean", 50, 5535300),
        (371, 2, "cls", 50, 1816416),
        (36, 10, "cls", 20, 83484),
        (16, 10, "cls", 49, 18048),
    ],
)
def test_it_has_the_parameters_of_the_public_code(
    width: int, depth: int, pooling: str, length: int, count: int
) -> None:
    module = build_encoder(config(depth=depth, dim=width, pooling=pooling), torch.zeros(1, length, width), seed=0)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_blocks_start_from_equal_weights_and_positions_from_a_standard_normal() -> None:
    module = build_encoder(config(dim=40, pooling="cls"), torch.zeros(1, 200, 3), seed=0)
    assert isinstance(module, MultiBenchTransformer)
    states = [block.state_dict() for block in module.blocks]
    assert all(torch.equal(value, states[2][name]) for name, value in states[0].items())
    assert module.positions.std().item() == pytest.approx(1, abs=0.02)


def test_dropout_keeps_the_mean_drops_its_share_and_follows_the_seed_of_the_run() -> None:
    x = padded()
    module = built(config(dropout=0.25), x)
    stacked = Stacked([module, module], Layout(torch.tensor([0, 1]), torch.float32, torch.device("cpu")))
    alone = Stacked([module], Layout(torch.tensor([0]), torch.float32, torch.device("cpu")))
    seeds = [dropout_seed(seed, modality=0, epoch=1, step=2) for seed in (3, 8)]
    both = stacked(x.expand(2, -1, -1, -1), seeds)
    torch.testing.assert_close(both[1:], alone(x[None], seeds[1:]))
    assert not torch.allclose(both[0], both[1])
    torch.testing.assert_close(stacked(x.expand(2, -1, -1, -1))[0], module(x))  # evaluation drops nothing
    masks = module.dropout_masks(400, torch.Generator().manual_seed(0))
    assert [tuple(mask.shape) for mask in masks[:2]] == [(400, 1, 9, 9), (400, 9, 6)]
    assert len(masks) == 4 * 3
    assert torch.cat([mask.flatten() for mask in masks]).double().mean().item() == pytest.approx(0.75, abs=0.005)
    # one masked product has the mean of the product without a mask
    kept = torch.stack([module._dropped(x, [torch.rand(x.shape) > 0.25]) for _ in range(3000)]).mean(0)
    assert (kept - x).abs().max() < 0.15


@pytest.mark.parametrize(
    ("depth", "first", "last"),
    # outputs of the public CustomMLP (commit 20f2286) after torch.manual_seed(depth)
    [
        (1, [-0.01812622882425785, 0.03672339767217636, -0.006373770534992218],
         [0.4330762028694153, -0.03732636198401451, -0.001379086053930223]),
        (3, [-0.0301180612295866, 0.014475256204605103, 0.4131300747394562],
         [0.049904514104127884, -0.008898940868675709, -0.02096600830554962]),
    ],
)  # fmt: skip
def test_the_mlp_of_the_public_code_has_a_nonlinearity_after_every_layer(
    depth: int, first: list[float], last: list[float]
) -> None:
    torch.manual_seed(depth)
    module = LeakyMLP(12, depth, 12)
    layers = module.every_layer(torch.linspace(-2, 2, 60).reshape(5, 12))
    assert len(layers) == depth
    assert layers[-1][0, :3].tolist() == pytest.approx(first, abs=1e-6)
    assert layers[-1][4, :3].tolist() == pytest.approx(last, abs=1e-6)


def test_layers_are_those_of_the_public_code_for_the_same_weights() -> None:
    x, _ = rows_of()
    for pooling, layers in RECORD["transformer"].items():
        module = build_encoder(config(pooling=pooling), x, seed=0)
        module.load_state_dict(weights_of({name: tuple(value.shape) for name, value in module.state_dict().items()}))
        for ours, theirs in zip(module.every_layer(x), layers, strict=True):  # type: ignore[operator]
            torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-5, atol=1e-5)


def test_sequences_are_those_of_the_public_code_with_padding_on_the_other_side(tmp_path: Path) -> None:
    (tmp_path / "mosi_data.pkl").write_bytes(pickle.dumps(table_of()))
    data = affect(tmp_path / "mosi_data.pkl", "mosi", ("vision", "audio", "text"), standardise="multibench").part(TEST)
    for x, (name, theirs) in zip((data.x, data.y, *data.more), RECORD["affect"].items(), strict=True):
        for row, length, first in zip(x, theirs["lengths"], theirs["first_step"], strict=True):
            assert not row[: 50 - length].any(), name
            torch.testing.assert_close(row[50 - length], torch.tensor(first), rtol=1e-5, atol=1e-5)
