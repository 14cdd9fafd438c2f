"""Tokens, their codes and edits of latents -> tokens that differ by the edits alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.core.errors import UserError
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.model.intervene import exchange_codes
from sae.model.sae import SAE, Codes

_EDIT = re.compile(r"(\d+)=(set|add|multiply):([^x]+?)(xmax)?")
BATCH_TOKENS = 1 << 15


@dataclass(frozen=True)
class Edit:
    """What is done to the activation of one latent."""

    latent: int
    how: Literal["set", "add", "multiply"]
    value: float
    """What is set or added, in the SAE's own scale; or the factor."""
    of_max: bool = False
    """`value` still counts in maxima of the latent: see `with_maxima`."""

    def new_acts(self, acts: Tensor) -> Tensor:
        """(n,) -> (n,)."""
        if self.how == "set":
            return torch.full_like(acts, self.value)
        return acts + self.value if self.how == "add" else acts * self.value


def parse_edits(texts: Sequence[str], n_latents: int) -> list[Edit]:
    """`17=set:2xmax`, `17=add:1`, `17=multiply:0`. Raises `UserError` for anything else."""
    edits = [_parse(text) for text in texts]
    if not edits:
        raise UserError("no --latent is given; use e.g. --latent 17=multiply:0")
    for number, edit in enumerate(edits):
        if edit.latent >= n_latents:
            raise UserError(
                f"--latent {texts[number]}: the SAE has the latents 0 to {n_latents - 1}"
            )
        if edit.latent in [other.latent for other in edits[:number]]:
            raise UserError(f"--latent {edit.latent} is given twice; give one edit a latent")
    return edits


def _parse(text: str) -> Edit:
    found = _EDIT.fullmatch(text.strip())
    try:
        value = float(found[3]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or not math.isfinite(value) or (found[4] and found[2] == "multiply"):
        raise UserError(
            f"--latent {text!r} is no edit; use LATENT=set:VALUE, LATENT=add:VALUE (VALUE is a "
            "number such as 1.5, or 2xmax) or LATENT=multiply:FACTOR"
        )
    how = cast(Literal["set", "add", "multiply"], found[2])
    return Edit(int(found[1]), how, value, of_max=bool(found[4]))


def with_maxima(edits: Sequence[Edit], maxima: Sequence[float]) -> list[Edit]:
    """Values that count in maxima as activations; `maxima` has one a latent, in order."""
    return [
        replace(edit, value=edit.value * most, of_max=False) if edit.of_max else edit
        for edit, most in zip(edits, maxima, strict=True)
    ]


def edit_tokens(
    model: SAE, x: Tensor, codes: Codes, edits: Sequence[Edit], where: Tensor
) -> Tensor:
    """Raw embeddings x (n, d) of these codes after the edits, with the SAE's error kept:
    x + decode(edited codes) - decode(codes).

    `where` (n, n_edits) bool says at which tokens each edit is made; elsewhere x comes back bit for
    bit. A latent that a token does not keep has the activation 0 there.
    """
    changed = exchange_codes(model, x, codes, change_codes(codes, edits, where))
    return torch.where(where.any(1, keepdim=True), changed, x)


def change_codes(codes: Codes, edits: Sequence[Edit], where: Tensor) -> Codes:
    """Codes with a column more an edit: what it adds to the latent's activation."""
    n = len(codes.acts)
    acts, latents = [codes.acts], [codes.latents]
    for place, edit in enumerate(edits):
        before = acts_of(codes, edit.latent)
        difference = (edit.new_acts(before) - before) * where[:, place]
        acts.append(difference[:, None])
        latents.append(codes.latents.new_full((n, 1), edit.latent))
    return codes._replace(acts=torch.cat(acts, 1), latents=torch.cat(latents, 1))


def acts_of(codes: Codes, latent: int) -> Tensor:
    """(n,) activations of one latent."""
    return codes.acts.where(codes.latents == latent, 0).sum(1)


def covers(store: EmbeddingStore, tokens: str) -> slice:
    """Which of a store's tokens are those that an SAE on `tokens` reads. Raises `UserError`."""
    there = store.info.tokens
    if tokens in ("", there):
        return slice(None)
    if there != "all":
        raise UserError(
            f"the SAE reads the tokens {tokens!r}, but {store.path} holds {there!r}; use the store "
            "that it was trained on"
        )
    return slice(1, None) if tokens == "patch" else slice(1)


@torch.no_grad()
def latent_maxima(
    model: SAE,
    store: EmbeddingStore,
    latents: Sequence[int],
    device: torch.device,
    rows: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """The largest activation of each of these latents over a store's tokens (of these rows)."""
    part, n = covers(store, model.config.tokens), store.info.n_images if rows is None else len(rows)
    most, done = torch.zeros(len(latents), device=device), 0
    for batch in store.batches(max(1, BATCH_TOKENS // store.info.tokens_per_image), rows):
        codes = model.encode(batch.x[:, part].flatten(0, 1).to(device).float())
        found = torch.stack([acts_of(codes, latent).max() for latent in latents])
        most = torch.maximum(most, found)
        done += len(batch.rows)
        if progress is not None:
            progress(done, n)
    return most.tolist()
