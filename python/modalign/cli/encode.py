"""``modalign embed``: embeddings of images and texts with an encoder that is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from modalign.cli.common import Quiet, command, resumable
from modalign.cli.streams import echo

__all__: list[str] = []


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """The options of ``modalign embed``."""

    encoder: Annotated[str, typer.Argument(metavar="ENCODER", help="Encoder, as KIND:LOCATION.")]
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUTS...", help="Texts or images; two for both sides of the same items.")
    ]
    out: Annotated[list[Path], typer.Option(help="The .npy file to write; given once for each of INPUTS, in order.")]
    layers: Annotated[
        str, typer.Option(help="Layers to write: last, or all hidden states of a transformers model.")
    ] = "last"
    pooling: Annotated[
        str | None,
        typer.Option(
            help="Pooling of the tokens of an input: mean, cls or last.", show_default="mean for texts, cls for images"
        ),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Number of inputs in a batch.")] = 64
    device: Annotated[str, typer.Option(help="Device of the encoder: cpu or cuda.")] = "cpu"
    dtype: Annotated[str, typer.Option(help="Type of the numbers in the file: float16 or float32.")] = "float16"
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace a file that holds other embeddings.")] = False
    quiet: Quiet = False


@command(
    "Embed images or texts with an encoder that is on this machine; nothing is downloaded.\n\nENCODER is "
    "sentence-transformers:FOLDER, transformers:FOLDER, open_clip:MODEL@WEIGHTS, timm:MODEL@WEIGHTS or "
    "python:module:function. INPUTS are a text file with one text a line, a folder of images, or FILE:COLUMN of a "
    ".csv, .parquet or .arrow file, of texts, images or paths of images. A model of images and texts, such as CLIP, "
    "takes both sides of the same items in one command; the files of a folder are taken in the order of their paths "
    "(0.png, 1.png, 10.png, 2.png). An interrupted run continues where it stopped.",
    "Examples: `modalign embed sentence-transformers:models/minilm captions.txt --out texts.npy` · "
    "`modalign embed transformers:models/dinov2 photos/ --layers all --out images.npy` · "
    "`modalign embed transformers:models/clip pairs.csv:photo pairs.csv:caption --out images.npy --out texts.npy`",
)
def embed(options: EmbedOptions) -> None:
    from modalign.encoders.embedding import embed as write_embeddings
    from modalign.encoders.inputs import notes_on_pairs

    if len(options.out) != len(options.inputs) or len(set(options.out)) < len(options.out):
        raise ValueError(
            f"--out must name one file for each of INPUTS, {len(options.inputs)} in all, got "
            f"{', '.join(map(str, options.out))}"
        )
    for note in notes_on_pairs(options.inputs):
        echo(f"note: {note}", err=True)
    for inputs, out in zip(options.inputs, options.out, strict=True):
        with resumable():
            path = write_embeddings(
                options.encoder,
                inputs,
                out,
                layers=options.layers,
                pooling=options.pooling,
                batch_size=options.batch_size,
                device=options.device,
                dtype=options.dtype,
                fresh=options.fresh,
                progress=not options.quiet,
            )
        echo(f"written: {path}")
