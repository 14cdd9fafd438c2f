"""A green disc planted on wide and tall images, and an SAE that finds it: where the heat must be.

The disc is a drawing of the built-in world, pasted at a known place; its latent is fitted on OTHER
images. Latent 0 answers to patches of the disc, latent 1 to nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sae.clip.model import Clip
from sae.clip.names import BUILT_IN
from sae.data.view import View
from sae.model.sae import SAE, SAEConfig
from sae.world import Placed, Scene, draw

LAYER = "1"
SIZES = {"wide": (256, 128), "tall": (128, 256), "square": (128, 128)}


class Planted(NamedTuple):
    """An image and where its disc is."""

    image: Image.Image
    mask: NDArray[np.bool_]  # (h, w)


def copy_tiny(folder: Path, resize_mode: str) -> str:
    """The built-in CLIP with another transform; its name for `load_clip`."""
    shutil.copytree(BUILT_IN["tiny"], folder, dirs_exist_ok=True)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"]["resize_mode"] = resize_mode
    path.write_text(json.dumps(config))
    return f"local-dir:{folder}"


def plant(shape: str, view: View, number: int) -> Planted:
    """A green disc on sand and a blue square beside it, in the part that the model sees whole."""
    rng = np.random.default_rng([number, *shape.encode(), *view.encode()])
    width, height = SIZES[shape]
    left, top, *seen = (width - 128) // 2, (height - 128) // 2, 128, 128
    if view != "crop":
        left, top, *seen = 0, 0, width, height
    page = np.full((height, width, 3), (214, 190, 140), np.uint8)
    page += rng.integers(0, 8, page.shape, dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    for name, colour, side in (("circle", "green", 72), ("square", "blue", 32)):
        room = np.ones((seen[1] - side + 1, seen[0] - side + 1), bool)
        if mask.any():  # beside the disc
            ys, xs = np.nonzero(mask)
            first = [max(0, at.min() - start - side) for at, start in ((ys, top), (xs, left))]
            room[first[0] : ys.max() + 1 - top, first[1] : xs.max() + 1 - left] = False
        y, x = np.add(rng.choice(np.argwhere(room)), (top, left))
        placed = Placed(name, (0.0, 0.0), 0.8, 0.0, 1.0, "large", "", colour)
        scene = Scene(number, "photo", (placed,), "", "upright", "", background="plain")
        pixels, masks = draw(scene, side)
        page[y : y + side, x : x + side][masks[0]] = pixels[masks[0]]
        if colour == "green":
            mask[y : y + side, x : x + side] = masks[0]
    return Planted(Image.fromarray(page), mask)


def fit_sae(clip: Clip, planted: Iterator[Planted]) -> SAE:
    """Latent 0 is 1 on patches that the disc covers and 0 elsewhere, as far as a line can tell."""
    tokens, truth = [], []
    rows, columns = clip.grid()
    for image, mask in planted:
        pixels = clip.preprocess(image)[None]
        tokens.append(clip.embed_images(pixels, LAYER, "patch")[0].double())
        shown = Image.fromarray(np.repeat(255 * mask[..., None], 3, 2).astype(np.uint8))
        seen = clip.preprocess.resize(shown)[..., 0] / 255  # what the model sees of the disc
        share = seen.reshape(rows, seen.shape[0] // rows, columns, -1).mean((1, 3))
        truth.append(torch.from_numpy(share.ravel()))
    x, y = torch.cat(tokens), torch.cat(truth)
    mean = x.mean(0)
    centred = x - mean
    d = x.shape[1]
    ridge = centred.T @ centred + 1e-3 / d * centred.square().sum() * torch.eye(d).double()
    w = torch.linalg.solve(ridge, centred.T @ (y - y.mean()))
    sae = SAE(SAEConfig(d=d, n_latents=2, k=0, activation="relu", layer=LAYER))
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.W_enc[0] = w.float()
        sae.b_enc[:] = torch.tensor([float(y.mean() - w @ mean) - 0.1, -1.0])
        sae.W_dec[0] = w.float()
        sae.normalise_decoder()
    return sae
