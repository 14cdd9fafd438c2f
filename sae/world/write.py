"""Settings -> a world on disk: pictures by class and domain, the truth about each, and masks."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sae.core.errors import UserError
from sae.core.files import FORMAT, read_config, replacing, sha256_hex, write_json
from sae.core.lock import LOCK, hold
from sae.core.output import require_own
from sae.world.drawing.draw import LARGEST, SMALLEST, draw, draw_pixels
from sae.world.scene.concepts import OBJECTS, TIERS, Tier
from sae.world.scene.hard import sample_hard
from sae.world.scene.scene import (
    Domain,
    Placed,
    Scene,
    concepts_of,
    conjunctions_of,
    sample,
)

VERSION = 1
"""Counts up when the same seed would give another picture."""
SEEDS_PER_WORLD = 10_000_000
"""Picture i of world `seed` shows scene `seed * SEEDS_PER_WORLD + i`, so worlds share no scene."""
N_WORLDS = 100_000
"""Worlds end below scene 10**12; the scenes that trained the tiny CLIP begin there."""
MARKER, PLAN, TRUTH = "world.json", "world.unfinished.json", "truth.parquet"
MASKS = "masks"
MASK_NAMES = ("background", *OBJECTS)
"""What each number in a mask stands for; 0 is what no object covers."""
_COMPRESS_LEVEL = 1
_CHUNK = 64


@dataclass(frozen=True)
class WorldInfo:
    """What a world folder holds; the same settings give the same bytes."""

    n: int
    """Pictures in all."""
    seed: int
    size: int
    """Pixels a side."""
    paired: bool
    """Whether every scene is there twice, as a sketch and as a photo."""
    version: int = VERSION
    format: int = FORMAT
    mask_names: tuple[str, ...] = ()
    """`MASK_NAMES` where the masks are there too."""
    tier: Tier = "easy"
    """hard: several objects that differ in all attributes, small ones, ones in front of others."""


class Row(NamedTuple):
    """The truth about one picture."""

    image_id: str
    path: str
    domain: str
    label: str
    seed: int
    concepts: frozenset[str]
    objects: list[dict[str, str]]
    """In the order of the drawing: `OBJECT` of each. Told of the hard tier alone."""


OBJECT = ("name", "size", "position", "colour", "pattern", "orientation")
"""What truth.parquet tells of each object of a hard world; "" where nothing is to be said."""


def write_world(
    out: Path,
    n: int,
    seed: int = 0,
    size: int = 128,
    workers: int = 0,
    paired: bool = False,
    masks: bool = False,
    progress: Callable[[int, int], None] | None = None,
    tier: Tier = "easy",
) -> None:
    """Draw `n` pictures into `out`; `workers` processes draw it (0: one a core), to the same bytes.

    Writes `out/<domain>/<class>/<scene seed>.png`, the class being the first object's name;
    `out/truth.parquet`, one row a picture: image_id (sha256 of the file), path, domain, label, seed
    a bool column for every concept planted in worlds of the `tier`, and with `hard` what each
    object is like (`objects`); and `out/world.json` last. With `masks` also
    `out/masks/<domain>/<class>/<scene seed>.png`: 8-bit grey, each pixel the place in `MASK_NAMES`
    of the object that covers it, in front where two overlap. A finished world of the same settings
    is left alone but for masks that it lacks, an unfinished one is completed. Raises `UserError`
    for settings out of range and for a folder that holds anything else.
    """
    names = MASK_NAMES if masks else ()
    info = WorldInfo(n, seed, size, paired, mask_names=names, tier=tier)
    _check(info)
    if workers < 0:
        raise UserError(f"workers are 1 and more, or 0 for one a core, not {workers}")
    require_own(out, "world", any((out / name).exists() for name in (MARKER, PLAN)))
    if _remaining(out, info) is None:
        return
    with closing(hold(out / LOCK)):
        remaining = _remaining(out, info)  # another process may have just done it
        if remaining is not None:
            _write(out, remaining, workers, progress)


def _write(
    out: Path, info: WorldInfo, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    settings = {name: value for name, value in asdict(info).items() if value not in ((), "easy")}
    write_json(out / PLAN, settings)
    rows: list[Row] = []
    for chunk in _drawn_chunks(out, info, workers or os.cpu_count() or 1):
        rows += chunk
        if progress is not None:
            progress(len(rows), info.n)
    _write_truth(out / TRUTH, rows, info.tier)
    write_json(out / MARKER, settings)
    (out / PLAN).unlink()


def _check(info: WorldInfo) -> None:
    if info.tier not in TIERS:
        raise UserError(f"--tier {info.tier!r} is not known; choose one of: {', '.join(TIERS)}")
    if not 1 <= info.n <= SEEDS_PER_WORLD:
        raise UserError(f"a world holds 1 to {SEEDS_PER_WORLD:,} pictures, not {info.n}")
    if info.paired and info.n % 2:
        raise UserError(f"a paired world holds an even number of pictures, not {info.n}")
    if not 0 <= info.seed < N_WORLDS:
        raise UserError(f"a world's seed lies between 0 and {N_WORLDS - 1:,}, not {info.seed}")
    if not SMALLEST <= info.size <= LARGEST:
        raise UserError(f"a picture is {SMALLEST} to {LARGEST} pixels wide, not {info.size}")


def _remaining(out: Path, info: WorldInfo) -> WorldInfo | None:
    """What is still to be written, with the masks of an unfinished world; None: all is there.

    Raises `UserError` when `out` holds something else.
    """
    for name in (MARKER, PLAN):
        if (out / name).exists():
            found = read_config(out / name, WorldInfo)
            _refuse_another(out, found, info)
            if name == MARKER and (found.mask_names or not info.mask_names):
                return None
            info = replace(info, mask_names=found.mask_names or info.mask_names)
    return info


def _refuse_another(out: Path, found: WorldInfo, asked: WorldInfo) -> None:
    wanted = asdict(asked)
    there = asdict(replace(found, mask_names=asked.mask_names))
    differing = [f"{k} {v} (not {wanted[k]})" for k, v in there.items() if v != wanted[k]]
    if differing:
        raise UserError(
            f"{out} holds another world, with {', '.join(differing)}; "
            "choose another folder with --out, or delete this one"
        )


def _drawn_chunks(out: Path, info: WorldInfo, workers: int) -> Iterator[list[Row]]:
    """The rows of all pictures, in order, as the workers draw them."""
    starts = range(0, info.n, _CHUNK)
    draw_from = partial(_draw_chunk, out, info)
    if min(workers, len(starts)) == 1:
        yield from map(draw_from, starts)
        return
    with multiprocessing.get_context("spawn").Pool(min(workers, len(starts))) as pool:
        yield from pool.imap(draw_from, starts)


def _draw_chunk(out: Path, info: WorldInfo, start: int) -> list[Row]:
    return [_draw_one(out, info, i) for i in range(start, min(start + _CHUNK, info.n))]


def _draw_one(out: Path, info: WorldInfo, i: int) -> Row:
    """The truth about picture i, which is drawn unless an earlier run has left it there."""
    scene = _scene(info, i)
    path = f"{scene.domain}/{scene.label}/{scene.seed:08d}.png"
    files = [out / path, *([out / MASKS / path] if info.mask_names else [])]
    if not all(file.exists() for file in files):
        for file, image in zip(files, _pictures(scene, info), strict=True):
            if not file.exists():
                with replacing(file) as part:
                    part.write_bytes(_png(image))
    image_id = sha256_hex(files[0].read_bytes())
    found = concepts_of(scene)
    objects: list[dict[str, str]] = []
    if info.tier == "hard":
        found |= conjunctions_of(scene)
        objects = [_described(scene, placed) for placed in scene.objects]
    return Row(image_id, path, scene.domain, scene.label, scene.seed, found, objects)


def _pictures(scene: Scene, info: WorldInfo) -> list[NDArray[np.uint8]]:
    """The picture, and its mask where the world has masks."""
    if not info.mask_names:
        return [draw_pixels(scene, info.size)]
    pixels, masks = draw(scene, info.size)
    mask = np.zeros((info.size, info.size), np.uint8)
    for placed, covered in zip(scene.objects, masks, strict=True):
        mask[covered] = MASK_NAMES.index(placed.name)
    return [pixels, mask]


def _described(scene: Scene, placed: Placed) -> dict[str, str]:
    own = {"pattern": scene.pattern_of(placed), "orientation": scene.orientation_of(placed)}
    return {name: own.get(name) or getattr(placed, name) for name in OBJECT}


def _scene(info: WorldInfo, i: int) -> Scene:
    first, draw_scene = info.seed * SEEDS_PER_WORLD, sample_hard if info.tier == "hard" else sample
    if not info.paired:
        return draw_scene(first + i)
    domain: Domain = "photo" if i % 2 else "sketch"
    return draw_scene(first + i // 2, domain)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def _write_truth(path: Path, rows: Iterable[Row], tier: Tier) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    *columns, concepts, objects = zip(*rows, strict=True)
    table = dict(zip(Row._fields[:-2], columns, strict=True))
    truth = {c.name: [c.name in found for found in concepts] for c in TIERS[tier]}
    told = {"objects": list(objects)} if tier == "hard" else {}
    with replacing(path) as part:
        pq.write_table(pa.table({**table, **truth, **told}), part)
