"""Embeddings of images and texts with an encoder that is on this machine: ``embed``, behind ``modalign embed``."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from modalign.common import provenance
from modalign.common.conversion import as_numpy
from modalign.common.names import suggestion
from modalign.common.progress import bar
from modalign.encoders.inputs import Items, read_items
from modalign.encoders.pretrained import Encode, load_encoder, offline
from modalign.encoders.transformers_models import POOLINGS
from modalign.files.arrays import map_array
from modalign.files.atomic import named_write_errors, reserve
from modalign.files.checkpoint import Records
from modalign.files.locking import claimed_file
from modalign.files.paths import expanded

__all__ = ["embed", "files_of"]


class _Settings(TypedDict):
    """Settings that the rows depend on, as the record of a file keeps them."""

    encoder: str
    inputs: str
    items: int
    layers: str
    pooling: str | None
    batch_size: int
    dtype: str


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

    A run that was killed continues after its last finished batch; the file appears whole or not at all. A finished file
    of the same inputs and settings is left as it is. Peak memory: the encoder and a batch; the file is mapped.

    Args:
        encoder: ``sentence-transformers:FOLDER``; ``transformers:FOLDER``, a model with tokenizer or image processor,
            or one .gguf file with its tokenizer; ``open_clip:MODEL@WEIGHTS`` or ``open_clip:FOLDER``;
            ``timm:MODEL@WEIGHTS``; ``python:module:function`` or a function that takes a list of texts or Pillow images
            and returns (b, d) or (b, layers, d). CLIP, SigLIP and their like embed texts and images into one space.
            Nothing is ever downloaded.
        inputs: A text file of one text a line, a folder of images (in the order of their paths), ``file.csv:column``,
            ``file.parquet:column`` or ``file.arrow:column`` of texts or of images as bytes, or a sequence of texts,
            Pillow images or paths of images. Texts that are all paths of images (from the file's folder or the working
            folder) are those images.
        out: The .npy file; ``out.json`` beside it records ids, encoder, settings and provenance.
        layers: "last", or "all" hidden states of a transformers model.
        pooling: Pooling of a transformers model: "mean" over the tokens that are no padding (the default for texts),
            "cls", the first token (the default for images), or "last", the last that is no padding. With it, CLIP and
            its like give the hidden states of a tower, not the embeddings of the space they share.
        batch_size: Inputs of a batch; a resumed run has the same batches, and so the same bits.
        device: Of torch.
        dtype: Of the file, "float16" or "float32".
        fresh: Forget an earlier result of other inputs or settings in its place.
        progress: Show a bar with the time that is left, on a terminal.

    Returns:
        The path of the .npy file.

    Raises:
        ValueError: If an input cannot be read, the encoder fails, an embedding is not finite (all are named), an option
            is not known, or the file is one of other settings and ``fresh`` is False, or was not written by ``embed``.
        FileNotFoundError: If there is no such input, model or file of weights.
        ModuleNotFoundError: If a package is missing; it says what to install.

    Examples:
        >>> import tempfile, numpy as np
        >>> from modalign.encoders.embedding import embed
        >>> lengths = lambda texts: np.array([[len(text), text.count("a")] for text in texts])
        >>> np.load(embed(lengths, ["banana", "kiwi"], tempfile.mkdtemp() + "/fruit.npy")).tolist()
        [[6.0, 3.0], [4.0, 0.0]]
    """
    target = expanded(out)
    if target.suffix.lower() != ".npy":
        raise ValueError(f"embed: out must end in .npy, got {target}")
    if layers not in ("last", "all"):
        raise ValueError(f"embed: layers must be last or all, got {layers!r}{suggestion(layers, ('last', 'all'))}")
    if pooling is not None and pooling not in POOLINGS:
        hint = suggestion(pooling, POOLINGS)
        raise ValueError(f"embed: pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}{hint}")
    if dtype not in ("float16", "float32"):
        hint = suggestion(dtype, ("float16", "float32"))
        raise ValueError(f"embed: dtype must be float16 or float32, got {dtype!r}{hint}")
    if batch_size < 1:
        raise ValueError(f"embed: batch_size must be at least 1, got {batch_size}")
    items = read_items(inputs)
    settings = _Settings(
        encoder=encoder if isinstance(encoder, str) else getattr(encoder, "__qualname__", type(encoder).__name__),
        inputs=items.fingerprint,
        items=len(items.ids),
        layers=layers,
        pooling=pooling,
        batch_size=batch_size,
        dtype=dtype,
    )
    partial = _Partial(target, settings)
    before = partial.record_before()
    if before is not None and not fresh:
        partial.files.require_same(before, settings)
        return target
    with offline(), claimed_file(partial.rows, f"writes {target.name}"):
        encode = load_encoder(encoder, items.texts, layers, pooling=pooling, device=device)
        if fresh:
            partial.note.unlink(missing_ok=True)
        _write_rows(encode, items, partial, progress)
        partial.finish(items.ids)
    return target


def files_of(target: Path) -> list[str]:
    """Return the names of the files that ``embed`` writes for ``target``, which come and go while it runs."""
    partial = f".{target.name}.partial"
    return [target.name, f"{target.name}.json", f"{partial}.npy", f"{partial}.json"]


class _Partial:
    """The rows finished so far, in a file beside the target, with a note of how many they are."""

    def __init__(self, target: Path, settings: _Settings) -> None:
        self.target, self.settings = target, settings
        self.record, self.rows, self.note = (target.with_name(name) for name in files_of(target)[1:])
        self.files = Records(
            target.parent,
            content=f"the embeddings {target.name}",
            advice="give another place, or fresh=True (--fresh) to start over",
        )

    def record_before(self) -> dict[str, Any] | None:
        """Return the settings of the finished file, None if there is none.

        Raises:
            ValueError: There is a file in its place that ``embed`` did not write.
        """
        if not os.path.lexists(self.target) and not os.path.lexists(self.record):
            return None
        record = _json(self.record)
        settings: dict[str, Any] = record.get("settings", {})
        # a process that was killed while it put the rows in place leaves the record of rows that are still beside it
        finishing = self.rows.exists() and _json(self.note).get("settings") == settings
        ours = {"settings", "ids", "provenance"} <= set(record)
        if self.target.exists() and not finishing:
            ours = ours and _holds(self.target, settings)
        if not ours or self.target.is_symlink():
            raise ValueError(
                f"embed: {self.target} or {self.record.name} beside it is there, and was not written by embed; nothing "
                "was touched: give another place, or move it away"
            )
        return settings if self.target.exists() and not finishing else None

    def load(self) -> tuple[int, tuple[int, ...]]:
        """Return the number of finished rows and the shape of the array that holds them: (0, ()) if there are none."""
        note = self.files.read_json(self.note.name)
        if note is None:
            return 0, ()
        try:
            done, settings = int(note["done"]), note["settings"]
            rows = map_array(self.rows)
        except (ValueError, KeyError, TypeError, OSError, OverflowError) as error:
            raise self.files.damaged(self.rows.name, f"{type(error).__name__}: {error}") from None
        self.files.require_same(settings, self.settings)
        if len(rows) != self.settings["items"] or not 0 < done <= len(rows):
            raise self.files.damaged(self.rows.name, f"{done} of {len(rows)} rows")
        return done, rows.shape

    def finish(self, ids: Sequence[str]) -> None:
        """Write the record, put the file in place, and remove the note."""
        facts = {"settings": self.settings, "ids": ids, "provenance": provenance.collect()}
        self.files.write_json(self.record.name, facts, indent=1)
        self.rows.replace(self.target)
        self.note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the finished rows and their note."""
        self.note.unlink(missing_ok=True)
        self.rows.unlink(missing_ok=True)


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, an empty one if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _holds(file: Path, settings: dict[str, Any]) -> bool:
    """Return whether a .npy file has the number of rows and the dtype that its record says."""
    try:
        rows = map_array(file)
        return (len(rows), rows.dtype) == (settings["items"], np.dtype(settings["dtype"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_rows(encode: Encode, items: Items, partial: _Partial, progress: bool) -> None:
    """Encode batch after batch into the file beside the target."""
    batch_size, dtype, n = partial.settings["batch_size"], np.dtype(partial.settings["dtype"]), len(items.ids)
    done, shape = partial.load()
    with bar(progress) as shown:
        task = shown.add_task("embedding", total=n, completed=done)
        for start in range(done, n, batch_size):
            stop = min(start + batch_size, n)
            output = _encoded(encode, items.batch(start, stop), items.ids[start:stop], start)
            values = _checked(output, stop - start, items.ids[start:stop])
            if start and values.shape[1:] != shape[1:]:
                raise ValueError(f"embed: batches must give one shape, got {values.shape[1:]} after {shape[1:]}")
            with np.errstate(over="ignore"):
                stored = values.astype(dtype)
            if not np.isfinite(stored).all():
                partial.remove()  # no run with this dtype finishes it
                raise ValueError(f"embed: embeddings exceed {dtype}; use dtype float32")
            if start == 0:
                shape = (n, *values.shape[1:])
                _make_rows(partial, dtype, shape)
            _write_batch(partial, stored, start)
            partial.files.write_json(partial.note.name, {"settings": partial.settings, "done": stop})
            shown.advance(task, stop - start)


def _encoded(encode: Encode, batch: Sequence[Any], ids: Sequence[str], start: int) -> object:
    """Return what the encoder gives for a batch; ValueError names the inputs for which it fails."""
    try:
        return encode(batch)
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ValueError(
            f"embed: the encoder fails on inputs {start} to {start + len(ids) - 1} ({ids[0]} to {ids[-1]}): {reason}"
        ) from error


def _make_rows(partial: _Partial, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Make a .npy file of zeros, all of whose bytes are stored: a mapping of one that is not dies of a full disk."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    reserve(partial.rows, len(header.getvalue()) + math.prod(shape) * dtype.itemsize, partial.target)
    with partial.rows.open("r+b") as file:
        file.write(header.getvalue())


def _write_batch(partial: _Partial, rows: NDArray[Any], start: int) -> None:
    """Write the rows from number ``start`` on into a .npy file, and wait until they are on the disk."""
    with named_write_errors(partial.target), partial.rows.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        file.seek(start * rows[0].nbytes, os.SEEK_CUR)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _checked(output: object, n: int, ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the encoder's output for n inputs as float32, checked to be of the right shape and finite."""
    values = as_numpy("embed: the encoder's output", output).astype(np.float32)
    if values.ndim not in (2, 3) or len(values) != n:
        raise ValueError(f"embed: the encoder must give (b, d) or (b, layers, d) for b = {n}, got {values.shape}")
    finite = np.isfinite(values).reshape(n, -1).all(1)
    if not finite.all():
        bad = [ids[i] for i in np.flatnonzero(~finite)[:3]]
        raise ValueError(f"embed: the encoder gives NaN or inf for inputs {', '.join(bad)} (the first)")
    return values
