"""Images that a stage will look at -> rows, before it looks."""

from __future__ import annotations

import threading

import torch
from PIL import Image
from torch import Tensor

from interp.local.clip_encoder import BATCH, ClipEncoder, SeenOnce
from interp.records.types import Evidence, Example
from sae.data.images import BadImage
from tests.support.interp.latents import ColourClip, make_evidence, plain


class OneIsGone:
    """Images that are red, but for the first one, which cannot be read."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.gone, *self.others = {e.image_id: e for e in evidence.examples}.values()

    def of(self, _latent: int) -> Evidence:
        return self.evidence

    def image(self, example: Example) -> Image.Image:
        self.check_image(example)
        return plain("red")[0]

    def check_image(self, example: Example) -> None:
        if example == self.gone:
            raise BadImage("it is gone")


def test_images_go_through_clip_once_in_full_batches_without_the_unreadable() -> None:
    clip, files = ColourClip(), OneIsGone(make_evidence())
    encoder = ClipEncoder(clip)
    source = SeenOnce(files, encoder)
    some = files.others[: BATCH + 1]
    source.look_at([files.gone, *some, *some])
    source.look_at(some)
    assert clip.batches == [BATCH, BATCH]
    assert files.gone.image_id not in encoder
    assert all(example.image_id in encoder for example in some)


class TwoAtOnce(ColourClip):
    """Each pass waits for another one beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2, timeout=30)

    def image_features(self, pixels: Tensor) -> Tensor:
        self.both.wait()
        return super().image_features(pixels)


def test_batches_go_through_clip_beside_each_other_and_torch_keeps_its_threads() -> None:
    files, before = OneIsGone(make_evidence()), torch.get_num_threads()
    encoder, alone = ClipEncoder(TwoAtOnce()), ClipEncoder(ColourClip())
    some = files.others[: BATCH + 1]
    try:
        torch.set_num_threads(2)
        SeenOnce(files, encoder).look_at(some)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    SeenOnce(files, alone).look_at(some)
    ids = [example.image_id for example in some]
    assert torch.equal(encoder.known(ids), alone.known(ids))
