"""What `sae steer classify` costs an image, in passes of the plain network.

    python benchmarks/steer_speed.py --clip ViT-B-32/random --json steer.json

The same batch goes in turn through the plain network, and through the steering of its 21
configurations (no_sae, and 10 numbers of latents on and off): the network up to the last block but
one and the SAE's encoder once, the rest and two decodings for each configuration. README.md in this
folder says what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from versions import versions  # noqa: E402

from sae.clip.model import load_clip  # noqa: E402
from sae.model.sae import SAE, SAEConfig  # noqa: E402
from sae.steering.classify import Rest  # noqa: E402
from sae.steering.config import SteerConfig  # noqa: E402
from sae.steering.plan import choose_ks, gather_sets, name_configurations  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="ViT-B-32/random")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--n-latents", type=int, default=49152)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    figures = measure(parser.parse_args())
    text = json.dumps(figures, indent=1)
    print(text)
    given = parser.parse_args().json
    if given:
        given.write_text(text + "\n")


def measure(asked: argparse.Namespace) -> dict[str, object]:
    """Median CPU and wall seconds of both, and how many plain passes the 21 cost."""
    clip = load_clip(asked.clip, asked.device)
    layer, generator = str(clip.n_blocks - 2), torch.Generator().manual_seed(0)
    pixels = torch.randn(asked.images, 3, clip.image_size, clip.image_size, generator=generator)
    pixels = pixels.to(clip.device)
    x = clip.tokens_at(clip.run_to(pixels, layer), "all").flatten(0, 1)
    model = _sae(x, asked).to(clip.device).eval()
    vectors = F.normalize(torch.randn(asked.classes, clip.d_embed, generator=generator), dim=1)
    rest = Rest(model, clip, "all", vectors.to(clip.device))
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(model.n_latents) for _ in range(asked.classes)])
    how, numbers = SteerConfig(control=False), np.arange(asked.classes)
    mass = np.ones(order.shape)
    sets = gather_sets(order, mass, numbers, choose_ks([], model.n_latents), how)
    configurations = name_configurations(sets.chosen, sets.control)[1:]
    jobs = (np.arange(asked.images), np.arange(asked.images) % asked.classes)

    def plain() -> None:
        clip.image_features(pixels)

    def steer() -> None:
        halfway = clip.run_to(pixels, layer)
        rest.name(halfway)
        rest.name_steered(halfway, *jobs, sets, configurations, True)

    turns: dict[str, list[tuple[float, float]]] = {"plain": [], "steered": []}
    for _ in range(asked.repeats + 1):  # the first warms up
        turns["plain"].append(_seconds(plain))
        turns["steered"].append(_seconds(steer))
    found: dict[str, object] = {"clip": asked.clip, "layer": layer, "images": asked.images}
    found |= {
        "n_latents": model.n_latents,
        "k": asked.k,
        "n_configurations": len(configurations) + 1,
    }
    for place, unit in enumerate(("cpu", "wall")):
        each = {name: [turn[place] for turn in taken[1:]] for name, taken in turns.items()}
        found |= {f"{name}_{unit}_seconds": median(values) for name, values in each.items()}
        ratios = [s / p for s, p in zip(each["steered"], each["plain"], strict=True)]
        found[f"plain_passes_{unit}"] = median(ratios)
    return found | versions(("torch", "open_clip_torch"))


def _sae(x: torch.Tensor, asked: argparse.Namespace) -> SAE:
    """Random unit directions, in the place and scale of the tokens x (n, d)."""
    model = SAE(SAEConfig(d=x.shape[1], n_latents=asked.n_latents, k=asked.k))
    with torch.no_grad():
        rows = torch.randn(model.W_enc.shape, generator=torch.Generator().manual_seed(1))
        model.W_enc.copy_(F.normalize(rows, dim=1))
        model.W_dec.copy_(model.W_enc)
        model.mean.copy_(x.mean(0))
        model.scale.copy_(x.std())
    return model


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of all threads, and seconds on the clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - began


if __name__ == "__main__":
    main()
