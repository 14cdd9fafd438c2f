"""What more processes and more images cost: `sae embed` by 1 and 2 ranks, `interp collect` by rows.

    python benchmarks/scale.py embed --images 4000 --json embed.json
    python benchmarks/scale.py collect --rows 100000 1280000 --latents drawn --json collect.json

`embed`: pictures of 256 pixels through the built-in CLIP, by one process on one core, by two ranks
with a core each, and by one process as it comes (all cores). Its seconds are the embedding's own,
from the first image read to the last shard; of three interleaved runs the quickest counts. It needs
a machine that does nothing else.

`collect`: a store whose rows are drawn by chance, shard after shard, and an SAE of random
directions, of which some fire more often than others. Each collect is a process of its own with one
thread; seconds are those of the processor, and memory is its peak, of which the pages of mapped
files are told apart. `--latents drawn` puts a hash of a row in the place of the SAE, which says
which k latents are active and how much: everything is measured but the product with the encoder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from interp.evidence.collect import collect as collect_evidence
from interp.evidence.config import CollectConfig
from sae.data.store import EmbeddingStore
from sae.data.store_format import ImageRow
from sae.data.store_writer import Plan, StoreWriter
from sae.interchange.load import load
from sae.model.sae import SAE, SAEConfig
from sae.model.sparsity import Codes

N_CLASSES = 1000
SHARD = 1 << 16
SPREAD = 0.1
"""Of the lengths of the SAE's encoder rows: longer ones fire more often."""


def draw(folder: Path, n: int) -> None:
    """n soft random pictures as JPEG; all contents differ."""
    rng = np.random.default_rng(0)
    for number in range(n):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        path = folder / f"class{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=90)


def embed(images: Path, out: Path, n_ranks: int, is_alone: bool) -> dict[str, Any]:
    """Figures of `sae embed --json`; `is_alone`: a core for each rank and no decoding processes."""
    figures = out.with_suffix(".json")
    words = ["embed", "--domain", f"photo={images}", "--out", out, "--json", figures]
    words += ["--device", "cpu", *(("--workers", "0") if is_alone else ())]
    one = [sys.executable, "-m", "sae"]
    ranks = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_ranks)]
    command = [*(one if n_ranks == 1 else [*ranks, "-m", "--", "sae"]), *map(str, words)]
    threads = {"OMP_NUM_THREADS": "1"} if is_alone else {}
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def measure_embedding(n_images: int, repeats: int, folder: Path) -> dict[str, Any]:
    """The quickest of the runs of each kind, and how much quicker two ranks are than one."""
    draw(folder / "images", n_images)
    kinds = {"1 rank, 1 core": (1, True), "2 ranks, 1 core each": (2, True), "default": (1, False)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for repeat in range(repeats):
        for number, (name, (n_ranks, is_alone)) in enumerate(kinds.items()):
            out = folder / f"store-{number}-{repeat}"
            runs[name].append(embed(folder / "images", out, n_ranks, is_alone))
            told = runs[name][-1]
            print(f"{name}: {told['images_per_second']:.1f} images/s", flush=True)
    best = {
        name: max(each, key=lambda run: run["images_per_second"]) for name, each in runs.items()
    }
    one, two, _ = (best[name]["images_per_second"] for name in kinds)
    for name, figures in best.items():
        busy = figures["model_busy"]
        print(f"{name:<22} {figures['images_per_second']:9.1f} images/s, model busy {busy:.0%}")
    print(f"2 ranks / 1 rank: {two / one:.2f}")
    return {"n_images": n_images, "runs": runs, "ratio": two / one}


def rows_of(span: range) -> list[ImageRow]:
    """What is told of these images: two domains, a thousand classes."""
    made = []
    for number in span:
        identity = hashlib.sha256(str(number).encode()).hexdigest()
        domain, label = ("photo", "sketch")[number % 5 == 0], f"class{number % N_CLASSES:04d}"
        made.append(ImageRow(identity, f"{label}/{number:08d}.jpg", domain, label, 256, 256))
    return made


def vectors(n: int, d: int, seed: int) -> torch.Tensor:
    """(n, 1, d) of unit length."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 1, d, generator=generator), dim=-1)


def write_store(folder: Path, n_rows: int, d: int) -> None:
    """A finished store; memory holds a shard, and at the end the list of images."""
    plan = Plan(
        clip="tiny",
        clip_sha="0",
        layer="projected",
        tokens="cls",
        dtype="float16",
        d=d,
        tokens_per_image=1,
        grid=[],
        shard_images=SHARD,
        n_files=n_rows,
        files="",
        roots={"photo": "../photo", "sketch": "../sketch"},
    )
    writer = StoreWriter(folder, plan)
    for shard in writer.left:
        span = plan.span(shard)
        writer.write_shard(vectors(len(span), d, shard), rows_of(span), [], shard)
    if writer.read_finished() is None:
        writer.finish()


def write_sae(folder: Path, n_latents: int, d: int, k: int) -> None:
    """Random directions; the encoder reads what the decoder writes, some of it louder."""
    model = SAE(SAEConfig(d=d, n_latents=n_latents, k=k))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.W_dec.copy_(torch.randn(n_latents, d, generator=generator))
        model.normalise_decoder()
        loudness = 1 + SPREAD * torch.randn(n_latents, 1, generator=generator)
        model.W_enc.copy_(model.W_dec * loudness)
    model.save(folder)


class DrawnLatents:
    """In the place of an SAE: which latents a row has is a hash of its first two numbers.

    One latent of each k-th of all; of these the first ones more often than the last ones.
    """

    def __init__(self, model: SAE) -> None:
        self.config, self.n_latents, self.W_dec = model.config, model.n_latents, model.W_dec
        self._k, self._numbers = model.config.k, torch.arange(model.config.k)

    def encode(self, x: torch.Tensor) -> Codes:
        """k latents of each row (n, d), which are the same whatever stands beside it."""
        seeds = x[:, :2].contiguous().view(torch.int32).long()  # (n, 2)
        mixed = (seeds[:, :1] ^ (seeds[:, 1:] << 20)) + 0x9E3779B97F4A7 * (self._numbers + 1)
        mixed = (mixed ^ (mixed >> 29)) * 0x4F1BBCDCBFA53E0B
        chance = ((mixed >> 20) & 0xFFFFF).double() / (1 << 20)  # (n, k) in [0, 1)
        each = self.n_latents // self._k
        latents = (chance**1.5 * each).long() + each * self._numbers
        return Codes((1 + ((mixed >> 40) & 0xFFFF)).float() / 4096, latents)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"W_dec": self.W_dec}


def collect_drawn(sae: Path, store: Path, run: Path) -> None:
    """`interp collect` with drawn latents, in this process."""
    torch.set_num_threads(1)
    model, settings = DrawnLatents(load(sae)), CollectConfig(no_groups=True)
    collect_evidence(EmbeddingStore.open(store), model, run, settings, overwrite=True)


def collect(sae: Path, store: Path, run: str, folder: Path, is_drawn: bool) -> dict[str, Any]:
    """Processor seconds and peak memory of `interp collect` in a process of its own."""
    command = [sys.executable, "-m", "interp", "collect", str(sae), str(store), "--run", run]
    command += ["--no-groups", "--device", "cpu", "--overwrite"]
    if is_drawn:
        command = [sys.executable, __file__, "drawn", "--at", str(sae), str(store), run]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (folder / f"{run}.log").open("w") as log:
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **threads}
        )
        peaks = {"RssAnon": 0, "RssFile": 0}
        watcher = threading.Thread(target=watch, args=(process.pid, peaks))
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} failed; see {folder / f'{run}.log'}")
    return {
        "processor": used.ru_utime + used.ru_stime,
        "clock": seconds,
        "peak_mb": used.ru_maxrss / 1024,
        "peak_anonymous_mb": peaks["RssAnon"] / 1024,
        "peak_mapped_mb": peaks["RssFile"] / 1024,
    }


def watch(pid: int, peaks: dict[str, int]) -> None:
    """The most kB that a process had at one time of each kind, until it is gone; Linux alone."""
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        found = dict(line.split(":", 1) for line in lines)
        if "RssAnon" not in found:  # a zombie has no memory
            return
        for name in peaks:
            peaks[name] = max(peaks[name], int(found[name].split()[0]))
        time.sleep(0.1)


def measure_collecting(
    sizes: Sequence[int], shape: tuple[int, int, int], at: Path, is_drawn: bool
) -> list[Any]:
    """Figures of a collect of each size."""
    n_latents, d, k = shape
    write_sae(at / "sae", n_latents, d, k)
    found = []
    for n_rows in sizes:
        write_store(at / f"store-{n_rows}", n_rows, d)
        figures = collect(at / "sae", at / f"store-{n_rows}", f"run-{n_rows}", at, is_drawn)
        found.append({"n_rows": n_rows, **figures})
        print(line_of(found[-1], found[0]), flush=True)
    return found


def line_of(figures: dict[str, Any], first: dict[str, Any]) -> str:
    """A line of the table; the ratios are to the first one."""
    per_row = figures["processor"] / figures["n_rows"]
    time_ratio = per_row / (first["processor"] / first["n_rows"])
    return (
        f"{figures['n_rows']:>9,} rows: {figures['processor']:8.1f} s of a core, "
        f"{1e6 * per_row:6.1f} us a row ({time_ratio:.2f}); peak {figures['peak_mb']:6.0f} MB "
        f"({figures['peak_mb'] / first['peak_mb']:.2f}), anonymous "
        f"{figures['peak_anonymous_mb']:6.0f} MB, mapped {figures['peak_mapped_mb']:5.0f} MB"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("embed", "collect", "drawn"))
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_280_000])
    parser.add_argument("--n-latents", type=int, default=24_576)
    parser.add_argument("--d", type=int, default=32)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--latents", choices=("sae", "drawn"), default="sae")
    parser.add_argument("--at", nargs=3, type=Path, help="Of `drawn`, a part: SAE, store, run.")
    parser.add_argument("--folder", type=Path, help="Where to work, and leave all; default: none.")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(argv)
    if asked.what == "drawn":
        collect_drawn(*asked.at)
        return
    with folder_of(asked.folder) as folder:
        if asked.what == "embed":
            found: Any = measure_embedding(asked.images, asked.repeats, folder)
        else:
            shape = (asked.n_latents, asked.d, asked.k)
            found = measure_collecting(asked.rows, shape, folder, asked.latents == "drawn")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


@contextmanager
def folder_of(named: Path | None) -> Iterator[Path]:
    """The folder that was named, or one that is removed at the end."""
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


if __name__ == "__main__":
    main()
