"""The room of losses."""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
