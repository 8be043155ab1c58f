"""Alignment of two representations: many metrics at once, with confidence intervals and nulls.

``align`` measures two representations of the same items, ``align_layers`` every pair of layers of two models.

==================  ==================================================================================================
``functional``      ``align``: from the arguments to an ``Alignment``
``layers``          ``align_layers``: one metric of every pair of layers
``settings``        what a caller asked for, in one frozen dataclass that checks itself
``memory``          the memory that a call needs, for ``max_memory``
``items``           the rows of both representations, paired by name, and their labels
``scoring``         the base of the four files below: timing, what can be afforded, splits, relabelled nulls
``graph_scores``    metrics that compare nearest neighbours
``graph_facts``     what distorts them: hubs, copies, zero rows and ties
``moment_scores``   metrics that are functions of sums over the rows
``pair_scores``     metrics that look at every pair of items
``sample_scores``   metrics of a sample of the items
``intervals``       confidence intervals from random parts of the items
``nulls``           null distributions, p-values and calibrated scores
``closed_forms``    the closed-form nulls that the metric registry names
``within_chance``   mutual k-NN that classes explain, for every number of neighbours
``relabelling``     random permutations of the items, and clusters to permute within
``estimates``       means over a finite population, from a sample
``sampling``        mutual k-NN of sampled queries
``size_curve``      mutual k-NN of smaller sets
``preparation``     rows as published code prepares them
``results``         ``Score``, ``Alignment`` and ``LayerAlignment``: what the calls return, print and save
==================  ==================================================================================================

Metrics are defined in ``modalign.metrics`` and reached through its registry: no file of this room knows one by name,
except for mutual k-NN, whose curves are recorded. Experiments, drawing, HTML and Rich may not come in; results show
themselves through ``modalign.common.doors``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
