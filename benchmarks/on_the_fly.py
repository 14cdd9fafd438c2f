"""Images a second and peak memory of a training on the fly, beside `sae embed` of the same images.

    python benchmarks/on_the_fly.py --sizes 2000 20000 --json on_the_fly.json

Drawn pictures of 32 pixels go through a CLIP (the built-in one by default), its patches at a block
into a TopK SAE. Each command is a process of its own. Seconds are those of the processor (user +
system) and those of the clock; both of the images alone: a run on a few is taken off. The two
commands take turns, `--repeats` times, and the quickest of each counts: what else a shared machine
does makes all of it slower, the processor's seconds too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SOURCE = ("--tokens", "patch", "--workers", "0", "--device", "cpu")
TRAIN = ("--epochs", "1", "--buffer-tokens", "16384")


class Used(NamedTuple):
    """What a command took."""

    processor: float  # seconds, user + system
    clock: float  # seconds
    megabytes: float  # at its peak


def draw(folder: Path, n: int) -> None:
    """n coloured rectangles; all contents differ."""
    rng = np.random.default_rng(0)
    for number in range(n):
        pixels = np.full((32, 32, 3), rng.integers(0, 256, 3), np.uint8)
        left, top, side = rng.integers(0, 16, 3)
        pixels[top : top + side + 4, left : left + side + 4] = rng.integers(0, 256, 3)
        pixels[0, 0] = number // 65536, number // 256 % 256, number % 256
        path = folder / f"class{number % 10}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def run(*words: object) -> Used:
    """Run `sae` with these words in a process of its own."""
    command = [sys.executable, "-m", "sae", *map(str, words)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    seconds = time.monotonic() - start
    return Used(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024)


def measure(
    folder: Path, n: int, source: Sequence[str], settings: Sequence[object], repeats: int
) -> dict[str, Used]:
    """Both commands in turn on n images, the training with these settings: least time, highest
    memory of each."""
    images = folder / f"images{n}"
    draw(images, n)
    named = ("--domain", f"photo={images}", *SOURCE, *source)
    more: dict[str, Sequence[object]] = {"embed": (), "train": (*TRAIN, *settings)}
    used: dict[str, list[Used]] = {name: [] for name in more}
    for repeat in range(repeats):
        for name, words in more.items():
            out = folder / f"{name}-{n}-{repeat}"
            used[name].append(run(name, *named, *words, "--out", out))
            shutil.rmtree(out)
            print(n, name, *(f"{value:.1f}" for value in used[name][-1]), flush=True)
    return {name: _best(of) for name, of in used.items()}


def _best(of: Sequence[Used]) -> Used:
    processor, clock, megabytes = zip(*of, strict=True)
    return Used(min(processor), min(clock), max(megabytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--few", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clip", default="tiny")
    parser.add_argument("--layer", default="1")
    parser.add_argument("--n-latents", type=int, default=64)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument(
        "--batch-size", type=int, default=1024, help="what trainings of a million tokens take"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = ("--clip", arguments.clip, "--layer", arguments.layer)
    settings = ("--n-latents", arguments.n_latents, "--k", arguments.k)
    settings += ("--batch-size", arguments.batch_size)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        few = measure(Path(folder), arguments.few, source, settings, arguments.repeats)
        for n in arguments.sizes:
            used = measure(Path(folder), n, source, settings, arguments.repeats)
            more = n - arguments.few
            for name, value in used.items():
                for kind in ("processor", "clock"):
                    seconds = getattr(value, kind) - getattr(few[name], kind)
                    figures[f"{name} {n}: images a second of the {kind}"] = more / seconds
                figures[f"{name} {n}: peak MB"] = value.megabytes
            for kind in ("processor", "clock"):
                embed, train = (figures[f"{w} {n}: images a second of the {kind}"] for w in used)
                figures[f"{n}: train / embed, of the {kind}"] = train / embed
    for name, figure in figures.items():
        print(f"{name:<48} {figure:10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
