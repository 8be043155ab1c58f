"""The layers of the house: what may import what. Parsed, so that imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "modalign"

# from the ground up; a module may import from its own layer and those before it
LAYERS = [
    {"array_files", "backends", "locking", "provenance", "tables"},
    {"ops", "reference"},
    {"arguments", "labels", "sources", "steady", "watching"},
    {"anchors", "approximate", "out_of_core", "preparation"},
    {"graph"},
    {"contrastive", "neighbors"},
    {"losses", "drop_ins", "chunked", "gathering", "metrics", "information", "diagnosis"},
    {"budget", "sampling", "significance", "splitting"},
    {"scores"},
    {"measurement"},
    {"alignment", "layers"},
    {"data", "embedding", "networks", "user_modules", "encoders"},
    {"experiments", "printing", "report"},
    {"commands"},
    {"cli", "__init__", "__main__"},
]
# reached by name only, through a table of implementations
BY_NAME_ONLY = {"reference", "kernels", "_core", "_cuda"}
MAY_REACH_THE_CORE = {"ops/_cpp.py", "ops/_cuda.py", "diagnosis.py", "provenance.py"}


def imports(path: Path) -> set[str]:
    """The first part below ``modalign`` of everything a file imports from the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("modalign.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "modalign":
                found |= {name.name for name in node.names}
            elif node.module and node.module.startswith("modalign."):
                found.add(node.module.split(".")[1])
    return found


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    own = relative.parts[0].removesuffix(".py")
    for name in imports(path):
        if name in BY_NAME_ONLY:
            assert own == name or str(relative) in MAY_REACH_THE_CORE, f"{relative} imports modalign.{name}"
        elif any(name in names for names in LAYERS):
            assert layer(name) <= layer(own), f"{relative} imports modalign.{name}, which is above it"
        else:
            assert own in {"cli", "commands", "experiments", "report", "__main__"}, (
                f"{relative} imports {name} from the top of the package"
            )


def test_kernels_import_torch_and_triton_alone() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        assert imports(path) <= {"kernels"}, path


def test_references_import_torch_alone() -> None:
    for path in (PACKAGE / "reference").rglob("*.py"):
        assert imports(path) <= {"reference"}, path
