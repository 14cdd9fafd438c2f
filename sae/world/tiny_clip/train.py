"""Train the tiny CLIPs that ship in `sae/world/tiny_clip/weights/` and `weights_conv/`:

    python -m sae.world.tiny_clip.train --out sae/world/tiny_clip/weights
    python -m sae.world.tiny_clip.train --arch conv --seed 1 --out sae/world/tiny_clip/weights_conv

Ordinary open_clip `CLIP`s (its ViT or its ModifiedResNet, its text tower) on drawings of the
built-in world. Every choice is fixed by the seed, the scenes too: two seeds share no scene. One
thread is fastest on small machines, the ViT in bfloat16, the ModifiedResNet in float32.

What makes so small a model learn so fast (each measured; see the model card beside the weights):
Muon on the matrices of the transformer blocks, a head on the last map that must say which
object covers each patch (token labelling, Jiang et al. 2021), a head on the image embedding that
must say every concept, a first third of easy scenes, captions that name one attribute, and no
penalty for a match of image and caption that the truth says is right.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sae.core.files import replacing, write_json, write_tensors
from sae.core.progress import bar
from sae.world.scene.concepts import OBJECTS
from sae.world.tiny_clip.architectures import ARCHITECTURES, Architecture
from sae.world.tiny_clip.train_data import (
    CONTEXT,
    N_CAPTIONS,
    N_PATCHES,
    NO_OBJECT,
    Examples,
    make_examples,
)

MEAN, STD = 0.5, 0.28
SAVE_EVERY = 500
"""Steps between two savings, so that a training cut short leaves weights."""
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 0,  # the vocabulary's, set when the model is built
        "width": 128,
        "heads": 4,
        "layers": 2,
        "tokenizer_kwargs": {"bpe_path": "vocab.txt.gz"},
    },
}
PREPROCESS_CONFIG: dict[str, Any] = {
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast."""

    arch: str = "vit"

    n_scenes: int = 160_000
    """Scenes drawn once, then seen several times."""
    n_views: int = 900_000
    """Images that the model sees in all; about 75 minutes of one core."""
    batch_size: int = 128
    muon_lr: float = 0.03
    """Muon: the matrices of the transformer blocks."""
    weight_decay: float = 0.05
    warmup_steps: int = 150
    easy_share: float = 0.25
    """First part of the training that sees single, clear objects only."""
    one_attribute_share: float = 0.3
    """Captions that name one attribute, after the easy part (.1 in it)."""
    concept_weight: float = 0.5
    patch_weight: float = 1.0
    seed: int = 0


class Heads(nn.Module):
    """The two helpers of the training; thrown away after it."""

    def __init__(self, d_embed: int, arch: Architecture, n_concepts: int) -> None:
        super().__init__()
        self.concepts = nn.Linear(d_embed, n_concepts)
        self.n_fine = N_PATCHES // arch.map_side  # patches a side that one place of the map covers
        self.patches = nn.Linear(arch.d_map, (NO_OBJECT + 1) * self.n_fine**2)

    def patch_logits(self, last_map: Tensor) -> Tensor:
        """(b, 1 + side**2, d) tokens or a (b, d, side, side) map -> (b, objects + 1, 8, 8)."""
        if last_map.ndim == 3:
            tokens = last_map[:, 1:]
            last_map = tokens.reshape(len(tokens), N_PATCHES, N_PATCHES, -1).permute(0, 3, 1, 2)
        logits = self.patches(last_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(logits, self.n_fine)


class Batch:
    """One batch as tensors."""

    def __init__(self, data: Examples, rows: NDArray[np.int64], which: NDArray[np.int64]) -> None:
        pixels = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).float()
        self.pixels = (pixels / 255 - MEAN) / STD  # (b, 3, 64, 64)
        self.tokens = torch.from_numpy(data.tokens[rows, which].astype(np.int64))  # (b, 20)
        self.truth = torch.from_numpy(data.truth[rows]).float()  # (b, concepts)
        self.claims = torch.from_numpy(data.claims[rows, which]).float()  # (b, concepts)
        patches = data.patches[rows].reshape(-1, N_PATCHES, N_PATCHES)
        self.patches = torch.from_numpy(patches.astype(np.int64))  # (b, 8, 8)


def build(vocab_size: int, arch: str, seed: int) -> Any:
    """An `open_clip.model.CLIP` with fresh weights."""
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    text = {**MODEL_CONFIG["text_cfg"], "vocab_size": vocab_size}
    text.pop("tokenizer_kwargs")
    return CLIP(MODEL_CONFIG["embed_dim"], ARCHITECTURES[arch].vision, text)


def train(data: Examples, vocab_size: int, config: TrainingConfig, out: Path) -> None:
    """Train on drawn examples and save to `out`; prints a line of losses every 100 steps."""
    arch = ARCHITECTURES[config.arch]
    model = build(vocab_size, config.arch, config.seed).to(memory_format=torch.channels_last)
    heads = Heads(MODEL_CONFIG["embed_dim"], arch, data.truth.shape[1])
    maps: dict[str, Tensor] = {}
    module = model.visual.get_submodule(arch.last_map)
    module.register_forward_hook(lambda _m, _i, out: maps.__setitem__("last", out))
    optimizers = _optimizers(model, heads, config)
    n_steps = config.n_views // config.batch_size
    started = time.monotonic()
    # The flash kernel's backward pass takes 40% of a step at this size; plain products take 10%.
    with sdpa_kernel(SDPBackend.MATH):
        for step, batch in enumerate(_batches(data, config, n_steps)):
            _set_learning_rate(optimizers, config, step, n_steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=arch.bfloat16):
                image, text, logit_scale = model(batch.pixels, batch.tokens)[:3]
                patch_logits = heads.patch_logits(maps["last"])
            contrastive = contrastive_loss(image.float(), text.float(), logit_scale, batch)
            helpers = _helper_loss(heads, image.float(), patch_logits.float(), batch, config)
            _update(model, heads, optimizers, contrastive + helpers)
            if step % 100 == 0 or step == n_steps - 1:
                seconds = time.monotonic() - started
                print(
                    f"step {step}/{n_steps} {seconds:.0f} s "
                    f"{(step + 1) * config.batch_size / seconds:.0f} images/s "
                    f"contrastive {contrastive.item():.3f} helpers {helpers.item():.3f}",
                    flush=True,
                )
            if (step + 1) % SAVE_EVERY == 0 or step == n_steps - 1:
                save(model, vocab_size, config.arch, out)


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor, batch: Batch) -> Tensor:
    """CLIP's loss, without the pairs that only look wrong.

    Caption j is no negative of image i when everything that it claims is true of i.
    """
    logits = logit_scale * image @ text.T  # (b, b) images x captions
    false_claims = (1 - batch.truth) @ batch.claims.T  # (b, b) claims of j that fail for i
    also_true = (false_claims == 0) & ~torch.eye(len(logits), dtype=torch.bool)
    logits = logits.masked_fill(also_true, -1e4)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def save(model: nn.Module, vocab_size: int, arch: str, out: Path) -> None:
    """Write the folder that `local-dir:` of open_clip loads, in float16."""
    out.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
        if name != "attn_mask"
    }
    write_tensors(out / "open_clip_model.safetensors", state)
    text = {**MODEL_CONFIG["text_cfg"], "vocab_size": vocab_size}
    model_config = {
        "embed_dim": MODEL_CONFIG["embed_dim"],
        "vision_cfg": ARCHITECTURES[arch].vision,
        "text_cfg": text,
    }
    config = {"model_cfg": model_config, "preprocess_cfg": PREPROCESS_CONFIG}
    write_json(out / "open_clip_config.json", config)
    vocabulary = Path(__file__).with_name("vocab.txt.gz").read_bytes()
    with replacing(out / "vocab.txt.gz") as part:
        part.write_bytes(vocabulary)


def main() -> None:
    """Draw, train, save; then measure with `python -m sae.world.tiny_clip.measure`."""
    default = TrainingConfig()
    parser = argparse.ArgumentParser(description="Train the tiny CLIP of the built-in world.")
    parser.add_argument("--out", type=Path, required=True, help="folder for config and weights")
    parser.add_argument("--arch", choices=list(ARCHITECTURES), default=default.arch)
    parser.add_argument("--scenes", type=int, default=default.n_scenes)
    parser.add_argument("--views", type=int, default=default.n_views)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--workers", type=int, default=0, help="drawing processes (0: all cores)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = TrainingConfig(
        arch=arguments.arch,
        n_scenes=arguments.scenes,
        n_views=arguments.views,
        seed=arguments.seed,
    )
    with bar("draw scenes") as progress:
        data = make_examples(config.n_scenes, config.seed, arguments.workers, progress)
    train(data, _vocab_size(), config, arguments.out)
    print(
        f"wrote {arguments.out}; "
        f"measure it with: python -m sae.world.tiny_clip.measure {arguments.out}"
    )


def _vocab_size() -> int:
    from open_clip.tokenizer import SimpleTokenizer

    path = Path(__file__).with_name("vocab.txt.gz")
    return int(SimpleTokenizer(bpe_path=str(path)).vocab_size)


def _batches(data: Examples, config: TrainingConfig, n_steps: int) -> Iterator[Batch]:
    rng = np.random.default_rng(config.seed)
    n_easy_steps = int(config.easy_share * n_steps)
    easy = _endless(np.flatnonzero(data.easy), config.batch_size, rng)
    everything = _endless(np.arange(len(data.images)), config.batch_size, rng)
    for step in range(n_steps):
        rows = next(easy if step < n_easy_steps else everything)
        share = 0.1 if step < n_easy_steps else config.one_attribute_share
        half = N_CAPTIONS // 2
        which = rng.integers(0, half, len(rows)) + half * (rng.random(len(rows)) < share)
        yield Batch(data, rows, which)


def _endless(
    rows: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    while True:
        shuffled = rng.permutation(rows)
        for start in range(0, len(rows) - size + 1, size):
            yield shuffled[start : start + size]


def _optimizers(
    model: nn.Module, heads: Heads, config: TrainingConfig
) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and ".resblocks." in name]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken] + list(heads.parameters())
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(groups, lr=ARCHITECTURES[config.arch].lr, betas=(0.9, 0.98)),
    ]


def _set_learning_rate(
    optimizers: list[torch.optim.Optimizer], config: TrainingConfig, step: int, n_steps: int
) -> None:
    warm = min(1.0, (step + 1) / config.warmup_steps)
    factor = warm * (0.5 + 0.5 * math.cos(math.pi * step / n_steps))
    rates = (config.muon_lr, ARCHITECTURES[config.arch].lr)
    for optimizer, lr in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr * factor


def _helper_loss(
    heads: Heads, image: Tensor, patch_logits: Tensor, batch: Batch, config: TrainingConfig
) -> Tensor:
    n_objects = len(OBJECTS)
    logits = heads.concepts(16 * image)  # (b, concepts); unit rows need the gain
    objects = batch.truth[:, :n_objects]
    concepts = F.cross_entropy(
        logits[:, :n_objects], objects / objects.sum(1, keepdim=True)
    ) + 5 * F.binary_cross_entropy_with_logits(logits[:, n_objects:], batch.truth[:, n_objects:])
    weight = torch.ones(n_objects + 1)
    weight[NO_OBJECT] = 0.1  # most patches are background
    patches = F.cross_entropy(patch_logits, batch.patches, weight)
    return config.concept_weight * concepts + config.patch_weight * patches


def _update(
    model: Any, heads: Heads, optimizers: list[torch.optim.Optimizer], loss: Tensor
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], 1.0)
    for optimizer in optimizers:
        optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))


if __name__ == "__main__":
    main()
