"""Latents that share a label -> a next best name that tells one's images from the others'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from interp.local import naming
from interp.local.clip_encoder import ClipEncoder, embed_terms
from interp.local.models import choose_named, fingerprint, letters_of
from interp.local.vocabulary import texts_of
from interp.pictures.cache import Images, read_images
from interp.pictures.contrast import Contrast
from interp.records.family import LOCAL
from interp.records.types import UNREADABLE, AnsweredBy, Evidence, Example, Explanation
from interp.records.wording import wording

NEARLY = 0.75
"""Share of what the label reaches on the latent's images that another name must reach on them."""
LEAST_GAIN = 0.1
"""By which another name must tell the images apart better: in AUROC, of the latent's images against
those of the others."""
LEAST_APART = 0.6
"""What it must come to."""
MIN_IMAGES = 3


class LocalApart:
    """Chooses again among the names that were considered for a latent, without a key."""

    name = LOCAL

    def __init__(
        self,
        encoder: ClipEncoder,
        background: Iterable[tuple[str, Image.Image]],
        contrast_of: Callable[[int], Contrast],
    ) -> None:
        """`contrast_of`: what a latent is held against."""
        self.prompt = self.identify(encoder.clip.name).prompt
        self.encoder = encoder
        self.background = encoder.encode(background)  # (b, d)
        self._contrast_of = contrast_of

    @classmethod
    def identify(cls, clip_name: str) -> AnsweredBy:
        """Name and prompt with this CLIP; nothing is loaded."""
        settings = (NEARLY, LEAST_GAIN, LEAST_APART, naming.SHARED_BY)
        return AnsweredBy(cls.name, fingerprint("apart", clip_name, *settings))

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """The latent's explanation with the name that tells it apart, or with its old one."""
        latent = evidence.stats.latent
        contrast = self._contrast_of(latent)
        own = read_images(images, choose_named(evidence))
        others = read_images(images, contrast.examples)
        codes = letters_of([*own, *others])
        if min(len(own), len(others)) < MIN_IMAGES:
            by = AnsweredBy(self.name, self.prompt)
            return Explanation.failed(latent, by, UNREADABLE, codes)
        label = contrast.own.label or ""
        names = [label, *_further(contrast)]
        texts = [texts_of(name, self.encoder.clip.name) for name in names]
        similar = embed_terms(self.encoder.clip, texts).T  # (d, c)
        usual = self.background @ similar
        z_own, z_others = (
            naming.standardise(self._rows(some) @ similar, usual) for some in (own, others)
        )
        chosen = choose_name(z_own, z_others, naming.Usual.of(usual).reach)
        answer = replace(
            contrast.own,
            model=self.name,
            provider=None,
            prompt=self.prompt,
            server="",
            codes=codes,
            calls=(),
            usd=0.0,
            provenance=contrast.in_words(),
        )
        if not chosen:
            return answer
        second = contrast.own.second_label
        told = names[chosen]
        return replace(
            answer,
            label=told,
            second_label=second if wording(second or "") != wording(told) else None,
            description="",  # it was the old label's
            candidates=(told, *(name for name in contrast.own.candidates if name != told)),
        )

    def _rows(self, shown: Mapping[Example, Image.Image]) -> Tensor:
        return self.encoder.encode((e.image_id, image) for e, image in shown.items())


def choose_name(own: Tensor, others: Tensor, reach: Tensor) -> int:
    """The place of the name that tells the latent's images (n, c) from those of others (m, c) best;
    0, the label that they share, where none does so clearly better and fits nearly as well.

    `own` and `others`: deviations above what is usual, `reach`: (c,) how far each name can go.
    """
    fit = naming.score_terms(own) / reach
    apart = (own[:, None] > others).double().mean((0, 1))
    apart += (own[:, None] == others).double().mean((0, 1)) / 2
    allowed = (fit > 0) & (fit >= NEARLY * fit[0])
    allowed &= (apart >= LEAST_APART) & (apart >= apart[0] + LEAST_GAIN)
    if not bool(allowed[1:].any()):
        return 0
    return int(torch.where(allowed, apart, -1.0).argmax())


def _further(contrast: Contrast) -> list[str]:
    """The names that were considered beside the label and that no latent has."""
    considered = {wording(name): name for name in reversed(contrast.own.candidates)}
    free = [name for key, name in considered.items() if key and key not in contrast.taken]
    return free[::-1]
