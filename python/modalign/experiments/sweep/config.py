"""Configuration of a sweep: typed, with every default filled in and every mistake named in one line.

``load`` reads a YAML file into a ``Sweep``; ``dump`` writes one back with nothing left out, and
``load(dump(sweep)) == sweep``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from modalign.encoders.configs import ENCODERS, EncoderConfig
from modalign.experiments.sweep.mistakes import sentence
from modalign.files.documents import read_yaml
from modalign.files.paths import expanded, require_data
from modalign.files.settings import in_words

__all__ = [
    "Case",
    "Loader",
    "Metrics",
    "Projection",
    "Sweep",
    "Training",
    "dump",
    "encoders_of",
    "load",
    "pairs_of",
    "parse",
    "require_comparable",
]

Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]  # a column of int64 holds it
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True, min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Section):
    """A case of a sweep: a data set and the names of its modalities.

    ``data`` holds its registered name and the arguments it is made with, ``modalities`` names for its modalities; by
    default they are those of the data set.
    """

    label: Text
    data: dict[str, object]
    modalities: tuple[Text, ...] | None = None

    @field_validator("data")
    @classmethod
    def _names_a_data_set(cls, data: dict[str, object]) -> dict[str, object]:
        if not isinstance(data.get("name"), str):
            raise ValueError("should hold name, the data set to load")
        return data


class Projection(_Section):
    """Linear heads between the encoders and the alignment term: ``separate`` ones, one ``shared`` by all, or none.

    ``dim`` is their width.
    """

    kind: Literal["none", "separate", "shared"] = "none"
    dim: Count | None = None

    @model_validator(mode="after")
    def _has_a_width(self) -> Projection:
        if self.kind == "none" and self.dim is not None:
            raise ValueError("kind none takes no dim; leave dim out, or choose kind separate or shared")
        if self.kind != "none" and self.dim is None:
            raise ValueError(f"kind {self.kind} needs dim, the width of the projection")
        return self


class Training(_Section):
    """Settings of the training, the same for every run.

    ``labels``: number of training pairs that carry a label, a fraction of them, or null for all. ``clip``: the largest
    gradient norm of a run. ``runs_at_once``: the largest number of runs of a chunk; chunks train side by side, one on
    each core. ``memory_gib``: memory that a chunk may need.
    """

    epochs: Count = 40
    batch_size: Annotated[int, Field(strict=True, ge=2)] = 256
    learning_rate: Positive = 0.002
    weight_decay: NotNegative = 0.01
    temperature: Positive = 0.2
    labels: Count | Positive | None = None
    clip: Positive | None = None
    runs_at_once: Count = 32
    memory_gib: Positive = 1.0
    device: Annotated[str, Field(strict=True, pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"

    @field_validator("labels")
    @classmethod
    def _a_fraction_is_at_most_one(cls, labels: float | None) -> float | None:
        if isinstance(labels, float) and labels > 1:
            raise ValueError("should be a whole number of pairs, a fraction of them from 0 to 1, or null for all")
        return labels


class Metrics(_Section):
    """Alignment of the test pairs: ``k`` neighbours for mutual k-NN, on at most ``pairs`` pairs."""

    k: Count = 10
    pairs: Annotated[int, Field(strict=True, ge=4)] = 4096


class Sweep(_Section):
    """A sweep: every case is trained at every (strength, seed).

    ``strength_kind``: a strength is the alignment term's ``weight``, or its ``gradient_ratio``: the weight is set at
    each step so that the weighted term's gradient at the encoders' outputs is that share of the task's, in norm.
    ``strength_schedule``: over the epochs the strength is ``constant``, ``rising`` from 0 to its value, or ``falling``
    from its value to 0. ``pair_weights``: with more than two modalities, the weight of each pair in the alignment
    term by name, ``1-2``, ``1-3`` ...; 1 for those left out. ``fusion``: a task head on the outputs of all encoders:
    ``none``, a ``probe`` whose loss does not reach the encoders, or ``joint``, whose loss does.
    """

    name: Annotated[str, Field(strict=True, pattern=r"^[\w][\w .-]*$")]
    cases: tuple[Case, ...]
    encoders: tuple[EncoderConfig, ...]
    projection: Projection = Projection()
    strengths: tuple[NotNegative, ...]
    strength_kind: Literal["weight", "gradient_ratio"] = "weight"
    strength_schedule: Literal["constant", "rising", "falling"] = "constant"
    pair_weights: dict[Annotated[str, Field(pattern=r"^[1-9]-[1-9]$")], NotNegative] = {}
    fusion: Literal["none", "probe", "joint"] = "none"
    seeds: tuple[Seed, ...]
    training: Training = Training()
    metrics: Metrics = Metrics()

    @field_validator("encoders", mode="before")
    @classmethod
    def _one_encoder_serves_all_modalities(cls, encoders: object) -> object:
        if isinstance(encoders, Mapping):
            return [encoders, encoders]
        if not isinstance(encoders, (list, tuple)) or len(encoders) < 2:
            raise ValueError("should be one encoder for all modalities or a list of them, one for each")
        return encoders

    @field_validator("seeds", mode="before")
    @classmethod
    def _a_number_of_seeds_counts_from_zero(cls, seeds: object) -> object:
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if not 1 <= seeds <= 10_000:
                raise ValueError("should be a number of seeds from 1 to 10000, or a list of seeds")
            return list(range(seeds))
        if not isinstance(seeds, (list, tuple)):
            raise ValueError("should be a number of seeds or a list of them")
        return seeds

    @field_validator("strengths", "seeds", "cases")
    @classmethod
    def _holds_every_value_once(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if not values:
            raise ValueError("should hold at least one entry")
        names = [value.label if isinstance(value, Case) else value for value in values]
        repeated = [name for i, name in enumerate(names) if name in names[:i]]
        if repeated:
            noun = "label" if isinstance(values[0], Case) else "value"
            raise ValueError(
                f"should hold every {noun} once, and {repeated[0]!r} is there {names.count(repeated[0])} times"
            )
        return values

    @model_validator(mode="after")
    def _a_schedule_has_room_to_rise(self) -> Sweep:
        if self.strength_schedule == "rising" and self.training.epochs < 2:
            raise ValueError(
                "strength_schedule: rising starts from 0, so in 1 epoch every run would have weight 0; choose "
                "training.epochs of 2 or more, or constant"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_can_be_compared(self) -> Sweep:
        # the width of frozen features is known only with the data
        require_comparable(self.projection, [encoder.dim for encoder in self.encoders if encoder.dim is not None])
        return self


def require_comparable(projection: Projection, dims: Sequence[int]) -> None:
    """Check that the alignment term can compare embeddings of these widths; ValueError otherwise."""
    if projection.kind != "separate" and len(set(dims)) > 1:
        raise ValueError(
            f"encoders: projection kind {projection.kind} needs encoders of one dim, but they have "
            f"{' and '.join(map(str, dims))}; make them equal or choose projection "
            f"{{kind: separate, dim: {min(dims)}}}"
        )


def encoders_of(sweep: Sweep, modalities: int) -> tuple[EncoderConfig, ...]:
    """Return one configuration for each modality; ValueError unless there are as many, or one for all."""
    if len(sweep.encoders) == modalities:
        return sweep.encoders
    if all(encoder == sweep.encoders[0] for encoder in sweep.encoders):
        return sweep.encoders[:1] * modalities
    raise ValueError(
        f"encoders must be one for all modalities or one for each of {modalities}, got {len(sweep.encoders)}"
    )


def pairs_of(sweep: Sweep, modalities: int) -> dict[tuple[int, int], float]:
    """Return the weight in the alignment term of each pair of modalities, counted from 0.

    Raises:
        ValueError: If ``pair_weights`` names a pair that does not exist.
    """
    names = {f"{i + 1}-{j + 1}": (i, j) for i, j in itertools.combinations(range(modalities), 2)}
    unknown = [name for name in sweep.pair_weights if name not in names]
    if unknown:
        raise ValueError(f"pair_weights: there is no pair {unknown[0]}; there are {', '.join(names)}")
    return {pair: sweep.pair_weights.get(name, 1.0) for name, pair in names.items()}


def load(path: Path) -> Sweep:
    """Read a configuration from a YAML file.

    Raises:
        ValueError: With one line for each mistake, if the file cannot be read or is no configuration.
    """
    try:
        text = expanded(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file; give the YAML configuration of a sweep") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; give the YAML configuration of a sweep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if text:
        require_data(expanded(path))
    try:
        content = read_yaml(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {_place(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from None
    return parse(content, str(path))


def parse(content: object, source: str = "configuration") -> Sweep:
    """Check a configuration as YAML gives it, and fill in its defaults.

    Args:
        content: The mapping.
        source: Name of the configuration in messages.

    Raises:
        ValueError: With one line for each mistake.
    """
    if content is None:
        raise ValueError(f"{source} is empty; it must hold at least {', '.join(_required(Sweep))}")
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} must hold a mapping with {', '.join(_required(Sweep))}, got {in_words(content)}")
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        mistakes = (f"{source}: {sentence(details, content, SECTIONS)}" for details in error.errors())
        raise ValueError("\n".join(dict.fromkeys(mistakes))) from None


def dump(sweep: Sweep) -> str:
    """Return ``sweep`` as YAML, with every default written out."""
    return yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


class Loader(yaml.SafeLoader):
    """A safe loader of YAML for which 1e-3 is a number, as in YAML 1.2, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} is there twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else problem


# model of every section of the file and of every kind of encoder, for messages; "" is the whole file
SECTIONS: dict[str, type[BaseModel]] = {
    "": Sweep,
    "cases": Case,
    "projection": Projection,
    "training": Training,
    "metrics": Metrics,
    **{kind: entry.config for kind, entry in ENCODERS.items()},
}


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]
