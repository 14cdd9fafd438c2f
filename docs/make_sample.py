"""A finished run of `interp demo` -> results/sample/: gallery, a card's picture, a sheet, labels.

`python docs/make_sample.py RUN` writes all of it anew; `interp cards --run RUN` comes before. The
gallery has every latent of the run. It shows fewer and smaller pictures of each, so that the whole
folder stays within `MOST_BYTES`. The card's picture is taken in Chromium (the extra `dev`).
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from interp.report.choice import spread
from interp.report.gallery.script import script_json
from interp.report.sheets import sheet_png
from interp.report.single.pictures import Fineness
from interp.run.run import Run
from sae.core.files import replacing, replacing_folder
from sae.interchange.hub.gallery import pack_gallery

TARGET = Path(__file__).resolve().parents[1] / "results" / "sample"
MOST_BYTES = 3_000_000
NAME = "demo"
"""The run is called so in its sample, wherever it lay."""
SHOWN_LATENT = 43
ROOM_FOR_CARD = 200_000
"""Bytes that card.png may have."""
N_TRIED = 100
"""Pictures whose bytes tell whether all of them may fit."""


LADDER = (
    Fineness(8, 4, 88, 112, 80),
    Fineness(6, 2, 24, 96, 50),
    Fineness(5, 2, 20, 88, 45),
    Fineness(4, 2, 18, 80, 40),
    Fineness(4, 2, 15, 72, 35),
    Fineness(4, 1, 12, 64, 35),
    Fineness(3, 1, 9, 56, 30),
)
"""From the finest on; the first that fits is taken."""
Files = dict[str, bytes]
Json = Any


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    make_sample(Run(parser.parse_args().run), TARGET)


def make_sample(run: Run, target: Path) -> None:
    """Write the sample of a run; each part of it is complete or absent."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.labels, target / "labels.csv")
    _write_png(target / "sheet.png", sheet_png(run, SHOWN_LATENT), 128)
    full = read_gallery(run.path)
    beside = sum((target / name).stat().st_size for name in ("labels.csv", "sheet.png"))
    rest = MOST_BYTES - ROOM_FOR_CARD - beside
    files, fineness = shrink(full, rest)
    with replacing_folder(target / "gallery") as folder:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    _write_png(target / "card.png", photograph(target / "gallery", f"#/{SHOWN_LATENT}"), 256)
    n_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {len(files):,} files of the gallery, {n_bytes:,} bytes in all; {fineness}")
    if n_bytes > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES:,} bytes")


def read_gallery(run: Path) -> Files:
    """The files that may be handed over, by name, without a place of this machine."""
    packed = pack_gallery(run)
    files = {
        item.name: item.content if isinstance(item.content, bytes) else item.content.read_bytes()
        for item in packed.items
    }
    (index,) = read_call(files["data/index.js"])
    index["meta"]["run"] = NAME
    return files | {"data/index.js": write_call("index", index)}


def shrink(full: Mapping[str, bytes], most: int) -> tuple[Files, Fineness]:
    """The gallery with as many and as fine pictures as `most` bytes allow, and which these are."""
    for fineness in LADDER:
        files, pictures = _without_pictures(full, fineness)
        rest = most - sum(map(len, files.values()))
        some = [_smaller(full[name], fineness) for name in spread(pictures, N_TRIED)]
        if len(pictures) * sum(map(len, some)) / len(some) > 1.1 * rest:
            continue  # not even near
        files |= {name: _smaller(full[name], fineness) for name in pictures}
        if sum(map(len, files.values())) <= most:
            return files, fineness
    raise SystemExit(f"the gallery does not fit into {most:,} bytes with the smallest pictures")


def _without_pictures(full: Mapping[str, bytes], fineness: Fineness) -> tuple[Files, list[str]]:
    """Page and data, and the names of the pictures that they show."""
    kept: set[str] = set()
    files: Files = {}
    for name, data in full.items():
        if name.startswith("data/c"):
            k, cards = read_call(data)
            cards = [fewer_images(card, fineness) for card in cards]
            kept |= {image[0] for card in cards for image in card["images"]}
            files[name] = write_call("shard", k, cards)
        elif not name.startswith("thumbs/"):
            files[name] = data
    pictures = [n for n in full if n.startswith("thumbs/") and Path(n).stem in kept]
    return files, sorted(pictures)


def fewer_images(card: Mapping[str, Json], fineness: Fineness) -> dict[str, Json]:
    """The card with the first images of each row, and of the held-out test some of each kind."""
    top = [row[: fineness.n_top] for row in card["top"]]
    quantiles = [row[: fineness.n_stratum] for row in card["quantiles"]]
    kinds: dict[Any, list[Json]] = {}
    for verdict in card["verdicts"]:
        kinds.setdefault(verdict[3] if not verdict[1] else True, []).append(verdict)
    each = fineness.n_judged // max(1, len(kinds))
    verdicts = [one for of in kinds.values() for one in spread(of, each)]
    rows: list[Sequence[Json]] = [*top, *quantiles, verdicts]
    used = list(dict.fromkeys(entry[0] for row in rows for entry in row))
    place = {old: new for new, old in enumerate(used)}
    moved = [[[place[entry[0]], *entry[1:]] for entry in row] for row in rows]
    return {
        **card,
        "images": [card["images"][at] for at in used],
        "top": moved[: len(top)],
        "quantiles": moved[len(top) : -1],
        "verdicts": moved[-1],
    }


def _smaller(webp: bytes, fineness: Fineness) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(webp)) as image:
        small = image.convert("RGB")
    small.thumbnail((fineness.side, fineness.side), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=fineness.quality, method=6)
    return buffer.getvalue()


def read_call(script: bytes) -> list[Json]:
    """`G.name(1,{...});` -> the values."""
    text = script.decode("ascii")
    values: list[Json] = json.loads(f"[{text[text.index('(') + 1 : text.rindex(')')]}]")
    return values


def write_call(function: str, *values: Json) -> bytes:
    return f"G.{function}({','.join(map(script_json, values))});\n".encode("ascii")


def photograph(gallery: Path, address: str) -> bytes:
    """A view of the gallery, 1280 x 1500 pixels, as a PNG."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("chrome")
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.goto((gallery / "index.html").as_uri() + address)
        page.wait_for_selector(f"body[data-shown='{address.removeprefix('#/')}']")
        page.wait_for_function(
            "[...document.images].every((i) => i.complete || i.loading === 'lazy')"
        )
        page.wait_for_timeout(500)  # lazy ones in sight
        picture: bytes = page.screenshot()
        browser.close()
    return picture


def _write_png(path: Path, png: bytes, n_colours: int) -> None:
    """With a palette that suits what is on it."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(n_colours, kmeans=3)
    with replacing(path) as part:
        few.save(part, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
