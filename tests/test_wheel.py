"""Build the wheel as pip does, in isolation and without torch, and check that it is complete."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder)]
    # compiled quickly: the core that the other tests use is that of the installation
    options = ["-C", f"build-dir={folder}/build", "-C", "cmake.define.OPTIMISATION=-O1"]
    run = subprocess.run([*pip, *options, str(ROOT)], capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    return next(folder.glob("modalign-*.whl"))


def test_the_wheel_has_both_python_folders_the_core_and_the_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in (
        "modalign/losses/functional.py",
        "modalign/kernels/losses/info_nce.py",
        "modalign/report/templates/page.html",
    ):
        assert part in names
    assert any(name.startswith("modalign/_core") and name.endswith(".so") for name in names)
    tracked = subprocess.run(
        ["git", "ls-files", "python/modalign", "kernels"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for path in tracked:
        inside = path.removeprefix("python/") if path.startswith("python/") else f"modalign/{path}"
        assert inside in names, f"{path} is not in the wheel"
    assert not any(name.startswith(("tests", "modalign/tests", "benchmarks")) for name in names)


def test_torch_is_a_dependency_of_the_package_but_not_of_the_build(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    assert "Requires-Dist: torch>=2.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    build = (ROOT / "pyproject.toml").read_text().split("[project]")[0]
    assert "torch" not in build


def test_the_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    """Unpack the wheel and run python -S, which ignores editable installations."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import torch, modalign; x = torch.randn(5, 3); print(modalign.__file__, modalign.info_nce(x, x).item() >= 0, "
        "modalign.explain('info_nce', x, x).backend); modalign.data.emoji('image-text')"
    )
    site = sysconfig.get_path("purelib")
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": f"{tmp_path}:{site}"},
    )
    assert run.returncode == 0, run.stderr
    assert str(tmp_path) in run.stdout
    assert "True cpp" in run.stdout
