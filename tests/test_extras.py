"""The optional dependencies of pyproject.toml leave the installed torch alone."""

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TIED_TO_TORCH = {"timm", "torchvision", "torchaudio", "torchtext"}  # each release accepts one release of torch


def extras() -> dict[str, set[str]]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    lines = re.findall(r"^(\w+) = \[(.*)\]", table, re.M)
    return {name: {Requirement(item).name for item in re.findall(r'"([^"]+)"', items)} for name, items in lines}


def test_only_the_extra_timm_replaces_torch() -> None:
    assert extras()["embed"] == {"transformers", "sentence-transformers"}
    assert {name for name, packages in extras().items() if packages & TIED_TO_TORCH} == {"timm"}
    assert not any("torch" in packages for packages in extras().values())


def test_the_readme_installs_timm_beside_the_torch_that_is_there() -> None:
    assert "pip freeze | grep '^torch==' > torch.txt && pip install -c torch.txt '.[timm]'" in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")
