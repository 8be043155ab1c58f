"""The old names of modules that moved: importing one works, and warns with the new name.

``MODULES`` is the only table. Names that users reach through ``modalign`` itself (``modalign.info_nce``) did not move.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lazy_loader

__all__ = ["MODULES", "attach", "install"]

# old name below modalign -> new name below modalign
MODULES = {
    "steady": "common.deterministic",
    "watching": "common.progress",
    "provenance": "common.provenance",
    "arguments": "common.checks",
    "locking": "files.locking",
    "sources": "files.rows",
    "array_files": "files.arrays",
    "tables": "files.tables",
    "labels": "files.labels",
    "backends": "ops.dispatch",
    "contrastive": "losses.functional",
    "anchors": "losses.pools",
    "chunked": "losses.chunked",
    "gathering": "losses.gathering",
    "drop_ins": "losses.drop_ins",
    "graph": "neighbors.graph",
    "out_of_core": "neighbors.blocks",
    "approximate": "neighbors.approximate",
    "user_modules": "encoders.user_modules",
    "networks": "encoders.networks",
    "embedding": "encoders.embedding",
    "metrics.moments": "metrics.linear",
    "metrics.kernels": "metrics",
    "metrics.hubs": "metrics.diagnostics",
    "metrics.relabelled_pairs": "metrics.pair_tables",
    "budget": "metrics.cost",
    "layers": "alignment.layers",
    "measurement": "alignment.scoring",
    "scores": "alignment.results",
    "significance": "alignment.nulls",
    "splitting": "alignment.intervals",
    "sampling": "alignment.sampling",
    "preparation": "alignment.preparation",
    "experiments.config": "experiments.sweep.config",
    "experiments.mistakes": "experiments.sweep.mistakes",
    "experiments.cases": "experiments.sweep.cases",
    "experiments.chunks": "experiments.sweep.chunks",
    "experiments.training": "experiments.sweep.training",
    "experiments.tasks": "experiments.sweep.tasks",
    "experiments.stacked": "experiments.sweep.stacked",
    "experiments.randomness": "experiments.sweep.randomness",
    "experiments.folder": "experiments.sweep.folder",
    "experiments.cluster": "experiments.sweep.cluster",
    "experiments.trackers": "experiments.sweep.trackers",
    "report.results": "experiments.sweep.results",
    "report.findings": "experiments.sweep.findings",
    "report.statistics": "experiments.sweep.statistics",
    "report.comparison": "experiments.sweep.comparison",
    "experiments.study": "experiments.studies.study",
    "experiments.claims": "experiments.studies.claims",
    "experiments.trials": "experiments.studies.trials",
    "experiments.unimodal": "experiments.studies.unimodal",
    "experiments.layer_pairs": "experiments.studies.layer_pairs",
    "experiments.caption_changes": "experiments.studies.caption_changes",
    "experiments.text_encoders": "experiments.studies.text_encoders",
    "experiments.emergence": "experiments.studies.emergence",
    "experiments.multibench": "experiments.studies.multibench",
    "experiments.vision_language": "experiments.studies.vision_language",
    "experiments.align": "experiments.studies.strength",
    "experiments.tune": "experiments.tuning",
    "experiments.advise": "experiments.advice",
    "experiments.progress": "common.progress",
    "report.page": "report.pages.sweep",
    "report.comparison_page": "report.pages.comparison",
    "report.tune_page": "report.pages.tune",
    "report.advice_page": "report.pages.advice",
    "report.align_page": "report.pages.strength",
    "report.alignment_page": "report.pages.alignment",
    "report.emergence_page": "report.pages.emergence",
    "report.multibench_page": "report.pages.multibench",
    "report.vision_language_page": "report.pages.vision_language",
    "report.study_page": "report.html",
    "report.sentences": "report.words",
    "report.drawing": "report.figures.drawing",
    "report.stills": "report.figures.stills",
    "report.accuracy": "report.figures.accuracy",
    "report.alignment": "report.figures.alignment",
    "report.training": "report.figures.training",
    "report.sweep_pictures": "report.figures.sweep",
    "printing": "report.words",
}
# names that other libraries give to what has another name here
OTHER_NAMES = {"SigLIPLoss": "modalign.SigmoidLoss"}


class _Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find modules by their old names, and load the modules that took their place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.removeprefix("modalign.") not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        old = module.__name__
        new = f"modalign.{MODULES[old.removeprefix('modalign.')]}"
        _warn(old, new)
        sys.modules[old] = importlib.import_module(new)  # what the import statement then returns


def _warn(old: str, new: str) -> None:
    """Warn at the line of the user that names an old module."""
    warnings.warn(f"{old} is now {new}; the old name will be removed in 1.0", DeprecationWarning, stacklevel=3)


def install() -> None:
    """Make the old names importable; a second call changes nothing."""
    if not any(isinstance(finder, _Aliases) for finder in sys.meta_path):
        sys.meta_path.append(_Aliases())


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose ``__init__.pyi`` lists its public names.

    A name is imported when it is first used. Modules of the package, and the old names of modules, are attributes too.
    """
    load, names, public = lazy_loader.attach_stub(package, file)
    prefix = package.removeprefix("modalign").removeprefix(".")

    def find(name: str) -> Any:
        old = f"{prefix}.{name}" if prefix else name
        if old in MODULES:
            _warn(f"modalign.{old}", f"modalign.{MODULES[old]}")
            return importlib.import_module(f"modalign.{MODULES[old]}")
        try:
            return load(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            if importlib.util.find_spec(f"{package}.{name}") is None:
                raise AttributeError(_no_attribute(package, name, public), name=name) from None
        return importlib.import_module(f"{package}.{name}")

    return find, names, public


def _no_attribute(package: str, name: str, public: list[str]) -> str:
    """Return the message for a name that a package lacks: where it is, or the most similar name."""
    from modalign.common.names import did_you_mean, nearest

    if name in OTHER_NAMES:
        return f"{package} has no {name}; it is {OTHER_NAMES[name]} here"
    places = _places_of_names()
    hint = did_you_mean(name, public)
    if name in places:
        hint = f"it is {places[name]}"
    elif not hint:
        similar = nearest(name, places)
        hint = f"did you mean {places[similar]}?" if similar else f"dir({package}) lists its names"
    return f"{package} has no {name}; {hint}"


def _places_of_names() -> dict[str, str]:
    """Map every public name to its full name, the shortest of several; stubs are read, and nothing is imported."""
    root = Path(__file__).parent
    places: dict[str, str] = {}
    for stub in sorted(root.rglob("__init__.pyi"), key=lambda path: len(path.parts)):
        room = ".".join((root.name, *stub.parent.relative_to(root).parts))
        for name in re.findall(r"^from \S+ import (\w+) as \1$", stub.read_text(encoding="utf-8"), re.MULTILINE):
            places.setdefault(name, f"{room}.{name}")
    return places
