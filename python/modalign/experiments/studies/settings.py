"""Settings of a study: the fields of its grid, whose annotations hold what a value may be and what it means.

A grid is a frozen dataclass whose fields are annotated as ``Annotated[Count, "Epochs of training."]`` and whose
``__post_init__`` calls ``check_settings``. The command line, its help and the docs read the same annotations.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from modalign.common.names import suggestion
from modalign.files.settings import in_words

__all__ = [
    "Count",
    "Decay",
    "Depth",
    "Device",
    "Different",
    "Positive",
    "Rate",
    "Seed",
    "Several",
    "changed",
    "check_settings",
    "require_device",
    "setting_names",
    "settings_rows",
    "settings_table",
    "shown",
]

T = TypeVar("T")
DEVICES = r"^(cpu|cuda(:\d+)?)$"
OPTIONS = ("protocol", "device")  # fields of a grid that have an option of their own
LISTED = 6  # the most values of a list of neighbours that are written out


def _different(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value is there twice")
    return values


Count = Annotated[int, Field(ge=1)]
Depth = Annotated[int, Field(ge=1, le=10)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]  # of every generator, with room for what protocols add
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Device = Annotated[str, Field(pattern=DEVICES)]
Different = Annotated[tuple[T, ...], AfterValidator(_different)]
Several = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_different)]


def check_settings(study: str, grid: Any) -> None:
    """Check every field of a grid by its annotation, and fields that limit each other; a list becomes a tuple.

    ValueError in one line otherwise.
    """
    for name, kind in _kinds(type(grid)).items():
        value = getattr(grid, name)
        value = tuple(value) if isinstance(value, (list, range)) else value
        try:
            object.__setattr__(grid, name, TypeAdapter(kind).validate_python(value, strict=True))
        except ValidationError:
            default = next(field.default for field in dataclasses.fields(grid) if field.name == name)
            such = f", such as {shown(default[:3])}" if isinstance(default, tuple) else ""
            raise ValueError(f"{study}: {name} must be {_wanted(kind)}{such}, got {shown(value)}") from None
    if hasattr(grid, "device"):
        require_device(f"{study}: device", grid.device)
    if hasattr(grid, "trials_at_once") and grid.trials_at_once > grid.trials:
        raise ValueError(f"{study}: trials_at_once must be from 1 to {grid.trials}, got {grid.trials_at_once}")
    if hasattr(grid, "compared") and grid.k >= grid.compared:
        raise ValueError(
            f"{study}: k must be less than compared, the pairs compared, got k={grid.k} and compared={grid.compared}"
        )


def require_device(name: str, device: str) -> None:
    """Check that ``device`` names the CPU or a GPU that torch sees. ``name`` is for messages."""
    import torch

    if not re.fullmatch(DEVICES, device):
        raise ValueError(f"{name} must be cpu, cuda or cuda:0, cuda:1 ..., got {device}")
    _, _, number = device.partition(":")
    if device != "cpu" and int(number or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        known = f"only cuda:0 to cuda:{count - 1}" if count else "no GPU"
        raise ValueError(f"{name} {device}: torch sees {known} here; leave it out, or see `modalign doctor`")


def changed(grid: Any, settings: Mapping[str, object]) -> Any:
    """Return a grid with other settings.

    Raises ValueError for a name that is no setting of it, or a value that a setting does not take.
    """
    names = setting_names(type(grid))
    for name in settings:
        if name in OPTIONS and hasattr(grid, name):
            raise ValueError(f"setting {name}: use --{name} (in Python, StudyOptions({name}=...))")
        if name not in names:
            raise ValueError(f"setting must be one of {', '.join(names)}, got {name!r}{suggestion(name, names)}")
    return dataclasses.replace(grid, **settings) if settings else grid


def setting_names(kind: type) -> list[str]:
    """Return the names of the settings of a kind of grid: its fields that have no option of their own."""
    return [name for name in _kinds(kind) if name not in OPTIONS]


def settings_rows(grids: Mapping[str, tuple[Any, Any]]) -> list[tuple[str, ...]]:
    """Return a row for each setting: its name, what it takes, its value by each protocol, and what it means.

    grids: for each protocol the whole grid and the small one. A value that --full changes stands with the other.
    """
    kind = type(next(iter(grids.values()))[0])
    rows = []
    for name in setting_names(kind):
        values = []
        for full, quick in grids.values():
            small, whole = (shown(getattr(grid, name)) for grid in (quick, full))
            values.append(small if small == whole else f"{small}; {whole} with --full")
        rows.append((name, _wanted(_kinds(kind)[name]), *values, _meaning(_kinds(kind)[name])))
    return rows


def settings_table(grids: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the Markdown table of the settings of a study that docs/experiments.md shows."""
    columns = ("setting", "is", *(f"`--protocol {protocol}`" for protocol in grids), "meaning")
    rows = [(f"`{name}`", *cells) for name, *cells in settings_rows(grids)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def shown(value: object) -> str:
    """Return a value as ``--setting`` takes it; the middle of a long list of neighbours is left out.

    Examples:
        >>> from modalign.experiments.studies.settings import shown
        >>> shown((2, 22)), shown(tuple(range(9))), shown(None), shown("uni")
        ('[2, 22]', '[0, 1, ..., 8]', 'null', 'uni')
    """
    if isinstance(value, (list, tuple)):
        texts = [shown(one) for one in value]
        steps = {b - a for a, b in itertools.pairwise(value) if isinstance(a, int) and isinstance(b, int)}
        if len(value) > LISTED and len(steps) == 1:
            texts = [*texts[:2], "...", texts[-1]]
        return f"[{', '.join(texts)}]"
    if isinstance(value, str):
        return value if value.isidentifier() else repr(value)
    return f"{value:g}" if isinstance(value, float) else in_words(value)


def _kinds(grid: type) -> dict[str, Any]:
    return get_type_hints(grid, include_extras=True)


def _meaning(kind: Any) -> str:
    return next(note for note in get_args(kind)[1:] if isinstance(note, str))


def _wanted(kind: Any) -> str:
    """Return what a value of an annotation is, such as "a whole number of at least 1"."""
    kind, limits = _base_and_limits(kind)
    if get_origin(kind) in (Union, UnionType):
        inner = next(one for one in get_args(kind) if one is not NoneType)
        return f"{_wanted(inner)}, or null"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        inner, of_inner = _base_and_limits(get_args(kind)[0])
        number = f"{limits['min_length']} or more " if "min_length" in limits else ""
        return f"a list of {number}different {_noun(inner, many=True)}{_range(of_inner)}"
    return f"{_noun(kind)}{_range(limits)}"


def _base_and_limits(kind: Any) -> tuple[Any, dict[str, Any]]:
    """Return the type inside an annotation, and the limits of its pydantic fields."""
    if get_origin(kind) is not Annotated:
        return kind, {}
    base, *notes = get_args(kind)
    held = [limit for note in notes if isinstance(note, FieldInfo) for limit in note.metadata]
    names = ("ge", "gt", "le", "min_length")
    return base, {name: getattr(limit, name) for limit in held for name in names if hasattr(limit, name)}


def _noun(kind: Any, *, many: bool = False) -> str:
    if get_origin(kind) is Literal:
        return f"words of {', '.join(get_args(kind))}"
    nouns = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}
    return nouns[kind][many] if kind in nouns else "cpu, cuda or cuda:0, cuda:1 ..."


def _range(limits: Mapping[str, Any]) -> str:
    if "le" in limits and "ge" in limits:
        return f" from {limits['ge']} to {limits['le']}"
    if "gt" in limits:
        return f" above {limits['gt']}{f', at most {most}' if (most := limits.get('le')) else ''}"
    return f" of at least {limits['ge']}" if "ge" in limits else ""
