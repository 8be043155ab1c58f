"""Configurations of encoders, and the registry of their kinds.

``ENCODERS`` is the only list of kinds: the type ``EncoderConfig``, ``build_encoder``, the messages about a
configuration's mistakes and the table in docs/experiments.md derive from it. No torch is imported here, so that a
configuration is read, and its mistakes are named, at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

__all__ = [
    "ENCODERS",
    "BagConfig",
    "CNNConfig",
    "EncoderConfig",
    "EncoderKind",
    "FrozenConfig",
    "LeakyMLPConfig",
    "MLPConfig",
    "ModuleConfig",
    "MultiBenchConfig",
    "SequenceConfig",
    "TransformerConfig",
    "ViTConfig",
    "encoders_table",
    "is_frozen",
]

Size = Annotated[int, Field(strict=True, ge=1, le=65536)]
Depth = Annotated[int, Field(strict=True, ge=1, le=10)]
Pooling = Literal["cls", "mean"]


class _Config(BaseModel):
    """Base of all configurations. ``dim`` is the number of features that the encoder gives for a row."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    if TYPE_CHECKING:  # each configuration declares them, in its own order
        kind: str
        dim: int | None


class MLPConfig(_Config):
    """``depth`` linear layers with LeakyReLU between them: depth 1 is linear, depth 2 has one hidden layer."""

    kind: Literal["mlp"]
    width: Size = 32
    depth: Depth = 2
    dim: Size = 32


class LeakyMLPConfig(_Config):
    """``depth`` layers of ``dim`` units, each followed by LeakyReLU of slope 0.1: that of Tjandrasuwita et al."""

    kind: Literal["leaky_mlp"]
    depth: Depth = 2
    dim: Size = 32


class CNNConfig(_Config):
    """``depth`` stages that halve the image, of width, 2 width, 4 width, ... channels, then the mean over positions."""

    kind: Literal["cnn"]
    width: Size = 16
    depth: Annotated[int, Field(strict=True, ge=1, le=5)] = 3
    dim: Size = 32


class ViTConfig(_Config):
    """``depth`` pre-norm blocks over the ``patch`` x ``patch`` pieces of an image; ``pooling`` as of ``sequence``."""

    kind: Literal["vit"]
    patch: Size = 4
    width: Size = 32
    depth: Depth = 2
    heads: Size = 2
    pooling: Pooling = "mean"
    dim: Size = 32


class SequenceConfig(_Config):
    """``depth`` pre-norm blocks over steps of features; a step of zeros is padding, on whichever side it stands.

    ``width``: null takes the features as they are, a number puts a linear layer before the blocks. ``pooling``: the
    ``mean`` over the steps that are not padding, or ``cls``, a learned step put before them.
    """

    kind: Literal["sequence"]
    width: Size | None = None
    depth: Depth = 2
    heads: Size = 1
    pooling: Pooling = "mean"
    dim: Size = 32


class MultiBenchConfig(_Config):
    """``depth`` post-norm blocks of width ``dim`` over steps of features, as in the code of Tjandrasuwita et al. 2025.

    ``pooling``: the ``mean`` over all steps, padding included, or ``cls``, a learned step put before them. ``padding``:
    whether steps of zeros before the first other one are padding. ``dropout``: share of values set to 0 in training.
    """

    kind: Literal["multibench"]
    depth: Depth = 2
    heads: Size = 1
    pooling: Pooling = "mean"
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    padding: Annotated[bool, Field(strict=True)] = True
    dim: Size = 32


class TransformerConfig(_Config):
    """``depth`` pre-norm blocks of ``heads`` attention heads, then the mean over tokens that are not padding."""

    kind: Literal["transformer"]
    width: Size = 32
    depth: Depth = 2
    heads: Size = 2
    dim: Size = 32


class BagConfig(_Config):
    """The mean embedding of the tokens that are not padding, then an MLP of ``depth`` linear layers."""

    kind: Literal["bag"]
    width: Size = 32
    depth: Depth = 2
    dim: Size = 32


class FrozenConfig(_Config):
    """The input itself: nothing is trained but heads and projections. ``dim`` is its width; null: as it comes."""

    kind: Literal["frozen"]
    dim: Size | None = None


class ModuleConfig(_Config):
    """The module that ``make``, ``package.module:function``, returns for (example, **arguments): (n, ...) -> (n, dim).

    ``example``: every row of the modality. ``frozen``: it is called in eval mode and not trained.
    """

    kind: Literal["module"]
    make: str
    arguments: dict[str, JsonValue] = {}
    dim: Size
    frozen: Annotated[bool, Field(strict=True)] = False

    @field_validator("make")
    @classmethod
    def _names_a_function(cls, make: str) -> str:
        place, _, function = make.partition(":")
        if not all(part.isidentifier() for part in (*place.split("."), *function.split("."))):
            raise ValueError("should be package.module:function, the function that makes the module")
        return make


@dataclass(frozen=True)
class EncoderKind:
    """A kind of encoder.

    Args:
        config: Its configuration; the fields are its settings.
        maker: "module:function" of a function that takes (config, example), checks that the example fits, and returns
            a function without arguments that makes the module.
        takes: The input it takes, for the documentation.
    """

    config: type[_Config]
    maker: str
    takes: str


ENCODERS: dict[str, EncoderKind] = {
    "mlp": EncoderKind(MLPConfig, "modalign.encoders.build:prepare_mlp", "any numbers (n, ...), flattened"),
    "leaky_mlp": EncoderKind(
        LeakyMLPConfig, "modalign.encoders.build:prepare_leaky_mlp", "any numbers (n, ...), flattened"
    ),
    "cnn": EncoderKind(CNNConfig, "modalign.encoders.build:prepare_cnn", "images (n, channels, h, w), uint8 or float"),
    "vit": EncoderKind(ViTConfig, "modalign.encoders.build:prepare_vit", "images, whose sides the patch divides"),
    "sequence": EncoderKind(
        SequenceConfig,
        "modalign.encoders.build:prepare_sequence",
        "steps of features (n, length, d), 0 is padding",
    ),
    "multibench": EncoderKind(
        MultiBenchConfig,
        "modalign.encoders.build:prepare_multibench",
        "steps of features (n, length, d), 0 on the left is padding",
    ),
    "transformer": EncoderKind(
        TransformerConfig, "modalign.encoders.build:prepare_transformer", "token ids (n, length), 0 is padding"
    ),
    "bag": EncoderKind(BagConfig, "modalign.encoders.build:prepare_bag", "token ids (n, length), 0 is padding"),
    "frozen": EncoderKind(FrozenConfig, "modalign.encoders.build:prepare_frozen", "any numbers (n, ...), as they are"),
    "module": EncoderKind(
        ModuleConfig, "modalign.encoders.user_modules:prepare_module", "the rows that your function's module takes"
    ),
}

if TYPE_CHECKING:
    EncoderConfig = _Config
else:
    EncoderConfig = Annotated[
        Union[tuple(entry.config for entry in ENCODERS.values())],  # noqa: UP007  (made from the registry)
        Field(discriminator="kind"),
    ]


def is_frozen(config: EncoderConfig) -> bool:
    """Return True if nothing of the encoder is trained."""
    return isinstance(config, FrozenConfig) or (isinstance(config, ModuleConfig) and config.frozen)


def encoders_table() -> str:
    """Return the kinds with their inputs and settings as a Markdown table.

    Examples:
        >>> from modalign.encoders.configs import encoders_table
        >>> print(encoders_table().splitlines()[2])
        | `mlp` | any numbers (n, ...), flattened | `width` 32, `depth` 2 (1 to 10), `dim` 32 |
    """
    rows = ["| kind | input | settings and defaults |", "|---|---|---|"]
    for kind, entry in ENCODERS.items():
        settings = ", ".join(_setting(entry.config, name) for name in entry.config.model_fields if name != "kind")
        rows.append(f"| `{kind}` | {entry.takes} | {settings} |")
    return "\n".join(rows)


def _setting(config: type[_Config], name: str) -> str:
    field = config.model_fields[name]
    if field.is_required():
        return f"`{name}` (required)"
    shown = _shown(field.default)
    low, high = (
        next((getattr(limit, bound) for limit in field.metadata if hasattr(limit, bound)), None)
        for bound in ("ge", "le")
    )
    # sizes up to 65,536 have no limit that anyone meets
    limits = f" ({low} to {high})" if high is not None and high != 65536 else ""
    others = [value for value in get_args(field.annotation) if get_origin(field.annotation) is Literal]
    choices = f" (or {', '.join(value for value in others if value != field.default)})" if others else ""
    return f"`{name}` {shown}{limits}{choices}"


def _shown(value: object) -> str:
    """Return a default as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", False: "false", True: "true"}[value]
    return str(value)
