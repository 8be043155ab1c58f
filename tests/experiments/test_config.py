"""A configuration is read whole, written whole, and every mistake in it is named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.small import TINY, configuration, settings
from modalign.encoders.configs import ENCODERS
from modalign.experiments.sweep.config import Sweep, dump, load, parse
from modalign.files.settings import differences

CONFIGS = sorted((Path(load.__code__.co_filename).parents[1] / "configs").glob("*.yaml"))


def test_what_is_written_is_read_back_and_nothing_is_left_out() -> None:
    sweep = configuration()
    written = yaml.safe_load(dump(sweep))
    assert parse(written) == sweep
    assert written["training"].keys() == type(sweep.training).model_fields.keys()
    assert written["encoders"] == [{"kind": "mlp", "width": 7, "depth": 2, "dim": 5}] * 2


def test_a_number_of_seeds_counts_from_zero() -> None:
    assert configuration(seeds=3).seeds == (0, 1, 2)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(TINY).replace("epochs: 3", "epochs: 3\n  learning_rate: 2e-3"))
    assert load(path).training.learning_rate == 0.002


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_packaged_configurations_are_read(path: Path) -> None:
    sweep = load(path)
    assert sweep.name == path.stem
    assert len(sweep.seeds) >= 5
    assert sweep.strengths[0] == 0


def changes(before: Sweep, now: Sweep) -> list[str]:
    return differences(before.model_dump(mode="json"), now.model_dump(mode="json"))


def test_encoders_of_every_kind_are_written_and_read_back() -> None:
    module = {"kind": "module", "make": "torch.nn:Linear", "arguments": {"a": [1, {"b": None}]}, "dim": 4}
    for encoder in ({"kind": "sequence", "dim": 4}, {"kind": "vit", "dim": 4}, {"kind": "frozen"}, module):
        sweep = configuration(encoders=encoder)
        assert parse(yaml.safe_load(dump(sweep))) == sweep
    other = configuration(encoders={**module, "arguments": {"a": [2]}})
    assert "arguments" in changes(configuration(encoders=module), other)[0]


def test_there_are_packaged_configurations() -> None:
    assert {path.stem for path in CONFIGS} >= {"synthetic", "emoji"}


ENCODER = {"kind": "mlp", "dim": 4}
KINDS = ", ".join(ENCODERS)
CASE: dict[str, Any] = {"label": "a", "data": {"name": "synthetic"}}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"strenghts": [0]}, "strenghts: unknown key; did you mean strengths?"),
    ({"training": {"epoch": 3}}, "training.epoch: unknown key; did you mean epochs?"),
    ({"metrics": {"neighbours": 3}}, "metrics.neighbours: unknown key; known here: k, pairs"),
    ({"encoders": {"kind": "mlp", "widht": 8}}, "encoders.widht: unknown key; did you mean width?"),
    ({"encoders": [ENCODER, {**ENCODER, "detph": 1}]}, "encoders[1].detph: unknown key; did you mean depth?"),
    ({"encoders": {"kind": "mpl"}}, f"encoders.kind: should be one of {KINDS}, got 'mpl'; did you mean mlp?"),
    ({"encoders": {"kind": "sequence", "poling": "cls"}}, "encoders.poling: unknown key; did you mean pooling?"),
    ({"encoders": {"kind": "vit", "pooling": "max"}}, "encoders.pooling: should be 'cls' or 'mean', got 'max'"),
    ({"encoders": {"kind": "module", "dim": 4}}, "encoders.make: is required, and is not there"),
    ({"encoders": {"kind": "module", "make": "a:b"}}, "encoders.dim: is required, and is not there"),
    (
        {"encoders": {"kind": "module", "make": "mine.py", "dim": 4}},
        "encoders.make: should be package.module:function, the function that makes the module, got 'mine.py'",
    ),
    ({"encoders": [ENCODER, {"kind": "frozen", "dim": 5}]}, "encoders: projection kind none needs encoders of one"),
    ({"encoders": [ENCODER]}, "encoders: should be one encoder for all modalities or a list of them, one for each"),
    ({"encoders": {"kind": "mlp", "depth": 11}}, "encoders.depth: should be at most 10, got 11"),
    ({"encoders": [ENCODER, {"kind": "mlp", "dim": 5}]}, "encoders: projection kind none needs encoders of one dim"),
    ({"strengths": [0, -0.5]}, "strengths[1]: should be at least 0, got -0.5"),
    ({"strengths": [0, 1, 0.0]}, "strengths: should hold every value once, and 0.0 is there 2 times"),
    ({"strengths": [float("inf")]}, "strengths[0]: should be a finite number, got inf"),
    ({"strengths": [float("nan")]}, "strengths[0]: should be a finite number, got nan"),
    ({"strengths": []}, "strengths: should hold at least one entry, got []"),
    ({"strengths": 1}, "strengths: should be a list, got 1"),
    ({"strengths": [True]}, "strengths[0]: should be a number, got true"),
    ({"seeds": [1, 1]}, "seeds: should hold every value once, and 1 is there 2 times"),
    ({"seeds": 0}, "seeds: should be a number of seeds from 1 to 10000, or a list of seeds, got 0"),
    ({"seeds": [-1]}, "seeds[0]: should be at least 0, got -1"),
    ({"seeds": [10**20]}, "seeds[0]: should be at most 9223372036854775807, got 100000000000000000000"),
    (
        {"strength_schedule": "rising", "training": {"epochs": 1}},
        "strength_schedule: rising starts from 0, so in 1 epoch every run would have weight 0; choose "
        "training.epochs of 2 or more, or constant",
    ),
    ({"seeds": [0.5]}, "seeds[0]: should be a whole number, got 0.5"),
    ({"training": {"labels": 0}}, "training.labels: should be a whole number of pairs, a fraction of them"),
    ({"training": {"labels": 1.5}}, "training.labels: should be a whole number of pairs, a fraction of them"),
    ({"training": {"labels": "all"}}, "training.labels: should be a whole number of pairs, a fraction of them"),
    ({"training": {"temperature": 0}}, "training.temperature: should be greater than 0, got 0"),
    ({"training": {"epochs": "many"}}, "training.epochs: should be a whole number, got 'many'"),
    ({"training": {"batch_size": 1}}, "training.batch_size: should be at least 2, got 1"),
    ({"training": {"device": "gpu"}}, "training.device: should be cpu, cuda or cuda:0"),
    ({"projection": {"kind": "separate"}}, "projection: kind separate needs dim, the width of the projection"),
    ({"projection": {"dim": 3}}, "projection: kind none takes no dim"),
    ({"projection": {"kind": "both", "dim": 3}}, "projection.kind: should be 'none', 'separate' or 'shared'"),
    ({"metrics": {"k": 0}}, "metrics.k: should be at least 1, got 0"),
    ({"name": "a/b"}, "name: should start with a letter or digit"),
    ({"cases": []}, "cases: should hold at least one entry, got []"),
    ({"cases": [{"label": "a"}]}, "cases[0].data: is required, and is not there"),
    ({"cases": [{"label": "a", "data": {"redundancy": 3}}]}, "cases[0].data: should hold name, the data set to load"),
    ({"cases": [CASE | {"modalties": []}]}, "cases[0].modalties: unknown key; did you mean modalities?"),
    ({"cases": TINY["cases"] * 2}, "cases: should hold every label once, and 'R = 8' is there 2 times"),
]


@pytest.mark.parametrize(("change", "line"), MISTAKES, ids=[line.split(",")[0] for _, line in MISTAKES])
def test_a_mistake_is_named_in_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=r"^x.yaml: ") as error:
        parse(settings(**change), "x.yaml")
    assert str(error.value).startswith(f"x.yaml: {line}")
    assert "\n" not in str(error.value)


def test_every_mistake_is_named() -> None:
    with pytest.raises(ValueError, match="epoch") as error:
        parse(settings(strengths=[-1], training={"epoch": 1}), "x.yaml")
    assert len(str(error.value).splitlines()) == 2


FILES = {
    "": "is empty; it must hold at least name, cases, encoders, strengths, seeds",
    "# nothing\n": "is empty; it must hold at least",
    "- 1\n- 2\n": "must hold a mapping with name, cases, encoders, strengths, seeds, got [1, 2]",
    "just text": "must hold a mapping with",
    "a: [1, 2": "is not YAML: line 1, column 9",
    "a:\n\t- b": "is not YAML: line 2, column 1",
    "name: x\nseeds: 2\nname: y\n": "is not YAML: line 3, column 1: the key name is there twice",
    "a: !!python/object:os.system {}": "is not YAML: line 1, column 4: could not determine a constructor",
}


@pytest.mark.parametrize("content", FILES, ids=repr)
def test_a_file_that_is_no_configuration_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"x\.yaml") as error:
        load(path)
    assert f"{path} {FILES[content]}" in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load(tmp_path / "binary.yaml")


def test_differences_name_the_keys() -> None:
    before, now = configuration(), configuration(strengths=[0, 1], training={"epochs": 9})
    assert changes(before, before) == []
    assert changes(before, now) == [
        "strengths: [0.0, 0.3, 2.0] before, [0.0, 1.0] now",
        "training.epochs: 3 before, 9 now",
    ]
