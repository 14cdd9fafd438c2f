"""Images and words -> unit rows of CLIP's embedding, each image once.

It is the pixels that are encoded: the embeddings that the SAE was trained on are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from interp.pictures.cache import EvidenceSource, read_images
from interp.records.types import Evidence, Example
from sae.core.distributed import forward_threads

BATCH = 16
"""Always exactly so many images go through CLIP at once (short batches are filled up with zeros):
then an image's embedding does not depend on its company, and a resumed run gives the same bytes."""


class ClipModel(Protocol):
    """What is used of `sae.clip.model.Clip`."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]: ...
    def image_features(self, pixels: Tensor) -> Tensor: ...
    def embed_texts(self, texts: Sequence[str]) -> Tensor: ...


class ClipEncoder:
    """Images to unit rows of CLIP's projected embedding; each distinct image is embedded once."""

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self._rows: dict[str, Tensor] = {}

    def __contains__(self, image_id: str) -> bool:
        """Whether the image was embedded before: its pixels are not needed again."""
        return image_id in self._rows

    def encode(self, pictures: Iterable[tuple[str, Image.Image]]) -> Tensor:
        """(b, d) unit rows on the CPU, in the order given; each image with its `image_id`.

        Raises `ValueError` for an image without one.
        """
        asked: list[str] = []
        fresh: dict[str, Image.Image] = {}  # never more than go through CLIP at once
        for image_id, image in pictures:
            if not image_id:
                raise ValueError("an image without image_id cannot be told from others")
            asked.append(image_id)
            if image_id not in self._rows:
                fresh[image_id] = image
            if len(fresh) == BATCH:
                self.keep(self.embed(fresh))
                fresh = {}
        self.keep(self.embed(fresh))
        return self.known(asked)

    def known(self, image_ids: Sequence[str]) -> Tensor:
        """(n, d) rows of images that were encoded before. Raises `KeyError` for another one."""
        return torch.stack([self._rows[image_id] for image_id in image_ids])

    def keep(self, rows: Mapping[str, Tensor]) -> None:
        """Know the rows that `embed` has made of these images."""
        self._rows |= rows

    def embed(self, images: Mapping[str, Image.Image]) -> dict[str, Tensor]:
        """The row of each image by its id, at most `BATCH` of them; none of them is kept."""
        if not images:
            return {}
        pixels = torch.stack([self.clip.preprocess(image) for image in images.values()])
        filled = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, BATCH - len(images)))  # (BATCH, 3, s, s)
        with torch.inference_mode():
            features = self.clip.image_features(filled.to(self.clip.device))
        return dict(zip(images, features[: len(images)].float().cpu(), strict=True))


class CheckedSource(EvidenceSource, Protocol):
    """An `EvidenceSource` that can look at a file without decoding it (`EvidenceReader`)."""

    def check_image(self, example: Example) -> None: ...


class SeenOnce:
    """An `EvidenceSource` that decodes an image until its encoder knows it.

    In the place of a known one comes a blank: decoding it again would cost more than all the rest
    of an answer. Its file is looked at all the same.
    """

    def __init__(self, source: CheckedSource, encoder: ClipEncoder) -> None:
        self._source, self._encoder = source, encoder
        self._blank = Image.new("RGB", (1, 1))

    def of(self, latent: int) -> Evidence:
        """As the source has it."""
        return self._source.of(latent)

    def look_at(self, examples: Iterable[Example]) -> None:
        """Have the encoder know these images, in full batches on all cores.

        Without it they are decoded one by one, and short batches are filled up with zeros. Those
        that cannot be read are left out.
        """
        asked = {e.image_id: e for e in examples if e.image_id not in self._encoder}
        fresh = list(asked.values())
        batches = [fresh[start : start + BATCH] for start in range(0, len(fresh), BATCH)]
        if batches:
            with forward_threads(self._encoder.clip.device, len(batches)) as pool:
                for images in pool.map(self._read_and_encode, batches):
                    self._encoder.keep(images)

    def _read_and_encode(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        shown = read_images(self._source.image, examples)
        return self._encoder.embed({e.image_id: image for e, image in shown.items()})

    def image(self, example: Example) -> Image.Image:
        """The example's picture. Raises what the source raises."""
        if example.image_id not in self._encoder:
            return self._source.image(example)
        self._source.check_image(example)
        return self._blank


def embed_terms(clip: ClipModel, terms: Sequence[Sequence[str]]) -> Tensor:
    """(c, d) unit rows: each the mean direction of one term's texts."""
    flat = [text for texts in terms for text in texts]
    with torch.inference_mode():
        rows = clip.embed_texts(flat).float().cpu()
    owner = torch.tensor([term for term, texts in enumerate(terms) for _ in texts])
    sums = torch.zeros(len(terms), rows.shape[1]).index_add_(0, owner, rows)
    return F.normalize(sums, dim=-1)
