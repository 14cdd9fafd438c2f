"""Rows a second that reach the training loop: our two ways to read a store, and the usual loaders.

    python benchmarks/feed_speed.py --json feed.json

Four streams of shuffled batches take turns over the same store in one process, without training:
ours with the data held in memory, ours reading windows from the shards, a torch DataLoader over
single rows of the (memory-mapped) shards, and one over a TensorDataset. The CPU figure counts all
threads. README.md in this folder says what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset, TensorDataset  # noqa: E402
from versions import versions  # noqa: E402

from sae.data.store import EmbeddingStore  # noqa: E402
from sae.data.store_format import ImageRow, shard_path  # noqa: E402
from sae.data.store_writer import Plan, StoreWriter  # noqa: E402
from sae.training.feed import batches  # noqa: E402

_N_SHARDS = 8
_SLOWER = 16
"""The loaders' turns have so many times fewer rows, and still take longer."""
_SETTLE_SECONDS = 0.5


class Turn(NamedTuple):
    """What a stream did in one turn."""

    seconds: float
    cpu_seconds: float
    n_rows: int


class SingleRows(Dataset[Tensor]):
    """The store as a map-style dataset: a row at a time from the mapped shards."""

    def __init__(self, store: EmbeddingStore) -> None:
        self.shards: list[Tensor] = []
        for shard in range(len(store.info.shard_rows)):
            with safe_open(shard_path(store.path, shard), framework="pt") as file:
                self.shards.append(file.get_tensor("x").flatten(0, 1))
        self.starts = np.cumsum([0, *store.info.shard_rows])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> Tensor:
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.shards[shard][row - self.starts[shard]]


def main() -> None:
    """Measure, print a table, and write it as JSON when asked to."""
    given = _options().parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), given.n_rows, given.d)
        turns = measure(streams(store, given.batch, torch.device(given.device)), given)
    found = figures(turns)
    print(table(found, list(turns)))
    if given.json is not None:
        text = json.dumps({**_conditions(given), **found}, indent=1) + "\n"
        given.json.write_text(text, encoding="utf-8")


def streams(
    store: EmbeddingStore, batch_size: int, device: torch.device
) -> dict[str, Iterator[Tensor]]:
    """Endless batches on `device`, in random order, each system's own way."""
    rows = np.arange(store.info.n_images)
    kept = TensorDataset(store.read(rows).flatten(0, 1))
    return {
        "ours, resident": batches.batches(store, rows, batch_size, 0, device, 1 << 62),
        "ours, streamed": batches.batches(store, rows, batch_size, 0, device, 0),
        "rows": _loaded(SingleRows(store), batch_size, device, lambda batch: batch),
        "TensorDataset": _loaded(kept, batch_size, device, lambda batch: batch[0]),
    }


def measure(
    systems: Mapping[str, Iterator[Tensor]], given: argparse.Namespace
) -> dict[str, list[Turn]]:
    """Each system's turns, one a round. A window is drawn before each, so that what was read ahead
    while others had their turn does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in systems}
    for _ in range(given.rounds):
        for name, stream in systems.items():
            is_ours = name.startswith("ours")
            n_rows = given.turn_rows if is_ours else given.turn_rows // _SLOWER
            _draw(stream, -(-(batches.BUFFER_TOKENS if is_ours else 1) // given.batch))
            turns[name].append(_draw(stream, -(-n_rows // given.batch)))
            time.sleep(_SETTLE_SECONDS)
    return turns


def figures(turns: Mapping[str, Sequence[Turn]]) -> dict[str, float]:
    """Million rows a second of wall time and of CPU time (medians), and ratios to ours."""
    found: dict[str, float] = {}
    for name, of_system in turns.items():
        found[f"{name}: M rows/s"] = median(t.n_rows / t.seconds for t in of_system) / 1e6
        found[f"{name}: M rows/CPU s"] = median(t.n_rows / t.cpu_seconds for t in of_system) / 1e6
    for name in turns:
        ours = found["ours, streamed: M rows/CPU s"]
        found[f"{name}: streamed is so many times as fast"] = ours / found[f"{name}: M rows/CPU s"]
    return found


def table(found: Mapping[str, float], names: Sequence[str]) -> str:
    """Markdown: a line for each system."""
    lines = ["| stream | M rows/s | M rows/CPU s | streamed / this |", "|---|---|---|---|"]
    for name in names:
        wall, cpu = found[f"{name}: M rows/s"], found[f"{name}: M rows/CPU s"]
        ratio = found[f"{name}: streamed is so many times as fast"]
        lines.append(f"| {name} | {wall:.3f} | {cpu:.3f} | {ratio:.2f} |")
    return "\n".join(lines)


def write_store(folder: Path, n_rows: int, d: int) -> EmbeddingStore:
    """Random float16 embeddings, one token an image, in eight shards."""
    size = -(-n_rows // _N_SHARDS)
    plan = Plan(
        clip="random",
        clip_sha="0" * 16,
        layer="projected",
        tokens="cls",
        dtype="float16",
        d=d,
        tokens_per_image=1,
        grid=[],
        shard_images=size,
        n_files=n_rows,
        files="",
        roots={"photo": "."},
    )
    writer = StoreWriter(folder, plan)
    for shard in range(plan.n_shards):
        span = plan.span(shard)
        x = torch.randn(len(span), 1, d, generator=torch.Generator().manual_seed(shard))
        writer.write_shard(x, [ImageRow(f"{i:064x}", "", "photo", "", 1, 1) for i in span], [])
    writer.finish()
    return EmbeddingStore.open(folder)


def _loaded(
    dataset: Dataset[Any], batch_size: int, device: torch.device, x_of: Callable[[Any], Tensor]
) -> Iterator[Tensor]:
    loader = DataLoader(
        dataset, batch_size, shuffle=True, drop_last=True, pin_memory=device.type == "cuda"
    )
    while True:
        for batch in loader:
            yield x_of(batch).to(device, non_blocking=True)


def _draw(stream: Iterator[Tensor], n_batches: int) -> Turn:
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    n_rows = sum(len(next(stream)) for _ in range(n_batches))
    _wait()
    return Turn(time.perf_counter() - wall, time.process_time() - cpu, n_rows)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _conditions(given: argparse.Namespace) -> dict[str, object]:
    is_cpu = given.device == "cpu"
    return {
        "device": platform.machine() if is_cpu else torch.cuda.get_device_name(),
        "load": os.getloadavg()[0],
        **versions(("torch", "numpy", "safetensors")),
        **{name: getattr(given, name) for name in ("d", "n_rows", "batch", "rounds", "turn_rows")},
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n-rows", type=int, default=1 << 20, help="rows of the store")
    parser.add_argument("--d", type=int, default=512, help="width of the embeddings")
    parser.add_argument("--batch", type=int, default=4096, help="rows per batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn-rows", type=int, default=1 << 21, help="rows of one turn of ours")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    main()
