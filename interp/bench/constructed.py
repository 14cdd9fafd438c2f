"""The truth about a world's images -> latents whose meaning is known, as latents.npy.

DIR/
    latents.npy        (n_images, n_latents) float32 activations, 0 where silent
    store.json         the store that `interp collect DIR` reads: the latents are its embeddings
    images.parquet     the images of the world's own store, in its order
    constructed.json   what every latent answers to (`ConstructedInfo`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from interp.bench.kinds import KINDS, PARTS
from sae.core.errors import UserError
from sae.core.files import FORMAT, build_strictly, read_config, replacing_folder, write_json
from sae.core.output import require_own
from sae.data import foreign
from sae.data.formats import dense
from sae.data.formats.find import find_layout
from sae.data.formats.layout import Choice
from sae.data.roots import remember
from sae.data.store import EmbeddingStore
from sae.data.store_writer import relative_roots, write_rows

Acts = NDArray[np.float32]
Flags = NDArray[np.bool_]

INFO = "constructed.json"
NOISY = 1 / 6
"""Share of a noisy latent's active images on which its concept is not true, and the reverse."""
FAINT = 0.5
"""Such an image's activation, as a share of what it would be."""
SPREAD = 0.5
"""Activations are lognormal with this deviation, whatever the image shows."""
RANDOM_RATE = 0.05
"""Share of the images on which a latent of a random direction is active; also of noise."""
LEAST, MOST = 48, 0.3
"""Images that a concept must be true of to be planted, and the largest share of them."""
MOST_SHARED = 0.1
"""Share of the rarer of two concepts' images that may show both."""
MOST_UNLIKE = 2.0
"""An even pair is no rarer in one concept than in the other by more than this factor."""
ABSORBED = (0.1, 0.5)
"""Share of the first concept's images that the second may take."""


@dataclass(frozen=True)
class Constructed:
    """What one latent answers to."""

    kind: str
    concepts: tuple[str, ...] = ()
    """As many as `PARTS` says; an absorbed one answers to the first without the second."""
    domain: str = ""
    """Where it answers alone; "" but for the kind `domain`."""


@dataclass(frozen=True)
class Construction:
    """Latents and what they answer to, in one order."""

    acts: Acts  # (n_images, n_latents)
    latents: tuple[Constructed, ...]


@dataclass(frozen=True, kw_only=True)
class ConstructedInfo:
    """constructed.json; the same settings give the same latents."""

    format: int = FORMAT
    seed: int
    n: dict[str, int]
    """Latents of each kind."""
    store_identity: str
    """Of the store whose images they are of."""
    latents: list[dict[str, object]]
    """(n_latents,) the fields of `Constructed`."""


def construct(
    truth: pd.DataFrame, n: Mapping[str, int], seed: int = 0, x: Acts | None = None
) -> Construction:
    """`n[kind]` latents of each kind, in the order of `KINDS`; a latent never depends on others.

    `truth` has a line an image, with the column `domain` and a bool column for every concept that
    may be planted. `x` (n_images, d) are embeddings of these images, which the kind `random` needs.
    Raises `UserError` for an unknown kind, and where no concept, or no two, are frequent enough.
    """
    unknown = sorted(set(n) - set(KINDS))
    if unknown or min(n.values(), default=0) < 0:
        raise UserError(f"latents of {unknown or dict(n)}; kinds are {', '.join(KINDS)}")
    if n.get("random") and x is None:
        raise UserError("random directions need the embeddings of the images")
    world = _World(truth, x)
    made: list[tuple[Constructed, Acts]] = []
    for kind in KINDS:
        meanings = _meanings(world, kind, _rng(seed, kind))
        for number in range(n.get(kind, 0)):
            meaning = next(meanings)
            made.append((meaning, _activations(world, meaning, _rng(seed, kind, 1 + number))))
    acts = np.stack([acts for _, acts in made], 1) if made else np.zeros((len(truth), 0))
    return Construction(acts.astype(np.float32), tuple(meaning for meaning, _ in made))


def write_constructed(
    out: Path, store: EmbeddingStore, truth: pd.DataFrame, n: Mapping[str, int], seed: int = 0
) -> Construction:
    """Construct latents for the images of a world's store, and write `out` for `interp collect`.

    `truth` is that of `read_truth`, indexed by image id. A finished folder is replaced. Raises
    `UserError` as `construct` does, and where the store has images that are not of that world.
    """
    require_own(out, "constructed", (out / INFO).exists())
    images = store.images
    lacking = ~images["image_id"].isin(truth.index)
    if lacking.any():
        raise UserError(
            f"{store.path} has {lacking.sum()} images that truth.parquet does not know; "
            "embed the world again"
        )
    x = store.read(np.arange(len(images)))[:, 0].float().numpy() if n.get("random") else None
    made = construct(truth.loc[images["image_id"]], n, seed, x)
    roots = {name: store.path / root for name, root in store.info.roots.items()}
    with replacing_folder(out) as part:
        np.save(part / dense.ARRAY, made.acts, allow_pickle=False)
        layout = find_layout(part / dense.ARRAY, Choice(clip=store.info.clip))
        assert layout is not None
        info = replace(
            foreign.store_info(layout, images["image_id"].tolist()),
            shards=dense.ARRAY,
            roots=relative_roots(roots, out),
        )
        write_rows(part / "images.parquet", images)
        write_json(part / "store.json", info)
        latents = [asdict(meaning) for meaning in made.latents]
        kept = {kind: n.get(kind, 0) for kind in KINDS}
        identity = store.info.identity
        done = ConstructedInfo(seed=seed, n=kept, store_identity=identity, latents=latents)
        write_json(part / INFO, done)
    remember(EmbeddingStore.open(out).info)
    return made


def read_constructed(folder: Path) -> tuple[Constructed, ...]:
    """What every latent of `write_constructed` answers to."""
    info = read_config(folder / INFO, ConstructedInfo, "construct the latents again")
    place = str(folder / INFO)
    return tuple(build_strictly(Constructed, latent, place) for latent in info.latents)


class _World:
    """What is true of the images, and which concepts may be planted."""

    def __init__(self, truth: pd.DataFrame, x: Acts | None) -> None:
        self.n = len(truth)
        self.x = x
        self.domain = truth["domain"].to_numpy(str)
        flags = {
            str(name): column.to_numpy(bool) for name, column in truth.select_dtypes(bool).items()
        }
        least, most = LEAST, MOST * self.n
        self.true = {name: true for name, true in flags.items() if least <= true.sum() <= most}
        self.names = list(self.true)


def _rng(seed: int, kind: str, number: int = 0) -> Generator:
    return np.random.default_rng([seed, KINDS.index(kind), number])


def _meanings(world: _World, kind: str, rng: Generator) -> Iterator[Constructed]:
    """What latents of a kind answer to, one after the other; concepts come back when all had a
    turn."""
    while PARTS[kind] == 0:
        yield Constructed(kind)
    candidates: Callable[[str], Iterator[Constructed]] = {
        "domain": lambda name: _bound(world, name, rng),
        "even": lambda name: _pairs(world, "even", name, rng),
        "uneven": lambda name: _pairs(world, "uneven", name, rng),
        "absorbed": lambda name: _absorbed(world, name, rng),
    }.get(kind, lambda name: iter([Constructed(kind, (name,))]))
    found = True
    while found:
        found = False
        for place in rng.permutation(len(world.names)):
            one = next(candidates(world.names[place]), None)
            if one is not None:
                found = True
                yield one
    raise UserError(
        f"no latent of the kind {kind} can be constructed: too few concepts are true of "
        f"{LEAST} images and more; draw a larger world"
    )


def _bound(world: _World, name: str, rng: Generator) -> Iterator[Constructed]:
    """The concept in one domain, where it is frequent enough in several."""
    domains = sorted(set(world.domain))
    counts = [int(world.true[name][world.domain == domain].sum()) for domain in domains]
    if len(domains) > 1 and min(counts) >= LEAST / 2:
        frequent = [d for d, count in zip(domains, counts, strict=True) if count >= LEAST]
        if frequent:
            yield Constructed("domain", (name,), frequent[int(rng.integers(len(frequent)))])


def _pairs(world: _World, kind: str, name: str, rng: Generator) -> Iterator[Constructed]:
    first = world.true[name]
    for place in rng.permutation(len(world.names)):
        other = world.names[place]
        second = world.true[other]
        fewer, more = sorted((int(first.sum()), int(second.sum())))
        apart = other != name and (first & second).sum() <= MOST_SHARED * fewer
        balanced = more <= MOST_UNLIKE * fewer if kind == "even" else 3 * second.sum() >= fewer
        if apart and balanced:
            yield Constructed(kind, (name, other))


def _absorbed(world: _World, name: str, rng: Generator) -> Iterator[Constructed]:
    first = world.true[name]
    for place in rng.permutation(len(world.names)):
        other = world.names[place]
        share = (first & world.true[other]).sum() / first.sum()
        if other != name and ABSORBED[0] <= share <= ABSORBED[1]:
            yield Constructed("absorbed", (name, other))


def _activations(world: _World, meaning: Constructed, rng: Generator) -> Acts:
    """(n_images,) activations of one latent."""
    if meaning.kind == "random":
        return _along_a_direction(world, rng)
    strength = rng.lognormal(0, SPREAD, world.n).astype(np.float32)
    if PARTS[meaning.kind] == 0:
        sizes = [round(RANDOM_RATE * world.n)]
        if meaning.kind == "shuffled":
            sizes = [int(true.sum()) for true in world.true.values()] or sizes
        size = sizes[int(rng.integers(len(sizes)))]
        active = np.zeros(world.n, bool)
        active[rng.permutation(world.n)[:size]] = True
        return np.where(active, strength, np.float32(0))
    active = world.true[meaning.concepts[0]]
    if meaning.kind in ("even", "uneven"):
        active = _either(active, world.true[meaning.concepts[1]], meaning.kind, rng)
    elif meaning.kind == "absorbed":
        active = active & ~world.true[meaning.concepts[1]]
    elif meaning.kind == "domain":
        active = active & (world.domain == meaning.domain)
    elif meaning.kind == "noisy":
        n_wrong = round(NOISY * int(active.sum()))
        lost, added = _some(active, n_wrong, rng), _some(~active, n_wrong, rng)
        strength = np.where(added, FAINT * strength, strength)
        active = (active & ~lost) | added
    return np.where(active, strength, np.float32(0)).astype(np.float32)


def _either(first: Flags, second: Flags, kind: str, rng: Generator) -> Flags:
    """Images of both concepts, as many of each or three times as many of the first."""
    alone = second & ~first
    n_first, n_second = int(first.sum()), int(alone.sum())
    times = 1 if kind == "even" else 3
    n_second = min(n_second, n_first // times)
    return _some(first, times * n_second, rng) | _some(alone, n_second, rng)


def _some(flags: Flags, n: int, rng: Generator) -> Flags:
    """`n` of the images that are flagged, drawn evenly."""
    chosen = np.zeros(len(flags), bool)
    chosen[rng.permutation(np.flatnonzero(flags))[:n]] = True
    return chosen


def _along_a_direction(world: _World, rng: Generator) -> Acts:
    assert world.x is not None
    direction = rng.standard_normal(world.x.shape[1])
    along = (world.x - world.x.mean(0)) @ direction
    rest = along - np.quantile(along, 1 - RANDOM_RATE)
    acts: Acts = np.maximum(rest / max(1e-9, float(rest.max())), 0).astype(np.float32)
    return acts
