"""What every encoder promises: a row alone decides its output, padding does not count, the seed decides the weights."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from modalign.encoders import CNNConfig, EncoderConfig, MLPConfig, build_encoder

TOKENS = torch.tensor([[3, 1, 7, 2, 5], [4, 4, 1, 0, 0], [6, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
PIXELS = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
INPUTS: dict[str, Tensor] = {
    "mlp": torch.randn(4, 2, 7, generator=torch.Generator().manual_seed(0)),
    "cnn": PIXELS,
    "transformer": TOKENS,
    "bag": TOKENS,
}
KINDS = list(INPUTS)


def config(kind: str, **settings: int) -> EncoderConfig:
    parsed: EncoderConfig = TypeAdapter(EncoderConfig).validate_python({"kind": kind, "width": 8, "dim": 5, **settings})
    return parsed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_outputs_have_dim_features_and_are_finite(kind: str, depth: int) -> None:
    out = build_encoder(config(kind, depth=depth), INPUTS[kind], seed=0)(INPUTS[kind])
    assert out.shape == (4, 5)
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(kind: str) -> None:
    encoder = build_encoder(config(kind), INPUTS[kind], seed=0).double()
    together = encoder(INPUTS[kind])
    alone = torch.cat([encoder(INPUTS[kind][i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_weights_and_nothing_else_does(kind: str) -> None:
    first, same, other = (build_encoder(config(kind), INPUTS[kind], seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(7)
    after = torch.rand(1)
    torch.manual_seed(7)
    build_encoder(config(kind), INPUTS[kind], seed=3)
    assert torch.equal(torch.rand(1), after)
    for (name, value), again in zip(first.named_parameters(), same.parameters(), strict=True):
        assert torch.equal(value, again), name
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["transformer", "bag"])
def test_padding_at_the_end_changes_nothing(kind: str) -> None:
    encoder = build_encoder(config(kind), TOKENS, seed=0).double()
    torch.testing.assert_close(encoder(TOKENS[1:2]), encoder(TOKENS[1:2, :3]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(encoder(TOKENS[2:3]), encoder(TOKENS[2:3, :1]), rtol=1e-12, atol=1e-12)


def test_a_bag_ignores_the_order_of_tokens_and_a_transformer_does_not() -> None:
    for kind, ignores in (("bag", True), ("transformer", False)):
        encoder = build_encoder(config(kind), TOKENS, seed=0).double()
        difference = (encoder(TOKENS[:1]) - encoder(TOKENS[:1].flip(1))).abs().max()
        assert bool(difference < 1e-12) is ignores


def test_an_mlp_of_depth_one_is_affine() -> None:
    encoder = build_encoder(config("mlp", depth=1), INPUTS["mlp"], seed=0).double()
    x, y = INPUTS["mlp"].double(), INPUTS["mlp"].double().flip(0)
    torch.testing.assert_close(encoder(3 * x - 2 * y), 3 * encoder(x) - 2 * encoder(y), rtol=1e-12, atol=1e-12)


def test_pixels_are_mapped_to_plus_minus_one() -> None:
    for kind in ("mlp", "cnn"):
        encoder = build_encoder(config(kind), PIXELS, seed=0).double()
        torch.testing.assert_close(encoder(PIXELS), encoder(PIXELS.double() / 127.5 - 1), rtol=1e-12, atol=1e-12)


def test_inputs_an_encoder_cannot_take_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cnn encoder: the input must be images .* got \(4, 14\); use mlp"):
        build_encoder(config("cnn"), torch.zeros(4, 14))
    with pytest.raises(ValueError, match=r"at least 32 pixels a side for depth 5"):
        build_encoder(config("cnn", depth=5), PIXELS[..., :31])
    for kind in ("transformer", "bag"):
        with pytest.raises(ValueError, match=f"{kind} encoder: the input must be token ids .* torch.float32; use mlp"):
            build_encoder(config(kind), torch.zeros(4, 14))
        with pytest.raises(ValueError, match="the input must be token ids"):
            build_encoder(config(kind), torch.tensor([[-1, 2]]))
    with pytest.raises(ValueError, match="heads must divide width, got 3 and 8"):
        build_encoder(config("transformer", heads=3), TOKENS)
    with pytest.raises(ValueError, match=r"must be \(n, ...\) and not empty, got \(0, 3\)"):
        build_encoder(config("mlp"), torch.zeros(0, 3))


def test_sizes_are_checked() -> None:
    for settings in ({"depth": 0}, {"depth": 11}, {"width": 0}, {"dim": 1.5}, {"heads": 2}, {"width": True}):
        with pytest.raises(ValidationError):
            MLPConfig(kind="mlp", **settings)
    with pytest.raises(ValidationError):
        CNNConfig(kind="cnn", depth=6)
