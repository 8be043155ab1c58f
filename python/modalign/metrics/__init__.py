"""Alignment scores of two representations of the same items, by the field's names."""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
