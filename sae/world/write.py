"""Settings -> a world on disk: pictures by class and domain, and the truth about each."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sae.core.errors import UserError
from sae.core.files import FORMAT, read_config, replacing, sha256_hex, write_json
from sae.core.lock import LOCK, hold
from sae.core.output import require_own
from sae.world.drawing.draw import LARGEST, SMALLEST, draw
from sae.world.scene.concepts import PLANTED
from sae.world.scene.scene import Domain, Scene, concepts_of, sample

VERSION = 1
"""Counts up when the same seed would give another picture."""
SEEDS_PER_WORLD = 10_000_000
"""Picture i of world `seed` shows scene `seed * SEEDS_PER_WORLD + i`, so worlds share no scene."""
N_WORLDS = 100_000
"""Worlds end below scene 10**12; the scenes that trained the tiny CLIP begin there."""
MARKER, PLAN, TRUTH = "world.json", "world.unfinished.json", "truth.parquet"
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


class Row(NamedTuple):
    """The truth about one picture."""

    image_id: str
    path: str
    domain: str
    label: str
    seed: int
    concepts: frozenset[str]


def write_world(
    out: Path,
    n: int,
    seed: int = 0,
    size: int = 128,
    workers: int = 0,
    paired: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `n` pictures into `out`; `workers` processes draw it (0: one a core), to the same bytes.

    Writes `out/<domain>/<class>/<scene seed>.png`, the class being the first object's name;
    `out/truth.parquet`, one row a picture: image_id (sha256 of the file), path, domain, label, seed
    and a bool column for every planted concept; and `out/world.json` last. A finished world of the
    same settings is left alone, an unfinished one is completed. Raises `UserError` for settings out
    of range and for a folder that holds anything else.
    """
    info = WorldInfo(n, seed, size, paired)
    _check(info)
    if workers < 0:
        raise UserError(f"workers are 1 and more, or 0 for one a core, not {workers}")
    require_own(out, "world", any((out / name).exists() for name in (MARKER, PLAN)))
    if _is_finished(out, info):
        return
    with closing(hold(out / LOCK)):
        if not _is_finished(out, info):  # another process may have just done it
            _write(out, info, workers, progress)


def _write(
    out: Path, info: WorldInfo, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    write_json(out / PLAN, info)
    rows: list[Row] = []
    for chunk in _drawn_chunks(out, info, workers or os.cpu_count() or 1):
        rows += chunk
        if progress is not None:
            progress(len(rows), info.n)
    _write_truth(out / TRUTH, rows)
    write_json(out / MARKER, info)
    (out / PLAN).unlink()


def _check(info: WorldInfo) -> None:
    if not 1 <= info.n <= SEEDS_PER_WORLD:
        raise UserError(f"a world holds 1 to {SEEDS_PER_WORLD:,} pictures, not {info.n}")
    if info.paired and info.n % 2:
        raise UserError(f"a paired world holds an even number of pictures, not {info.n}")
    if not 0 <= info.seed < N_WORLDS:
        raise UserError(f"a world's seed lies between 0 and {N_WORLDS - 1:,}, not {info.seed}")
    if not SMALLEST <= info.size <= LARGEST:
        raise UserError(f"a picture is {SMALLEST} to {LARGEST} pixels wide, not {info.size}")


def _is_finished(out: Path, info: WorldInfo) -> bool:
    """Whether `out` holds this very world; raises `UserError` when it holds something else."""
    for name in (MARKER, PLAN):
        if (out / name).exists():
            _refuse_another(out, read_config(out / name, WorldInfo), info)
            return name == MARKER
    return False


def _refuse_another(out: Path, found: WorldInfo, asked: WorldInfo) -> None:
    wanted = asdict(asked)
    differing = [f"{k} {v} (not {wanted[k]})" for k, v in asdict(found).items() if v != wanted[k]]
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
    file = out / path
    if file.exists():
        png = file.read_bytes()
    else:
        png = _png(scene, info.size)
        with replacing(file) as part:
            part.write_bytes(png)
    return Row(sha256_hex(png), path, scene.domain, scene.label, scene.seed, concepts_of(scene))


def _scene(info: WorldInfo, i: int) -> Scene:
    first = info.seed * SEEDS_PER_WORLD
    if not info.paired:
        return sample(first + i)
    domain: Domain = "photo" if i % 2 else "sketch"
    return sample(first + i // 2, domain)


def _png(scene: Scene, size: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(draw(scene, size).pixels)
    image.save(buffer, format="PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def _write_truth(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    *columns, concepts = zip(*rows, strict=True)
    table = dict(zip(Row._fields[:-1], columns, strict=True))
    truth = {c.name: [c.name in found for found in concepts] for c in PLANTED}
    with replacing(path) as part:
        pq.write_table(pa.table({**table, **truth}), part)
