"""A list of images -> a store of embeddings for each layer. Stopped at any moment, it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sae.clip.image_loader import ImageLoader, Loaded, Outcome, Refused, default_workers
from sae.clip.model import Clip
from sae.clip.vectors import Map, embed_batch, forward_lanes, vectors_of
from sae.core.distributed import Ranks
from sae.core.errors import FAILURES, UserError
from sae.core.files import read_config, sha256_hex
from sae.core.lock import LOCK
from sae.core.progress import Progress
from sae.data.images import MAX_PIXELS
from sae.data.roots import remember
from sae.data.sources.archives import size_of
from sae.data.sources.folders import ImageFile
from sae.data.store_format import DTYPES, ImageRow, Skipped, Source, StoreInfo, torch_dtype
from sae.data.store_writer import (
    DUPLICATE,
    Plan,
    StoreWriter,
    relative_roots,
    require_room_for,
)

MAX_SKIPPED = 0.01
"""Share of unreadable images above which a person should look first. Duplicates do not count."""
SHARD_BYTES = 256 * 2**20
MOST_OF_A_SHARD, LEAST_OF_A_SHARD, SHARDS = 4096, 256, 8
"""Candidates of a shard: of a short list so few that there are 8, which processes can share."""
LISTED = 1 << 16
"""Candidates of a part of a list of images."""


@dataclass
class Meter:
    """How fast images were embedded by one call of `embed`; of several ranks by all of them."""

    n_images: int = 0
    """New ones, without those of shards that were there already."""
    seconds: float = 0.0
    """From the first image read to the last shard written."""
    model_seconds: float = 0.0
    """In which the model computed, with the way of pixels and vectors to and from its device."""
    n_ranks: int = 1

    @property
    def images_per_second(self) -> float:
        """NaN where nothing was left to do."""
        return self.n_images / self.seconds if self.n_images else float("nan")

    @property
    def busy(self) -> float:
        """Share of the time in which the model computed: the rest it waits for images and disk."""
        return self.model_seconds / (self.seconds * self.n_ranks) if self.n_images else float("nan")


def embed(
    files: Sequence[ImageFile],
    roots: Mapping[str, Path],
    stores: Mapping[Path, Source],
    clip: Clip,
    *,
    dtype: str = "float16",
    batch_size: int = 128,
    workers: int | None = None,
    shard_images: int | None = None,
    allow_skipped: bool = False,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    keep: bool = True,
    ranks: Ranks | None = None,
    meter: Meter | None = None,
) -> list[StoreInfo]:
    """Embed all candidates into each of `stores`, or finish what an earlier call began there.

    All of them come of one pass over the images and the network. `workers` is the number of
    decoding processes: None for one a core (8 at most), 0 to decode in this one. A shard covers
    `shard_images` candidates, fewer where that of any store would pass 256 MB; None: as many as a
    store that was begun has, else 4,096, or an eighth of a short list. Of equal contents one is
    kept. Raises `UserError` with exit code 4 when more than 1% of the files cannot be
    read, unless `allow_skipped`; all work is kept, so a second call with it is quick.
    `follow_links`: those who look at the images later may follow links out of the roots. Without
    `keep` the stores are lists of images: what is no image by its header is left out, and no
    embedding is computed. Of several `ranks` each makes every so manieth shard, the first one then
    the store's lists: the same bytes as one process makes, and any number of them goes on. `meter`
    is told how fast it went.
    """
    ranks, shard_images = ranks or Ranks(), shard_images or choose_shards(len(files), stores)
    plans = plan_stores(files, roots, stores, clip, dtype, shard_images, max_pixels)
    if not keep:
        plans = {
            p: replace(plan, on_the_fly=True, shard_images=LISTED) for p, plan in plans.items()
        }
    with ranks.hold([(out / LOCK, "") for out in plans]):
        writers = _begin(plans, ranks)
        finished = {writer.path: writer.read_finished() for writer in writers}
        left = [writer for writer in writers if finished[writer.path] is None]
        ranks.wait()  # all have seen what is left before anyone begins
        if left:
            if keep:
                require_room_for(left)
            n_workers = default_workers(len(files), ranks.n_here) if workers is None else workers
            meter, begun = meter or Meter(), time.monotonic()
            with forward_lanes(clip, [w.plan for w in left], batch_size) as lanes:
                work = _Work(left, files, roots, clip, batch_size, n_workers, lanes)
                ranks.do_each(lambda: work.write_shards(ranks, progress, meter))
            _add_up(meter, ranks, time.monotonic() - begun)
            ranks.do_first(lambda: _finish(left, allow_skipped))
        finished |= {writer.path: writer.read_finished() for writer in left}
    infos = [info for info in finished.values() if info is not None]
    for info in infos if keep and ranks.is_first else ():
        remember(info, follow_links)
    if progress is not None:
        progress(len(files), len(files))
    return infos


def plan_stores(
    files: Sequence[ImageFile],
    roots: Mapping[str, Path],
    stores: Mapping[Path, Source],
    clip: Clip,
    dtype: str,
    shard_images: int,
    max_pixels: int = MAX_PIXELS,
) -> dict[Path, Plan]:
    """All that decides the stores' content. Raises `UserError` for what the model does not have."""
    if dtype not in DTYPES:
        raise UserError(f"no dtype {dtype!r}; use {' or '.join(DTYPES)}")
    digest = _digest(files, roots)
    plans = {
        out: Plan(
            **asdict(vectors_of(clip, source, dtype)),
            shard_images=shard_images,
            n_files=len(files),
            files=digest,
            roots=relative_roots(roots, out),
            max_pixels=max_pixels,
        )
        for out, source in stores.items()
    }
    most = SHARD_BYTES // max(plan.image_bytes for plan in plans.values())
    least = max(1, min(shard_images, most))
    return {out: replace(plan, shard_images=least) for out, plan in plans.items()}


def choose_shards(n_files: int, stores: Iterable[Path]) -> int:
    """Candidates of a shard where nobody has said it."""
    for out in stores:
        if (out / "plan.json").exists():
            return read_config(out / "plan.json", Plan).shard_images
    eighth = n_files // SHARDS // LEAST_OF_A_SHARD * LEAST_OF_A_SHARD
    return min(max(LEAST_OF_A_SHARD, eighth), MOST_OF_A_SHARD)


def _begin(plans: Mapping[Path, Plan], ranks: Ranks) -> list[StoreWriter]:
    """The stores as they stand; the first process writes down what they are to be."""
    writers: list[StoreWriter] = []

    def begin() -> None:
        writers.extend(StoreWriter(out, plan) for out, plan in plans.items())

    ranks.do_first(begin)
    if not ranks.is_first:
        begin()
    return writers


def _batches(plan: Plan, shards: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Places of candidates, shard after shard; a batch never crosses the border of a shard.

    A run which goes on so makes the very batches, and bytes, of an unbroken one.
    """
    for shard in shards:
        span = plan.span(shard)
        for start in range(0, len(span), batch_size):
            yield list(span[start : start + batch_size])


class _Shard:
    """The shard in the making."""

    def __init__(
        self, plans: Sequence[Plan], files: Sequence[ImageFile], roots: Mapping[str, Path]
    ) -> None:
        self._files = files
        self._roots = roots
        self._clear()
        self._parts = [_room_for(plan) for plan in plans]

    def sort(self, outcomes: Sequence[Outcome]) -> list[Loaded]:
        """Note the files to be skipped; return the new images."""
        fresh = []
        for outcome in outcomes:
            self.n_candidates += 1
            reason = self._reason_to_skip(outcome)
            file = self._files[outcome.candidate]
            path = file.path.relative_to(self._roots[file.domain]).as_posix()
            if reason is not None:
                self._skipped.append(Skipped(path, file.domain, reason))
                continue
            assert isinstance(outcome, Loaded)
            size = (outcome.width, outcome.height)
            self._rows.append(ImageRow(outcome.image_id, path, file.domain, file.label, *size))
            self._paths[outcome.image_id] = f"{file.domain}/{path}"
            fresh.append(outcome)
        return fresh

    def add(self, embedded: Sequence[Tensor]) -> None:
        """Take the embeddings (b, t, d), for each store, of the images that `sort` returned."""
        for part, x in zip(self._parts, embedded, strict=True):
            assert part is not None
            part[len(self._rows) - len(x) : len(self._rows)] = x

    def write(self, writers: Sequence[StoreWriter], number: int) -> None:
        """Hand it over to the stores that do not have it yet, and begin the next."""
        for writer, part in zip(writers, self._parts, strict=True):
            if number not in writer.done:
                x = None if part is None else part[: len(self._rows)]
                writer.write_shard(x, self._rows, self._skipped, number)
        self._clear()

    def _clear(self) -> None:
        self.n_candidates = 0
        self._rows: list[ImageRow] = []
        self._skipped: list[Skipped] = []
        self._paths: dict[str, str] = {}  # of its images, by id

    def _reason_to_skip(self, outcome: Outcome) -> str | None:
        if isinstance(outcome, Refused):
            return outcome.reason
        twin = self._paths.get(outcome.image_id)
        if twin is not None:
            return DUPLICATE + twin
        is_text = _is_text(self._files[outcome.candidate].path)
        return None if is_text else "the name is not valid UTF-8"


def _room_for(plan: Plan) -> Tensor | None:
    """Of a shard's embeddings; None where none are kept."""
    if plan.on_the_fly:
        return None
    shape = (len(plan.span(0)), plan.tokens_per_image, plan.d)
    return torch.empty(shape, dtype=torch_dtype(plan.dtype))


@dataclass(frozen=True)
class _Work:
    """What all shards are made with."""

    writers: Sequence[StoreWriter]
    files: Sequence[ImageFile]
    roots: Mapping[str, Path]
    clip: Clip
    batch_size: int
    workers: int
    lanes: Map | None

    def write_shards(self, ranks: Ranks, progress: Progress | None, meter: Meter) -> None:
        """This process's part of those that are left; after a stop one store may have more."""
        plan, plans = self.writers[0].plan, [writer.plan for writer in self.writers]
        left = sorted({shard for writer in self.writers for shard in writer.left})
        mine = left[ranks.rank :: ranks.n]
        n_done = plan.n_files - sum(len(plan.span(shard)) for shard in left)
        shard, numbers = _Shard(plans, self.files, self.roots), iter(mine)
        number = next(numbers, plan.n_shards)
        preprocess = None if plan.on_the_fly else self.clip.preprocess
        loader = ImageLoader(self.files, preprocess, self.workers, plan.max_pixels)
        for outcomes in loader.load(_batches(plan, mine, self.batch_size)):
            fresh = shard.sort(outcomes)
            if fresh and preprocess is not None:
                begun = time.monotonic()
                shard.add(embed_batch(self.clip, plans, [i.pixels for i in fresh], self.lanes))
                meter.model_seconds += time.monotonic() - begun
                meter.n_images += len(fresh)
            n_done += ranks.n * len(outcomes)  # the others are about as far
            if progress is not None:
                progress(min(n_done, plan.n_files), plan.n_files)
            if shard.n_candidates == len(plan.span(number)):
                shard.write(self.writers, number)
                number = next(numbers, plan.n_shards)


def _add_up(meter: Meter, ranks: Ranks, seconds: float) -> None:
    """What all processes have done, in each of them."""
    each = torch.tensor([meter.n_images, meter.model_seconds], dtype=torch.float64)
    ranks.sum([each])
    n_images, meter.model_seconds = each.tolist()
    meter.n_images, meter.n_ranks, meter.seconds = int(n_images), ranks.n, seconds


def _finish(writers: Sequence[StoreWriter], allow_skipped: bool) -> None:
    for writer in writers:
        writer.look()
        _refuse_many_skipped(writer, allow_skipped)
        writer.finish()


def _refuse_many_skipped(writer: StoreWriter, allow_skipped: bool) -> None:
    skipped = writer.write_skipped()
    n_files = writer.plan.n_files
    n_bad = sum(not line.reason.startswith(DUPLICATE) for line in skipped)
    report = writer.path / "skipped.csv"
    if n_bad == n_files:
        raise UserError(f"none of {n_files} images could be read; see {report}", FAILURES)
    if n_bad > MAX_SKIPPED * n_files and not allow_skipped:
        raise UserError(
            f"{n_bad} of {n_files} images ({n_bad / n_files:.1%}) could not be read, more than "
            f"{MAX_SKIPPED:.0%}; see {report}, and add --allow-skipped to go on without them",
            FAILURES,
        )


def _digest(files: Sequence[ImageFile], roots: Mapping[str, Path]) -> str:
    """Of names and sizes: a file that was replaced shows, without reading them all. And of the
    classes that are not called as the first folder.
    """
    text = "\n".join(_line(f, f.path.relative_to(roots[f.domain])) for f in files)
    return sha256_hex(text.encode(errors="surrogateescape"))


def _line(file: ImageFile, path: Path) -> str:
    first = path.parts[0] if len(path.parts) > 1 else ""
    renamed = "" if file.label == first else f"{file.label}\0"
    return f"{file.domain}\0{path.as_posix()}\0{renamed}{_size(file.path)}"


def _size(path: Path) -> int:
    try:
        return size_of(path)
    except OSError:  # a broken link
        return -1


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
