"""Does a latent of patch tokens answer to one thing? Patch SAEs against the built-in world's masks.

    python benchmarks/patch_concepts.py --work DIR

Draws two worlds with masks, embeds the patches of some blocks, trains an SAE for each setting on
the first world and measures it on the second. What is finished in DIR is not done again.

A concept's mask is the patches that it covers by an eighth and more: of an object or a colour the
objects that have it; of a pattern, a stroke or an orientation all objects of the images where it
holds; of a background what is no object there. On every second image each live latent gets the
concept whose mask its active patches meet most beyond chance (in standard deviations). On the other
images: precision is the share of its active patches that lie in that concept's mask, and it passes
where this is above 95% of what it is with the masks of shuffled images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.cli import console
from sae.cli.app import app
from sae.data.store import EmbeddingStore
from sae.interchange.load import load
from sae.model.sae import SAE
from sae.world.scene.concepts import PLANTED
from sae.world.scene.scene import Scene, sample
from sae.world.write import MASK_NAMES

KINDS = ("object", "colour", "pattern", "orientation", "stroke", "background")
"""Concepts that have a place in the picture: not counts, sizes, positions, domains."""
CONCEPTS = tuple(concept for concept in PLANTED if concept.kind in KINDS)
COVERED = 1 / 8
"""Share of a patch, as for the labels of patches that trained the tiny CLIP."""
N_SHUFFLES = 100


class Setting(NamedTuple):
    """What an SAE is trained with, and on which block."""

    block: int
    n_latents: int
    k: int
    n_tokens: int = 600_000
    """2.6 passes over 3,600 images of 64 patches."""
    activation: str = "topk"

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(map(str, self))


SETTINGS = (
    *(Setting(block, 1024, 4) for block in (3, 4, 5)),
    *(Setting(block, 1024, 16) for block in (3, 5)),
    *(Setting(5, 1024, k) for k in (2, 8)),
    *(Setting(5, n_latents, 4) for n_latents in (256, 512, 4096)),
    Setting(5, 1024, 4, activation="batch_topk"),
    Setting(5, 1024, 4, n_tokens=1_800_000),
    Setting(5, 1024, 4, n_tokens=1_800_000, activation="batch_topk"),
)


class Firing(NamedTuple):
    """Every active patch of every image."""

    images: NDArray[np.int64]  # (n,)
    patches: NDArray[np.int64]  # (n,)
    latents: NDArray[np.int64]  # (n,)
    acts: NDArray[np.float32]  # (n,)


class Precision(NamedTuple):
    """Of each latent, on the images that did not choose its concept."""

    concepts: NDArray[np.int64]  # (n_latents,) place among the masks
    precision: NDArray[np.float64]  # (n_latents,)
    live: NDArray[np.bool_]  # (n_latents,) active on both halves
    passes: NDArray[np.bool_]  # (n_latents,) live and above 95% of the shuffled precisions


def main() -> None:
    """Make what is missing, measure each setting, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--images", type=int, default=4000, help="of each of the two worlds")
    work, n_images = parser.parse_args().work, parser.parse_args().images
    torch.set_num_threads(1)
    for name, seed in (("trained", 3), ("measured", 4)):
        _world(work, name, seed, n_images)
    masks = None
    names = ("live", "objects", ">= .5", "all", ">= .5", "all, peaks", ">= .5")
    table = [" | ".join((*Setting._fields, *names)), " | ".join(["---"] * 12)]
    for setting in SETTINGS:
        sae, block = work / "saes" / setting.name, f"layer-{setting.block}"
        _sae("train", work / "trained-store" / block, "--out", sae, *_options(setting))
        store = EmbeddingStore.open(work / "measured-store" / block)
        masks = read_masks(store, work / "measured") if masks is None else masks
        table.append(" | ".join([*map(str, setting), _figures(store, load(sae), masks)]))
    print("\n".join(f"| {line} |" for line in table))


def read_masks(store: EmbeddingStore, world: Path) -> NDArray[np.bool_]:
    """(n_images, n_concepts, n_patches): which patches each of `CONCEPTS` covers."""
    masks = np.zeros((len(store.images), len(CONCEPTS), np.prod(store.info.grid)), bool)
    for row, (domain, path) in enumerate(store.images[["domain", "path"]].itertuples(index=False)):
        with Image.open(world / "masks" / domain / path) as image:
            numbers = np.asarray(image)
        scene = sample(int(Path(path).stem), domain)
        masks[row] = concept_patches(scene, numbers, store.info.grid)
    return masks


def concept_patches(
    scene: Scene, numbers: NDArray[np.uint8], grid: Sequence[int]
) -> NDArray[np.bool_]:
    """(n_concepts, n_patches) of one picture; `numbers` (size, size) as in `MASK_NAMES`."""
    high, wide = numbers.shape[0] // grid[0], numbers.shape[1] // grid[1]
    blocks = numbers.reshape(grid[0], high, grid[1], wide)

    def covers(shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return (shown.mean((1, 3)) >= COVERED).ravel()

    found = {name: covers(blocks == MASK_NAMES.index(name)) for name in scene.names}
    for placed in scene.objects:
        found[placed.colour] = found.get(placed.colour, False) | found[placed.name]
    whole = (scene.orientation, scene.pattern, scene.stroke, scene.width)
    found |= dict.fromkeys((*whole, "filled" if scene.filled else ""), covers(blocks > 0))
    found[scene.background] = covers(blocks == 0) & ~covers(blocks > 0)
    nowhere = np.zeros(grid[0] * grid[1], bool)
    return np.stack([found.get(concept.name, nowhere) for concept in CONCEPTS])


def fire(store: EmbeddingStore, model: SAE) -> Firing:
    """Run the SAE over a store of patches."""
    parts = []
    for batch in store.batches(128):
        with torch.inference_mode():
            codes = model.encode(batch.x.flatten(0, 1).float())
        shape = (*batch.x.shape[:2], -1)
        image, patch, place = torch.nonzero(codes.acts.reshape(shape) > 0, as_tuple=True)
        latents = codes.latents.reshape(shape)[image, patch, place]
        acts = codes.acts.reshape(shape)[image, patch, place]
        parts.append((batch.rows[image.numpy()], patch.numpy(), latents.numpy(), acts.numpy()))
    return Firing(*map(np.concatenate, zip(*parts, strict=True)))


def keep_peaks(firing: Firing, n_latents: int) -> Firing:
    """Of each latent and image the most active patch alone."""
    order = np.lexsort((-firing.acts, firing.images * n_latents + firing.latents))
    pairs = (firing.images * n_latents + firing.latents)[order]
    first = order[np.diff(pairs, prepend=-1) != 0]
    return Firing(*(column[first] for column in firing))


def measure(
    firing: Firing, n_latents: int, masks: NDArray[np.bool_], n_shuffles: int = N_SHUFFLES
) -> Precision:
    """Choose a concept for each latent on the even images, and test it on the odd ones."""
    images, patches, latents, _ = firing
    chooses = images % 2 == 0
    n_chosen = np.bincount(latents[chooses], minlength=n_latents)
    usual = masks[::2].mean((0, 2))  # (n_concepts,)
    beyond = np.empty((masks.shape[1], n_latents))
    for concept, share in enumerate(usual):
        inside = masks[images[chooses], concept, patches[chooses]]
        expected = n_chosen * share
        met = np.bincount(latents[chooses], inside, n_latents)
        beyond[concept] = (met - expected) / np.sqrt(expected * (1 - share) + 1e-9)
    concepts = beyond.argmax(0)
    images, patches, latents = (column[~chooses] for column in (images // 2, patches, latents))
    tested = masks[1::2]
    n_tested = np.bincount(latents, minlength=n_latents)

    def precision(order: NDArray[np.int64]) -> NDArray[np.float64]:
        inside = tested[order[images], concepts[latents], patches]
        return np.bincount(latents, inside, n_latents) / np.maximum(n_tested, 1)

    rng = np.random.default_rng(0)
    null = np.stack([precision(rng.permutation(len(tested))) for _ in range(n_shuffles)])
    own = precision(np.arange(len(tested)))
    live = (n_chosen > 0) & (n_tested > 0)
    return Precision(concepts, own, live, live & (own > np.quantile(null, 0.95, axis=0)))


def _figures(store: EmbeddingStore, model: SAE, masks: NDArray[np.bool_]) -> str:
    firing, n = fire(store, model), model.n_latents
    objects = np.array([concept.kind == "object" for concept in CONCEPTS])
    found = [measure(firing, n, masks[:, objects]), measure(firing, n, masks)]
    found.append(measure(keep_peaks(firing, n), n, masks))
    shares = [
        f"{part.sum() / one.live.sum():.1%}"
        for one in found
        for part in (one.passes, one.passes & (one.precision >= 0.5))
    ]
    return " | ".join([f"{found[0].live.sum():,}", *shares])


def _options(setting: Setting) -> list[object]:
    names = (f"--{name.replace('_', '-')}" for name in Setting._fields[1:])
    return [word for pair in zip(names, setting[1:], strict=True) for word in pair]


def _world(work: Path, name: str, seed: int, n: int) -> None:
    world, store = work / name, work / f"{name}-store"
    _sae("world", "--out", world, "--n", n, "--seed", seed, "--masks", "--workers", 1)
    domains = [f"{domain}={world / domain}" for domain in ("sketch", "photo")]
    blocks = ("--layer", "3,4,5", "--tokens", "patch")
    _sae("embed", "--domain", *domains, "--out", store, *blocks, "--workers", 0)


def _sae(*words: object) -> None:
    """Run a command of `sae` in this process."""
    if code := console.run(app, "sae", [str(word) for word in words]):
        raise SystemExit(code)


if __name__ == "__main__":
    main()
