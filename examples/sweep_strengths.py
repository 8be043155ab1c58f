"""Train two encoders at several alignment strengths, and read which strength is best for each modality."""

import tempfile
from pathlib import Path

import yaml

from modalign.experiments.sweep.config import load
from modalign.experiments.sweep.runner import run
from modalign.report import conclusions, write

CONFIG = {
    "name": "example",
    "cases": [{"label": "R = 8", "data": {"name": "synthetic", "redundancy": 8, "n": 2000}}],
    "encoders": {"kind": "mlp", "width": 16, "depth": 2, "dim": 16},
    "strengths": [0, 0.3, 1],
    "seeds": 2,
    "training": {"epochs": 4, "batch_size": 256, "learning_rate": 0.005, "temperature": 0.2, "labels": 100},
}

folder = Path(tempfile.mkdtemp())
(folder / "sweep.yaml").write_text(yaml.safe_dump(CONFIG))
results = folder / "results"
run(load(folder / "sweep.yaml"), results)
for sentence in conclusions(results):
    print(sentence)
print(f"report: {write(results).name}")
