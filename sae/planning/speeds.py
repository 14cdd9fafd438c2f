"""A CLIP, an SAE and a disk on this machine -> how quickly each works, timed for some seconds."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from sae.clip.image_loader import default_workers
from sae.clip.model import Clip
from sae.clip.names import RANDOM, open_clip_module, resolve_name
from sae.clip.vectors import embed_batch, forward_lanes
from sae.core.clip_name import FILE, split_adapter
from sae.core.disk import free_bytes, nearest, require_room
from sae.core.errors import UserError
from sae.core.files import write_tensors
from sae.core.progress import Bar
from sae.data.images import read_image, read_size
from sae.data.store_format import Vectors
from sae.model.init import start
from sae.model.sae import SAE
from sae.planning.sizes import Sizes
from sae.training.feed.batches import room_for_data
from sae.training.loop import Trainer

PICTURE = (500, 375)
"""Pixels of the timed JPEG: what ImageNet's images have on average; and as they, 0.1 MB."""
BATCH_IMAGES = 128
"""That go through CLIP at once, as in `sae embed`."""
DEAD = 0.1
"""Share of the latents that are dead in the timed steps: AuxK works on them."""
MOST_WRITTEN = 1 << 30
PIECE_BYTES = 1 << 26
TRAINED_COPIES = 4
"""SAEs in memory while one is trained: weights, gradients, Adam's two moments."""


@dataclass(frozen=True)
class Speeds:
    """What was timed on one device. A rate is of things a second."""

    device: str
    is_cpu: bool
    """CLIP and the decoders then share the cores."""
    n_cores: int
    """Decoding processes that a device has to itself."""
    clip: float
    """Images through CLIP."""
    decode: float
    """Images decoded and resized by one core."""
    look: float
    """Images read for their hash and their header by one core."""
    steps: float
    """Training steps of which one of the devices takes its part."""
    steps_alone: float
    """Training steps of one device by itself."""
    encode: float
    """Tokens whose latents are computed."""
    write: float
    """Bytes that reach the disk."""
    read: float
    """Bytes read from it, not from memory."""
    free: int
    """Bytes of room on it."""
    held: int
    """Bytes of training data that are kept in memory; more are read again each pass."""

    @property
    def embed(self) -> float:
        """Images decoded and put through CLIP."""
        decoded = self.decode * self.n_cores
        if self.is_cpu:
            return 1 / (1 / self.clip + 1 / decoded)
        return min(self.clip, decoded)


def measure(
    clip: Clip,
    vectors: Vectors,
    sizes: Sizes,
    place: Path,
    n_devices: int = 1,
    seconds: float = 20.0,
    progress: Bar | None = None,
) -> Speeds:
    """Time the parts of a run of `sizes`, for about `seconds` in all; nothing stays in `place`.

    `n_devices` share each training step. Raises `UserError` for an SAE
    that the device cannot hold, and for a place that cannot be written.
    """
    device = clip.device
    _require_memory(sizes, device)
    show = progress or (lambda done, total, text="": None)
    show(0, 4, "decoding")
    decode, look, pixels = _time_decoding(clip, 0.08 * seconds)
    show(1, 4, "CLIP")
    n, once = 1, _time_clip(clip, vectors, pixels, 1, 0.0)
    if once * 0.1 * seconds > 2:  # not more than a third of the time in one batch
        n = int(min(BATCH_IMAGES, once * 0.1 * seconds))
    through_clip = _time_clip(clip, vectors, pixels, n, 0.3 * seconds)
    show(2, 4, "SAE")
    model = _untrained(sizes, device)
    per_device = -(-sizes.training.batch_size // n_devices)
    steps = _time_steps(model, sizes, per_device, 0.2 * seconds)
    alone = steps
    if n_devices > 1:
        alone = _time_steps(model, sizes, sizes.training.batch_size, 0.1 * seconds)
    encode = _time_encoding(model, sizes.training.batch_size, 0.1 * seconds)
    show(3, 4, "disk")
    written, read = _time_disk(place, sizes, 0.1 * seconds)
    show(4, 4)
    n_here = max(1, torch.cuda.device_count()) if device.type == "cuda" else 1
    return Speeds(
        device=_name(device),
        is_cpu=device.type == "cpu",
        n_cores=max(1, default_workers(1 << 30, n_here)),
        clip=through_clip,
        decode=decode,
        look=look,
        steps=steps,
        steps_alone=alone,
        encode=encode,
        write=written,
        read=read,
        free=free_bytes(place),
        held=room_for_data(device, n_devices),
    )


def _require_memory(sizes: Sizes, device: torch.device) -> None:
    needed = TRAINED_COPIES * sizes.sae_bytes
    there = _memory(device)
    if there and needed > there:
        raise UserError(
            f"to train {sizes.sae.n_latents:,} latents of width {sizes.sae.d} takes "
            f"{needed / 1e9:,.1f} GB of memory, and {_name(device)} has {there / 1e9:,.1f} GB; "
            "name fewer --n-latents, or another --device"
        )


def _memory(device: torch.device) -> int:
    """Of the device in all; 0 where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, AttributeError):  # neither macOS nor Windows tells
        return 0


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "this machine's CPU" if device.type == "cpu" else device.type


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Things a second, of a `work` that tells how many it has done.

    The first call warms up, and counts only where it alone takes as long.
    """
    first = time.perf_counter()
    n = work()
    started = time.perf_counter()
    if started - first >= seconds:
        return n / max(started - first, 1e-9)
    n, spent = 0, 0.0
    while spent < seconds:
        n += work()
        spent = time.perf_counter() - started
    return n / max(spent, 1e-9)


def name_timed(clip: str) -> str:
    """The CLIP that is timed in place of `clip`: of open_clip's models that of random weights.

    It takes as long, and nothing is fetched. "ViT-B-16" needs no tag; prompts put on a CLIP are
    left out. Raises `UserError` for a name that does not exist.
    """
    base, _ = split_adapter(clip)
    if base.replace("/", "-") in open_clip_module().list_models():
        return f"{base.replace('/', '-')}/{RANDOM}"
    request = resolve_name(base)
    return f"{request.model}/{RANDOM}" if request.tag and FILE not in base else base


class _Timed(NamedTuple):
    """What decoding came to."""

    decode: float
    look: float
    pixels: np.ndarray
    """(s, s, 3), ready for CLIP."""


def _time_decoding(clip: Clip, seconds: float) -> _Timed:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        picture.write_bytes(_picture())

        def decode() -> int:
            clip.preprocess.resize(read_image(picture)[1])
            return 1

        def look() -> int:
            read_size(picture)
            return 1

        pixels = clip.preprocess.resize(read_image(picture)[1])
        return _Timed(_rate(decode, seconds * 0.7), _rate(look, seconds * 0.3), pixels)


def _picture() -> bytes:
    """A JPEG whose detail makes it as large as a photo of its size."""
    random = np.random.default_rng(0)
    width, height = PICTURE
    coarse = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize(PICTURE, Image.Resampling.BICUBIC)
    grainy = np.asarray(smooth) + random.normal(0, 10, (height, width, 3))
    written = io.BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=90)
    return written.getvalue()


def _time_clip(clip: Clip, vectors: Vectors, pixels: np.ndarray, n: int, seconds: float) -> float:
    with forward_lanes(clip, [vectors], n) as lanes:

        def run() -> int:
            embed_batch(clip, [vectors], [pixels] * n, lanes)
            return n

        return _rate(run, seconds)


def _untrained(sizes: Sizes, device: torch.device) -> SAE:
    x = torch.randn(4096, sizes.sae.d, generator=torch.Generator().manual_seed(0))
    return start(sizes.sae, x).to(device)


def _time_steps(model: SAE, sizes: Sizes, n: int, seconds: float) -> float:
    """Steps on `n` tokens that are made up, of a trainer as `sae train` has it."""
    device = model.W_dec.device
    trainer = Trainer(model.train(), sizes.training)
    x = torch.randn(n, sizes.sae.d, device=device)
    n_dead = int(DEAD * sizes.sae.n_latents)

    def step() -> int:
        trainer.silent_for[:n_dead] = sizes.training.dead_after
        float(trainer.step(x).loss)  # waits for the device
        return 1

    return _rate(step, seconds)


def _time_encoding(model: SAE, n: int, seconds: float) -> float:
    x = torch.randn(n, model.d, device=model.W_dec.device)
    model.eval()

    def encode() -> int:
        with torch.inference_mode():
            float(model.encode(x).acts.sum())
        return n

    return _rate(encode, seconds)


def _time_disk(place: Path, sizes: Sizes, seconds: float) -> tuple[float, float]:
    """Bytes a second that are written and are on the disk, and that are read from it."""
    n = int(max(1, min(PIECE_BYTES, sizes.store_bytes)))
    require_room(place, n)
    piece = torch.zeros(n, dtype=torch.uint8)
    with tempfile.TemporaryDirectory(dir=nearest(place), prefix=".sae-plan-") as folder:
        file, spent, n_done = Path(folder) / "piece.safetensors", 0.0, 0
        while n_done == 0 or (spent < seconds * 0.7 and n_done + n <= MOST_WRITTEN):
            started = time.perf_counter()
            write_tensors(file, {"x": piece})
            _sync(file)
            spent, n_done = spent + time.perf_counter() - started, n_done + n
        return n_done / max(spent, 1e-9), _time_reading(file, n)


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _time_reading(file: Path, n: int) -> float:
    with file.open("rb", buffering=0) as opened:
        if hasattr(os, "posix_fadvise"):  # forget what memory has of it
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        while opened.read(1 << 22):
            pass
        return n / max(time.perf_counter() - started, 1e-9)
