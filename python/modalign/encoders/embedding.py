"""Images and texts into embeddings, with an encoder that is on this machine: ``embed``, behind ``modalign embed``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common import provenance
from modalign.common.progress import bar
from modalign.encoders.user_modules import named_function
from modalign.files.checkpoint import Checkpoint
from modalign.files.tables import KINDS, column_of, lines_of, read_table

__all__ = ["Encode", "embed", "load_encoder", "offline", "read_texts"]

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
POOLINGS = ("mean", "cls", "last")
ENCODERS = ("sentence-transformers", "transformers", "timm", "python")
Encode = Callable[[Sequence[Any]], Any]


def embed(
    encoder: str | Encode,
    inputs: str | Path | Sequence[Any],
    out: str | Path,
    *,
    layers: str = "last",
    pooling: str | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    dtype: str = "float16",
    fresh: bool = False,
    progress: bool = False,
) -> Path:
    """Write the embeddings of ``inputs`` as a .npy file, (n, d), or (n, layers, d) with ``layers="all"``.

    Args:
        encoder: ``sentence-transformers:FOLDER``; ``transformers:FOLDER``, a model with tokenizer or image processor,
            or one .gguf file with its tokenizer; ``timm:MODEL@WEIGHTS``; ``python:module:function`` or a function that
            takes a list of texts or Pillow images and gives (b, d) or (b, layers, d). Nothing is ever downloaded.
        inputs: a text file of one text a line, a folder of images (in the order of their paths), ``file.csv:column``,
            ``file.parquet:column`` or ``file.arrow:column`` of texts or of images as bytes, or a sequence of texts,
            Pillow images or paths of images.
        out: the .npy file; ``out.json`` beside it records ids, encoder, settings and provenance.
        layers: "last", or "all" hidden states of a transformers model.
        pooling: of a transformers model: "mean" over the tokens that are no padding (the default for texts), "cls", the
            first token (the default for images), or "last", the last that is no padding.
        batch_size: inputs of a batch; a resumed run has the same batches, and so the same bits.
        device: of torch. dtype: of the file, "float16" or "float32".
        fresh: forget an earlier result of other inputs or settings in its place.
        progress: a bar with the time that is left, on a terminal.

    A run that was killed goes on after its last finished batch; the file appears whole or not at all. A finished file
    of the same inputs and settings is left as it is. Peak memory: the encoder and a batch; the file is mapped.
    Raises ValueError for what cannot be read or is not finite (named), unknown options, or a file of other settings
    without ``fresh``; FileNotFoundError for what is not there; ModuleNotFoundError with what to install.

    Examples:
        >>> import tempfile, numpy as np
        >>> from modalign.encoders.embedding import embed
        >>> lengths = lambda texts: np.array([[len(text), text.count("a")] for text in texts])
        >>> np.load(embed(lengths, ["banana", "kiwi"], tempfile.mkdtemp() + "/fruit.npy")).tolist()
        [[6.0, 3.0], [4.0, 0.0]]
    """
    target = Path(out)
    if target.suffix != ".npy":
        raise ValueError(f"embed: out must end in .npy, got {target}")
    if layers not in ("last", "all"):
        raise ValueError(f"embed: layers must be last or all, got {layers!r}")
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"embed: pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if dtype not in ("float16", "float32"):
        raise ValueError(f"embed: dtype must be float16 or float32, got {dtype!r}")
    if batch_size < 1:
        raise ValueError(f"embed: batch_size must be at least 1, got {batch_size}")
    items = _items(inputs)
    settings = {
        "encoder": encoder if isinstance(encoder, str) else getattr(encoder, "__qualname__", type(encoder).__name__),
        "inputs": items.fingerprint, "items": len(items.ids), "layers": layers, "pooling": pooling,
        "batch_size": batch_size, "dtype": dtype,
    }  # fmt: skip
    partial = _Partial(target, settings)
    if target.is_file() and not fresh:
        partial.require_record()
        return target
    with offline():
        encode = load_encoder(encoder, items.texts, layers, pooling, device)
        if fresh:
            partial.checkpoint.clear()
        _write(encode, items, partial, progress)
    partial.finish(items.ids)
    return target


@dataclass(frozen=True)
class _Items:
    ids: list[str]
    get: Callable[[int], Any]
    texts: bool
    fingerprint: str


def _items(inputs: Any) -> _Items:
    if isinstance(inputs, (str, Path)):
        values, ids = _read(str(inputs))
    else:
        values = list(inputs)
        ids = [str(i) for i in range(len(values))]
    if not values:
        raise ValueError("embed: there is nothing to embed: the inputs are empty")
    texts = isinstance(values[0], str)
    if any(isinstance(value, str) != texts or value is None for value in values):
        raise ValueError("embed: inputs must be all texts or all images, got both")
    digest = hashlib.sha256()
    for value in values:
        digest.update(_bytes(value))
    return _Items(ids, values.__getitem__ if texts else lambda i: _image(values[i], ids[i]), texts, digest.hexdigest())


def _read(spec: str) -> tuple[list[Any], list[str]]:
    """Values and ids of a text file, a folder of images or a column."""
    path = Path(spec)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"{path} holds no images; they end in {', '.join(sorted(IMAGES))}")
        return list(files), [str(file.relative_to(path)) for file in files]
    if path.is_file() and path.suffix not in KINDS:
        try:
            lines = lines_of(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 text of one text a line ({error.reason})") from None
        return list(lines), [str(i) for i in range(len(lines))]
    name, _, column = spec.rpartition(":")
    if not name or not Path(name).is_file():
        if path.is_file():
            raise ValueError(f"{path} holds columns; say which holds the inputs as {path}:NAME")
        raise FileNotFoundError(f"there is no file or folder {spec}")
    values = [
        entry["bytes"] if isinstance(entry, dict) else entry
        for entry in column_of(read_table(Path(name), column), name, column)
    ]
    return values, [str(i) for i in range(len(values))]


def read_texts(spec: str | Path) -> list[str]:
    """The texts of a file of one text a line, or of ``file.csv:column`` and the like.

    Raises ValueError for images, or a file that has none; FileNotFoundError for what is not there.
    """
    values, _ = _read(str(spec))
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{spec} must hold texts, one a line or in a column, got {'images' if values else 'nothing'}")
    return values


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, Path):
        status = value.stat()
        return f"{value.name}:{status.st_size}:{status.st_mtime_ns}\0".encode()
    return value if isinstance(value, bytes) else value.tobytes()


def _image(value: Any, name: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    if not isinstance(value, (bytes, Path)):
        return value.convert("RGB")
    try:
        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(
            f"image {name} cannot be read ({str(error).splitlines()[0]}); mend it or take it out"
        ) from None


class _Partial:
    """The rows finished so far, in a file beside the target, with a note of how many they are."""

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.target, self.settings = target, settings
        self.rows = target.with_name(f".{target.name}.partial.npy")
        self.note, self.record = f".{target.name}.partial.json", f"{target.name}.json"
        self.checkpoint = Checkpoint(
            target.parent,
            parts=(re.escape(self.rows.name),),
            records=(re.escape(self.note),),
            content=f"the embeddings {target.name}",
            advice="give another place, or fresh=True (--fresh) to start over",
        )

    def require_record(self) -> None:
        """Check that the finished file is of the same settings."""
        record = self.checkpoint.read_json(self.record) or {}
        self.checkpoint.require_same(record.get("settings", {}), self.settings)

    def load(self) -> tuple[int, Any]:
        """Return the number of finished rows and the array that holds them: (0, None) if there are none."""
        note = self.checkpoint.read_json(self.note)
        if note is None:
            return 0, None
        try:
            done, settings = int(note["done"]), note["settings"]
            rows = np.load(self.rows, mmap_mode="r+")
        except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
            raise self.checkpoint.damaged(self.rows.name, f"{type(error).__name__}: {error}") from None
        self.checkpoint.require_same(settings, self.settings)
        if len(rows) != self.settings["items"] or not 0 < done <= len(rows):
            raise self.checkpoint.damaged(self.rows.name, f"{done} of {len(rows)} rows")
        return done, rows

    def finish(self, ids: Sequence[str]) -> None:
        """Put the file in place, write its record, and remove the note."""
        self.rows.replace(self.target)
        self.checkpoint.clear()
        facts = {"settings": self.settings, "ids": ids, "provenance": provenance.collect()}
        self.checkpoint.write_json(self.record, facts, indent=1)


def _write(encode: Encode, items: _Items, partial: _Partial, progress: bool) -> None:
    """Encode batch after batch into the file beside the target."""
    batch_size, dtype, n = partial.settings["batch_size"], np.dtype(partial.settings["dtype"]), len(items.ids)
    partial.target.parent.mkdir(parents=True, exist_ok=True)
    done, rows = partial.load()
    with bar(progress) as shown:
        task = shown.add_task("embedding", total=n, completed=done)
        for start in range(done, n, batch_size):
            stop = min(start + batch_size, n)
            values = _rows(encode([items.get(i) for i in range(start, stop)]), stop - start, items.ids[start:stop])
            if start == 0:
                rows = np.lib.format.open_memmap(partial.rows, "w+", dtype, (n, *values.shape[1:]))
            elif values.shape[1:] != rows.shape[1:]:
                raise ValueError(f"embed: batches must give one shape, got {values.shape[1:]} after {rows.shape[1:]}")
            with np.errstate(over="ignore"):
                rows[start:stop] = values
            if not np.isfinite(rows[start:stop]).all():
                raise ValueError(f"embed: embeddings exceed {dtype}; use dtype float32")
            rows.flush()
            partial.checkpoint.write_json(partial.note, {"settings": partial.settings, "done": stop})
            shown.advance(task, stop - start)


def _rows(found: Any, n: int, ids: Sequence[str]) -> np.ndarray[Any, Any]:
    values = (found.detach().float().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)).astype(
        np.float32
    )
    if values.ndim not in (2, 3) or len(values) != n:
        raise ValueError(f"embed: the encoder must give (b, d) or (b, layers, d) for b = {n}, got {values.shape}")
    finite = np.isfinite(values).reshape(n, -1).all(1)
    if not finite.all():
        bad = [ids[i] for i in np.flatnonzero(~finite)[:3]]
        raise ValueError(f"embed: the encoder gives NaN or inf for inputs {', '.join(bad)} (the first)")
    return values


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Hugging Face's libraries look on this machine only."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load_encoder(
    encoder: str | Encode, texts: bool = True, layers: str = "last", pooling: str | None = None, device: str = "cpu"
) -> Encode:
    """The function behind ``encoder``, as ``embed`` takes it: a list of texts, or images, to (b, d) or (b, layers, d).

    For many calls of an encoder that takes long to load. Raises as ``embed``.
    """
    if not isinstance(encoder, str):
        return encoder
    kind, _, what = encoder.partition(":")
    if kind not in ENCODERS or not what:
        raise ValueError(f"embed: encoder must be one of {', '.join(f'{k}:...' for k in ENCODERS)}, got {encoder!r}")
    if kind == "python":
        return named_function(what, "embed: encoder")
    if layers == "all" and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder gives one layer; layers=all is for transformers models")
    if pooling is not None and kind != "transformers":
        raise ValueError(f"embed: a {kind} encoder pools by itself; leave pooling out")
    if kind == "timm":
        return _timm(what, texts, device)
    folder = Path(what)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; models are read from folders, nothing is downloaded")
    if kind == "sentence-transformers":
        model = _package("sentence_transformers", "sentence-transformers").SentenceTransformer(
            str(folder), device=device, local_files_only=True
        )
        return lambda batch: model.encode(list(batch), batch_size=len(batch), show_progress_bar=False)
    if texts:
        return _of_texts(folder, layers, pooling or "mean", device)
    return _of_images(folder, layers, pooling or "cls", device)


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"this encoder needs the {name} package: pip install {name}") from None


def _loaded(folder: Path, device: str) -> tuple[Any, dict[str, Any]]:
    transformers = _package("transformers", "transformers")
    weights = sorted(file.name for file in folder.glob("*.gguf"))
    more: dict[str, Any] = {"local_files_only": True, **({"gguf_file": weights[0]} if weights else {})}
    model = transformers.AutoModel.from_pretrained(str(folder), **more).to(device).eval()
    return model, more


def _of_texts(folder: Path, layers: str, pooling: str, device: str) -> Encode:
    model, more = _loaded(folder, device)
    tokenizer = _package("transformers", "transformers").AutoTokenizer.from_pretrained(str(folder), **more)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))

    @torch.inference_mode()
    def encode(batch: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(batch), padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        out = model(**tokens, output_hidden_states=layers == "all")
        hidden = torch.stack(out.hidden_states, 1) if layers == "all" else out.last_hidden_state[:, None]
        pooled = _pooled(hidden, tokens["attention_mask"], pooling)
        return pooled if layers == "all" else pooled[:, 0]

    return encode


def _of_images(folder: Path, layers: str, pooling: str, device: str) -> Encode:
    model, _ = _loaded(folder, device)
    processor = _package("transformers", "transformers").AutoImageProcessor.from_pretrained(
        str(folder), local_files_only=True
    )

    @torch.inference_mode()
    def encode(batch: Sequence[Any]) -> Tensor:
        out = model(**processor(list(batch), return_tensors="pt").to(device), output_hidden_states=layers == "all")
        hidden = torch.stack(out.hidden_states, 1) if layers == "all" else out.last_hidden_state[:, None]
        if hidden.ndim == 5:  # (b, layers, channels, h, w): positions are tokens
            hidden = hidden.flatten(3).transpose(2, 3)
        pooled = _pooled(hidden, torch.ones(hidden.shape[0], hidden.shape[2], device=hidden.device), pooling)
        return pooled if layers == "all" else pooled[:, 0]

    return encode


def _pooled(hidden: Tensor, kept: Tensor, pooling: str) -> Tensor:
    """hidden (b, layers, tokens, d), kept (b, tokens): (b, layers, d)."""
    if pooling == "cls":
        return hidden[:, :, 0]
    if pooling == "last":
        last = kept.long().sum(1) - 1
        return hidden[torch.arange(len(hidden)), :, last]
    weights = kept.to(hidden.dtype)[:, None, :, None]
    return (hidden * weights).sum(2) / weights.sum(2).clamp(min=1)


def _timm(what: str, texts: bool, device: str) -> Encode:
    name, _, weights = what.partition("@")
    if texts:
        raise ValueError("embed: a timm encoder takes images, got texts")
    if not weights or not Path(weights).is_file():
        raise FileNotFoundError(
            f"there is no file {weights or 'of weights'}; give timm:{name}@WEIGHTS, nothing is downloaded"
        )
    timm = _package("timm", "timm")
    model = timm.create_model(name, pretrained=False, num_classes=0, checkpoint_path=weights).to(device).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)

    @torch.inference_mode()
    def encode(batch: Sequence[Any]) -> Tensor:
        found: Tensor = model(torch.stack([transform(image) for image in batch]).to(device))
        return found

    return encode
