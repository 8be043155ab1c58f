"""Find the exact nearest neighbours of the rows of a file under a memory budget; a second call continues the first."""

import tempfile
from pathlib import Path

import numpy as np

import modalign

folder = Path(tempfile.mkdtemp())
rows = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
np.save(folder / "rows.npy", rows)

graph = modalign.knn(str(folder / "rows.npy"), 10, max_memory="64MB", checkpoint=folder / "graph")
print(graph.certificate)

# all blocks are in the checkpoint now: the same call only reads them
again = modalign.knn(str(folder / "rows.npy"), 10, max_memory="64MB", checkpoint=folder / "graph")
print("the same neighbours:", bool((np.asarray(again.indices) == np.asarray(graph.indices)).all()))

in_memory = modalign.knn(rows, 10)
print("and those of a search in memory:", bool((np.asarray(in_memory.indices) == np.asarray(graph.indices)).all()))
