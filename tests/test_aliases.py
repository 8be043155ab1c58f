"""Old module names import the module that replaced them, with a DeprecationWarning."""

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from modalign.aliases import MODULES

ROOT = Path(__file__).resolve().parents[1]
# names in the README and docs/reference.md before the modules moved
DOCUMENTED = [
    "sources:open_rows",
    "sources:open_layers",
    "drop_ins:ClipLoss",
    "preparation:prepare",
    "significance:sampled_null",
    "sampling:sampled_mutual_knn",
    "splitting:population_interval",
    "embedding:embed",
    "printing:chance_of",
    "metrics.neighborhoods:mutual_knn",
    "metrics.edges:cknna",
    "metrics.hubs:hubness",
    "metrics.moments:cka",
    "metrics.kernels:rsa",
    "metrics.ranks:retrieval",
    "losses:InfoNCE",
    "neighbors:knn",
    "alignment:align",
    "encoders:MLP",
    "data:catalogue",
    "information:pid",
]


@pytest.mark.parametrize("old", MODULES)
def test_an_old_name_imports_the_new_module_with_a_warning(old: str) -> None:
    sys.modules.pop(f"modalign.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"modalign\.{re.escape(old)} is now modalign\.{MODULES[old]};"):
        module = importlib.import_module(f"modalign.{old}")
    assert module is importlib.import_module(f"modalign.{MODULES[old]}")


@pytest.mark.parametrize("path", DOCUMENTED)
def test_documented_old_names_still_import(path: str) -> None:
    module, name = path.split(":")
    if module in MODULES:
        sys.modules.pop(f"modalign.{module}", None)
    names: dict[str, object] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(f"from modalign.{module} import {name}", "<line of the user>", "exec"), names)
    assert callable(names[name])
    places = {warning.filename for warning in caught if warning.category is DeprecationWarning}
    assert ("<line of the user>" in places) == (module in MODULES)


def test_an_old_attribute_warns_at_the_line_of_the_user() -> None:
    lines = "modalign.preparation.prepare", "from modalign import sampling", "modalign.metrics.moments.cka"
    command = "\n".join(["import modalign", *lines])
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    for number, name in enumerate(("preparation", "sampling", "metrics.moments"), 2):
        assert f"<string>:{number}: DeprecationWarning: modalign.{name} is now" in run.stderr


def test_modules_of_a_room_are_attributes() -> None:
    lines = (
        "import modalign",
        "modalign.alignment.preparation.prepare, modalign.files.rows.open_rows, modalign.metrics.registry.METRICS",
        "modalign.alignment.nulls.kmeans_cells, modalign.report.conclusions, modalign.experiments.sweep",
        "assert not hasattr(modalign, 'infonce')",
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_old_modules_are_attributes_of_their_package() -> None:
    command = "import modalign; modalign.drop_ins.ClipLoss; modalign.metrics.moments.cka; modalign.information.pid"
    subprocess.run([sys.executable, "-W", "ignore", "-c", command], check=True)


@pytest.mark.parametrize(
    ("package", "name", "advice"),
    [
        ("modalign", "ClipLoss", "it is modalign.losses.drop_ins.ClipLoss"),
        ("modalign", "NTXentLoss", "it is modalign.losses.drop_ins.NTXentLoss"),
        ("modalign", "pid", "it is modalign.information.pid"),
        ("modalign", "mutual_kn", "did you mean mutual_knn?"),
        ("modalign", "retreival", "did you mean modalign.metrics.retrieval?"),
        ("modalign", "zzz", "dir(modalign) lists its names"),
        ("modalign.metrics", "knn", "it is modalign.knn"),
        ("modalign.losses.drop_ins", "CLIPLoss", "did you mean ClipLoss?"),
        ("modalign.losses.drop_ins", "SigLIPLoss", "it is modalign.SigmoidLoss here"),
    ],
)
def test_a_name_that_a_package_lacks_is_answered_with_its_place_or_a_similar_name(
    package: str, name: str, advice: str
) -> None:
    module = importlib.import_module(package)
    assert not hasattr(module, name)
    with pytest.raises(AttributeError) as refusal:
        getattr(module, name)
    assert str(refusal.value) == f"{package} has no {name}; {advice}"


def test_a_name_that_the_package_lacks_imports_nothing() -> None:
    command = (
        "import sys, modalign; first = 'difflib' in sys.modules; hasattr(modalign, 'ClipLoss'); "
        "print(first, [name for name in ('torch', 'modalign.losses', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False []"


def test_importing_the_package_loads_neither_torch_nor_the_core() -> None:
    command = (
        "import sys, modalign; print([name for name in ('torch', 'modalign._core', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_changelog_lists_old_and_new_names() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for old, new in MODULES.items():
        assert f"`{old}` | `{new}`" in text
