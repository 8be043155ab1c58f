"""The command line: reads options, calls the function that does the work, prints its result.

commands    the application with all its commands; importing it registers them
common      the application, the decorator ``command``, options that several commands share, errors
measure     ``mutual-knn``, ``align`` and ``advise``
encode      ``embed``
train       ``sweep``, ``report``, ``compare``, ``tune``, ``data`` and ``demo``
studies     ``reproduce``
streams     output on terminals that cannot encode every character
imports     ``--import``: modules that register metrics, data sets and studies
tables      results as tables on a terminal, by Rich

Nothing is computed, drawn or written here. Help texts take names from registries that do not import torch, so that
``modalign --help`` is fast; a command imports what it needs when it runs.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
