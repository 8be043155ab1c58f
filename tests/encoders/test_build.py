"""Encoders: a row's output depends on that row alone, padding does not count, and the seed decides the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from modalign.encoders import (
    CNNConfig,
    EncoderConfig,
    FrozenConfig,
    MLPConfig,
    ModuleConfig,
    build_encoder,
    is_frozen,
    width_of,
)
from modalign.encoders.configs import ENCODERS, encoders_table

TOKENS = torch.tensor([[3, 1, 7, 2, 5], [4, 4, 1, 0, 0], [6, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
PIXELS = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
STEPS = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
for row, padding in enumerate((0, 2, 5, 6)):  # the last row is padding alone
    STEPS[row, :padding] = 0
INPUTS: dict[str, Tensor] = {
    "mlp": torch.randn(4, 2, 7, generator=torch.Generator().manual_seed(0)),
    "leaky_mlp": torch.randn(4, 2, 7, generator=torch.Generator().manual_seed(0)),
    "cnn": PIXELS,
    "vit": PIXELS,
    "sequence": STEPS,
    "multibench": STEPS,
    "transformer": TOKENS,
    "bag": TOKENS,
}
KINDS = list(INPUTS)


def config(kind: str, **settings: int | str | None) -> EncoderConfig:
    width = {} if kind in ("multibench", "leaky_mlp") else {"width": 8}  # its blocks are as wide as its output
    parsed: EncoderConfig = TypeAdapter(EncoderConfig).validate_python({"kind": kind, **width, "dim": 5, **settings})
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


@pytest.mark.parametrize("kind", KINDS)
def test_layers_end_in_the_output_and_belong_to_their_row(kind: str) -> None:
    encoder = build_encoder(config(kind, depth=3), INPUTS[kind], seed=0).double()
    layers = encoder.every_layer(INPUTS[kind])  # type: ignore[operator]
    assert torch.equal(layers[-1], encoder(INPUTS[kind]))
    assert len(layers) == {"mlp": 3, "multibench": 3, "leaky_mlp": 3}.get(kind, 4)
    alone = encoder.every_layer(INPUTS[kind][1:2])  # type: ignore[operator]
    for layer, one in zip(layers, alone, strict=True):
        assert layer.ndim == 2
        torch.testing.assert_close(layer[1:2], one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("width", [None, 6])
def test_the_amount_and_side_of_padding_change_nothing_for_a_sequence(pooling: str, width: int | None) -> None:
    encoder = build_encoder(config("sequence", width=width, pooling=pooling, depth=3), STEPS, seed=0).double()
    out = encoder(STEPS)
    assert bool(out.isfinite().all())
    torch.testing.assert_close(out[1:2], encoder(STEPS[1:2, 2:]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out[1:2], encoder(STEPS[1:2].roll(-2, 1)), rtol=1e-12, atol=1e-12)
    apart = torch.stack([STEPS[1, 2], *STEPS[1, [0, 0]], *STEPS[1, 3:]])[None]
    torch.testing.assert_close(out[1:2], encoder(apart), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(out[1:2], encoder(STEPS[1:2].flip(1)))  # the order of the steps matters
    assert not torch.allclose(out[1:2], encoder(STEPS[1:2, 3:]))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_row_of_padding_alone_has_gradients_without_nan(pooling: str) -> None:
    encoder = build_encoder(config("sequence", pooling=pooling), STEPS, seed=0)
    encoder(STEPS[3:]).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in encoder.parameters() if p.grad is not None)


def test_a_sequence_without_a_width_has_no_layer_before_its_blocks() -> None:
    narrow, wider = (build_encoder(config("sequence", width=width), STEPS, seed=0) for width in (None, 8))
    added = {name for name, _ in wider.named_parameters()} - {name for name, _ in narrow.named_parameters()}
    assert added == {"into.weight", "into.bias"}


def test_patches_are_squares_of_the_image() -> None:
    """The output of a vision transformer whose blocks do nothing is the mean of its first layer over the patches."""
    images = PIXELS[:, :, :8, :16].double() / 127.5 - 1
    encoder = build_encoder(config("vit", patch=4, depth=1), images, seed=0).double()
    with torch.no_grad():
        for layer in (encoder.blocks[0].attention_out, encoder.blocks[0].mlp_out):  # type: ignore[union-attr, index]
            layer.weight.zero_()
            layer.bias.zero_()
        encoder.positions.zero_()  # type: ignore[operator, union-attr]
    first = encoder.every_layer(images)[0]  # type: ignore[operator]
    patches = [images[:, :, i : i + 4, j : j + 4].flatten(1) for i in (0, 4) for j in (0, 4, 8, 12)]
    expected = torch.stack([encoder.into(patch) for patch in patches]).mean(0)  # type: ignore[operator]
    torch.testing.assert_close(first, expected, rtol=1e-12, atol=1e-12)


def test_a_vision_transformer_sees_where_a_patch_is() -> None:
    for pooling in ("cls", "mean"):
        encoder = build_encoder(config("vit", pooling=pooling, patch=8), PIXELS, seed=0).double()
        assert not torch.allclose(encoder(PIXELS), encoder(PIXELS.roll(8, 3)))


def test_frozen_features_are_the_input() -> None:
    frozen = build_encoder(FrozenConfig(kind="frozen"), STEPS, seed=0)
    assert torch.equal(frozen(STEPS), STEPS.flatten(1))
    assert not list(frozen.parameters())
    assert torch.equal(build_encoder(FrozenConfig(kind="frozen", dim=48), STEPS)(STEPS), STEPS.flatten(1))
    assert width_of(FrozenConfig(kind="frozen"), STEPS) == 48
    pixels = build_encoder(FrozenConfig(kind="frozen"), PIXELS)(PIXELS)
    torch.testing.assert_close(pixels, PIXELS.flatten(1) / 127.5 - 1)
    with pytest.raises(ValueError, match="frozen encoder: dim must be the number of features, 48, or null, got 4"):
        build_encoder(FrozenConfig(kind="frozen", dim=4), STEPS)


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
    for kind in ("mlp", "cnn", "vit"):
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
    for kind, inputs in (("transformer", TOKENS), ("vit", PIXELS), ("sequence", STEPS)):
        with pytest.raises(ValueError, match=f"{kind} encoder: heads must divide width, got 3 and 8"):
            build_encoder(config(kind, heads=3), inputs)
    with pytest.raises(ValueError, match="heads must divide width, got 3 and 8"):
        build_encoder(config("sequence", heads=3, width=None), STEPS)
    with pytest.raises(ValueError, match="vit encoder: patch must divide the sides of the images, got 5 and 32 x 32"):
        build_encoder(config("vit", patch=5), PIXELS)
    with pytest.raises(ValueError, match=r"vit encoder: the input must be images .* 64 pixels a side for patch 64"):
        build_encoder(config("vit", patch=64), PIXELS)
    for wrong in (STEPS[:, 0], STEPS.long()):
        with pytest.raises(ValueError, match=r"sequence encoder: the input must be steps of features \(n, length, d\)"):
            build_encoder(config("sequence"), wrong)
    with pytest.raises(ValueError, match=r"must be \(n, ...\) and not empty, got \(0, 3\)"):
        build_encoder(config("mlp"), torch.zeros(0, 3))


def test_sizes_are_checked() -> None:
    for settings in ({"depth": 0}, {"depth": 11}, {"width": 0}, {"dim": 1.5}, {"heads": 2}, {"width": True}):
        with pytest.raises(ValidationError):
            MLPConfig(kind="mlp", **settings)
    with pytest.raises(ValidationError):
        CNNConfig(kind="cnn", depth=6)


ROWS = torch.randn(9, 5, generator=torch.Generator().manual_seed(3))


def users(function: str, dim: int = 4, frozen: bool = False, **arguments: object) -> ModuleConfig:
    make = function if ":" in function else f"experiments.user_encoders:{function}"
    return ModuleConfig.model_validate(
        {"kind": "module", "make": make, "arguments": arguments, "dim": dim, "frozen": frozen}
    )


def test_a_module_of_the_user_is_built_from_its_arguments_and_seed() -> None:
    one, same, other = (build_encoder(users("perceptron", width=7), ROWS, seed=seed) for seed in (1, 1, 2))
    assert one(ROWS).shape == (9, 4)
    assert next(tuple(p.shape) for p in one.parameters()) == (7, 5)
    assert torch.equal(one(ROWS), same(ROWS))
    assert not torch.equal(one(ROWS), other(ROWS))
    assert one.double()(ROWS).dtype == torch.float64  # rows in the precision of the weights
    assert torch.equal(one.every_layer(ROWS)[-1], one(ROWS))  # type: ignore[operator]
    pixels = build_encoder(users("perceptron"), PIXELS, seed=0)
    torch.testing.assert_close(pixels(PIXELS), pixels(PIXELS / 127.5 - 1))


def test_layers_of_a_module_are_those_of_its_every_layer() -> None:
    tied = build_encoder(users("tied", dim=5), ROWS, seed=0)
    assert [tuple(layer.shape) for layer in tied.every_layer(ROWS)] == [(9, 5), (9, 5)]  # type: ignore[operator]


def test_a_users_function_may_call_build_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function lies in the working folder, as a user's file would."""
    (tmp_path / "mine.py").write_text(
        "from modalign.encoders import MLPConfig, build_encoder\n"
        "def make(example):\n    return build_encoder(MLPConfig(kind='mlp', dim=4), example, seed=5)\n"
    )
    monkeypatch.chdir(tmp_path)
    first, second = (build_encoder(users("mine:make"), ROWS, seed=seed) for seed in (0, 1))
    assert torch.equal(first(ROWS), second(ROWS))


def test_a_frozen_module_is_in_eval_mode() -> None:
    encoder = build_encoder(users("pretrained", frozen=True), ROWS, seed=0)
    assert not encoder.training
    assert torch.equal(encoder(ROWS), encoder(ROWS))
    assert is_frozen(users("pretrained", frozen=True))
    assert not is_frozen(users("perceptron"))


UNUSABLE: list[tuple[ModuleConfig, str]] = [
    (users("no_such_package.models:make"), "'no_such_package.models:make' cannot be imported: ModuleNotFoundError"),
    (users("nobody"), "cannot be imported: AttributeError: .*has no attribute 'nobody'"),
    (users("torch:__version__"), "make 'torch:__version__' must be a function, got a "),
    (users("perceptron", depth=3), r"perceptron\(example, \*\*arguments\) failed: TypeError: .*depth"),
    (users("of_kind", kind="no module"), "of_kind must return a torch.nn.Module, got a list"),
    (users("of_kind", kind="wide"), r"must map \(4, 5\) to \(4, 4\) floats, as dim says, got \(4, 5\) torch.float64"),
    (users("of_kind", kind="counts"), r"to \(4, 4\) floats, as dim says, got \(4,\) torch.int64"),
    (users("of_kind", kind="fails"), r"module fails on rows \(4, 5\): RuntimeError: out of paper$"),
    (users("of_kind", kind="batch norm"), r"holds buffers \(1.running_mean, 1.running_var, .*frozen: true"),
    (users("with_buffer"), r"holds buffers \(mean\), which copies that train at once cannot keep"),
    (users("of_kind", kind="dropout"), r"has dropout \(1\), and a run's numbers may not depend"),
    (users("of_kind", kind="drops"), "gives the same rows other outputs at a second call"),
    (users("of_kind", kind="centres"), "the output of a row of .* changes with the rows beside it"),
    (users("of_kind", kind="centres", frozen=True), "the output of a row of .* changes with the rows beside it"),
    (users("of_kind", kind="branches"), "cannot be called at once by torch.func.vmap: RuntimeError"),
    (users("with_unused"), "does not use spare: take it out"),
    (users("of_other_numbers"), "gives weight other values at each call"),
    (users("nothing_trained"), "has nothing to train; say frozen: true"),
]


@pytest.mark.parametrize(("encoder", "message"), UNUSABLE, ids=[message[:30] for _, message in UNUSABLE])
def test_a_module_that_cannot_be_used_is_refused_in_a_sentence(encoder: ModuleConfig, message: str) -> None:
    for _ in range(2):  # a refusal is not remembered as a pass
        with pytest.raises(ValueError, match=f"^module encoder: .*{message}") as error:
            build_encoder(encoder, ROWS, seed=0)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", ["encoders", "a.b:", ":make", "a b:make", "a:b:c"])
def test_make_names_a_function(make: str) -> None:
    with pytest.raises(ValidationError, match=r"should be package\.module:function"):
        ModuleConfig(kind="module", make=make, dim=4)


def test_the_page_shows_the_registry_of_encoders() -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = page.partition("<!-- encoders_table() -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == encoders_table()


def test_every_kind_of_encoder_can_be_built() -> None:
    inputs = {**INPUTS, "frozen": INPUTS["mlp"], "module": ROWS}
    assert list(inputs) == list(ENCODERS)
    for kind, example in inputs.items():
        encoder = (
            users("perceptron") if kind == "module" else TypeAdapter(EncoderConfig).validate_python({"kind": kind})
        )
        assert build_encoder(encoder, example, seed=0)(example).shape == (len(example), width_of(encoder, example))
