"""Alignment scores of two representations of the same items, by the names that the literature gives them.

registry          the table of metrics: functions, needs, range and cost; the rooms above read it
cost              estimates of the time of one evaluation, a column of the registry
inputs            arguments of the evaluators: two graphs, or two tables of rows
neighborhoods     scores of the k nearest neighbours, from their indices and ranks: ``mutual_knn``, ``jaccard_knn``, ...
edges             scores of the neighbours and their similarities: ``cknna``, ``second_order_cosine``
graphs            checks of graphs, for these two
relabelled_graphs the edges that two graphs share when the items of one are relabelled
tied_graphs       two graphs whose neighbours tie
expected_overlap  the expected number of common neighbours over random orders of ties, in closed form
tied_scores       searches, and scores that are means over drawn orders of ties
linear            ``cka``, ``unbiased_cka``, ``rv``, ``procrustes``, ``cmd``
canonical         ``cca``, ``svcca``, ``pwcca``, ``linear_r2``
published_svcca   ``svcca_code``: SVCCA as published programs compute it
sums              the sums over rows that linear and canonical scores are functions of
variants          the equation of a paper, or what its program computes, for ``cknna`` and ``unbiased_cka``
gaussian_kernels  ``rbf_cka``, exactly and from random features
distances         ``rsa``
ranks             ``information_imbalance`` and ``retrieval``
nearest_classes   the items that tie for the nearest neighbour
tiled_scores      scores and ranks of all pairs, for ranks
tiles             tiles of all pairs, for these four
pair_tables       metrics of all pairs under many relabellings
undefined         the error of a score that is not defined, and the missing value in its place
diagnostics       properties that distort scores: reciprocity, hubs, duplicates, zero rows

A metric is a number, or a score for each item, of rows or graphs. Intervals, nulls, samples and layers are in
``modalign.alignment``; training, drawing and printing do not come in. A new metric is a function, an evaluator and an
entry in ``registry``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
