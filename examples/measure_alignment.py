"""Measure how far frozen features of emoji drawings and of their English labels are aligned."""

import tempfile
from pathlib import Path

import modalign
from modalign.report.words import chance_of

data = modalign.data.emoji("image-text")
result = modalign.align(data.x, data.y, ["mutual_knn", "unbiased_cka"], k=10)
for score in result.scores:
    print(
        f"{score.metric}: {score.value:.3f}, 95 % interval {score.low:.3f} to {score.high:.3f}, "
        f"by chance {score.null.mean:.3f}, p {chance_of(score)}"
    )

# the same pairs, permuted within 98 subgroups: knowing the kind of a picture is not knowing the picture
permuted = modalign.data.emoji("image-text", pairing="within-group")
coarse = modalign.align(permuted.x, permuted.y, ["mutual_knn"], k=10, intervals=False)["mutual_knn"]
print(f"permuted within subgroups, mutual_knn: {coarse.value:.3f}")

page = result.save(Path(tempfile.mkdtemp()) / "alignment.json")
print(f"saved, to be loaded by modalign.load_alignment: {page.name}")
