"""An SAE, a store and the latents of its classes -> how well classes are named without them.

Of each class the first k latents are kept alone (`on_k`) or taken out (`off_k`), and the rest of
the network names its images and some of the other classes' images (PatchSAE's experiment).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sae.clip.class_vectors import class_vectors
from sae.clip.model import Clip, Halfway
from sae.clip.store_images import require_same_weights, run_to_layer
from sae.core.files import append_jsonl, repair_jsonl, sha256_hex, walk_jsonl
from sae.core.progress import Progress
from sae.data.classes.latents import ClassLatents, Ints
from sae.data.store import EmbeddingStore
from sae.evaluation.zeroshot import TEMPLATES, openai_templates
from sae.model.identity import sae_identity
from sae.model.match import require_match
from sae.model.sae import SAE, Codes
from sae.steering.classes import number_classes
from sae.steering.config import SteerConfig
from sae.steering.plan import (
    Bools,
    Configuration,
    Pairs,
    Sets,
    choose_images,
    choose_ks,
    gather_sets,
    measure_mass,
    name_configurations,
    number_steered,
    pair_images,
)

IMAGES_AT_ONCE = 64
"""Also how many edited images go through the rest of the network at once."""


class Steered(NamedTuple):
    """What came out."""

    names: list[str]
    """The candidates."""
    steered: Ints
    """Numbers of the classes that were looked at."""
    configurations: list[Configuration]
    rows: Ints
    """The images that were looked at, as rows of the store, ascending."""
    pairs: Pairs
    right: Bools  # (p, n_configurations): the image was named as its own class
    sets: Sets


def steer_classes(
    model: SAE,
    store: EmbeddingStore,
    clip: Clip,
    latents: ClassLatents,
    how: SteerConfig,
    ks: Sequence[int] = (),
    only: Sequence[str] = (),
    progress: Progress | None = None,
    journal: Path | None = None,
) -> Steered:
    """Classify the images of each class, or of those in `only`, with some latents on or off.

    The candidates are all classes of `latents`. A stopped call goes on with what an equal one wrote
    to `journal`. Raises `UserError` for a class that one side does
    not know, a k that the SAE does not have, and weights or images that have changed.
    """
    require_match(model.config, store.info)
    require_same_weights(clip, store)
    ks = choose_ks(ks, model.n_latents)
    there, numbers = number_classes(store)
    steered = number_steered(latents.names, there, only)
    place = np.array([latents.names.index(n) if n in latents.names else -1 for n in there])
    truth = np.where(numbers >= 0, place[numbers], -1)  # (images of the store,)
    ids = store.images["image_id"].to_numpy()
    rows = choose_images(ids, truth, how.n_images)
    model = model.to(clip.device).eval()
    # An image may be predicted to be of any class.
    ready = steered if how.class_from == "true" else np.arange(len(latents.names))
    mass = measure_mass(model, store, rows, truth[rows], ready)
    sets = gather_sets(latents.order, mass, ready, ks, how)
    pairs = pair_images(ids[rows], truth[rows], steered, how.n_others)
    looked_at, places = np.unique(pairs.images, return_inverse=True)
    rows, pairs = rows[looked_at], pairs._replace(images=places)
    configurations = name_configurations(sets.chosen, sets.control)
    texts = TEMPLATES["1"] if how.templates == 1 else openai_templates()
    rest = Rest(model, clip, store.info.tokens, class_vectors(clip, latents.names, texts))
    right = np.zeros((len(pairs.images), len(configurations)), bool)
    done = _Done(journal, model, store, clip, latents, how, [*sets.chosen], only)
    for first in range(0, len(rows), IMAGES_AT_ONCE):
        part = rows[first : first + IMAGES_AT_ONCE]
        here = np.flatnonzero((pairs.images >= first) & (pairs.images < first + len(part)))
        if done.fill(right, first, here):
            continue
        images = pairs.images[here] - first
        halfway = run_to_layer(clip, store, part)
        plain = rest.name(halfway)
        if how.class_from == "true":
            jobs, job_of = (images, pairs.classes[here]), np.arange(len(here))
        else:
            jobs, job_of = (np.arange(len(part)), plain), images
        named = rest.name_steered(halfway, *jobs, sets, configurations[1:], how.error == "kept")
        all_named = np.column_stack([plain[images], named[job_of]])
        right[here] = all_named == truth[part][images][:, None]
        done.add(first, right[here])
        if progress is not None:
            progress(first + len(part), len(rows))
    return Steered(latents.names, steered, configurations, rows, pairs, right, sets)


class _Done:
    """The parts of `right` that an equal call has written to the journal, and those of this one."""

    def __init__(
        self,
        journal: Path | None,
        model: SAE,
        store: EmbeddingStore,
        clip: Clip,
        latents: ClassLatents,
        how: SteerConfig,
        ks: list[int],
        only: Sequence[str],
    ) -> None:
        what = [sae_identity(model), store.info.identity, clip.name, latents.names, asdict(how)]
        order = sha256_hex(np.ascontiguousarray(latents.order).tobytes())
        self._call = sha256_hex(json.dumps([*what, ks, sorted(only), order]).encode())
        self._journal = journal
        self._bits: dict[int, str] = {}
        if journal is not None:
            repair_jsonl(journal)
            lines = (line.values for line in walk_jsonl(journal))
            self._bits = {v["first"]: v["right"] for v in lines if v["call"] == self._call}

    def fill(self, right: Bools, first: int, here: Ints) -> bool:
        """Whether the part that begins with image `first` was there; then `right` has it."""
        if first not in self._bits:
            return False
        packed = np.frombuffer(bytes.fromhex(self._bits[first]), np.uint8)
        shape = len(here), right.shape[1]
        right[here] = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape)
        return True

    def add(self, first: int, right: Bools) -> None:
        if self._journal is not None:
            bits = np.packbits(right).tobytes().hex()
            append_jsonl(self._journal, [{"call": self._call, "first": first, "right": bits}])


class Rest(NamedTuple):
    """What comes behind the layer: the SAE on its tokens, the rest of the network, the classes."""

    model: SAE
    clip: Clip
    tokens: str
    vectors: Tensor  # (n_classes, d_embed)

    def name(self, halfway: Halfway, x: Tensor | None = None) -> Ints:
        """(b,) number of the class that is named, with the tokens x (b, t, d) at the layer."""
        features = self.clip.finish(halfway, self.tokens, x)
        found: Ints = (features @ self.vectors.T).argmax(1).cpu().numpy()
        return found

    @torch.no_grad()
    def name_steered(
        self,
        halfway: Halfway,
        images: Ints,
        classes: Ints,
        sets: Sets,
        configurations: Sequence[Configuration],
        error_kept: bool,
    ) -> Ints:
        """(n, n_configurations): the class named for each of the `images` (n,), places in the
        batch, when the latents of one of the `classes` (n,) are kept alone or taken out."""
        x = self.clip.tokens_at(halfway, self.tokens)  # (b, t, d)
        codes = self.model.encode(x.flatten(0, 1))
        acts, latents = (value.view(*x.shape[:2], -1) for value in codes[:2])
        found = np.zeros((len(images), len(configurations)), np.int64)
        for first in range(0, len(images), IMAGES_AT_ONCE):
            part = slice(first, first + IMAGES_AT_ONCE)
            at = torch.from_numpy(images[part]).to(x.device)
            pixels = halfway.pixels[at] if len(halfway.pixels) else halfway.pixels
            begun = Halfway(halfway.layer, halfway.row[at], pixels)
            tokens = x[at].flatten(0, 1)  # (n, d)
            here = Codes(acts[at].flatten(0, 1), latents[at].flatten(0, 1))
            whole = self.model.rebuild(tokens, here)
            at_set = torch.arange(len(at), device=x.device).repeat_interleave(x.shape[1])[:, None]
            for column, which in enumerate(configurations):
                members = torch.from_numpy(sets.members(which, classes[part])).to(x.device)
                kept = members[at_set, here.latents] != which.takes_out  # (n, k)
                changed = self.model.rebuild(tokens, here._replace(acts=here.acts * kept))
                if error_kept:
                    changed = tokens + (changed - whole)
                found[part, column] = self.name(begun, changed.view(len(at), *x.shape[1:]))
        return found
