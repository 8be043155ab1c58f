"""Functions named as "module:function", which registries and tables of backends hold without importing them."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["resolve"]


def resolve(name: str) -> Any:
    """Import and return what "module:function" names.

    Examples:
        >>> from modalign.common.names import resolve
        >>> resolve("math:hypot")(3, 4)
        5.0
    """
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
