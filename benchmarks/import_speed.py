"""Seconds and memory that `sae import` takes for a large checkpoint of each kind of file.

    python benchmarks/import_speed.py --json import.json

Each import is a process of its own, as a user would start it. Memory is the peak of its resident
set, less what it was after all imports of Python modules, in units of the checkpoint's size (told
by Linux). README.md in this folder says what was measured.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

_CHILD = """
import importlib, sys, time
from pathlib import Path
start = time.perf_counter()
from sae import interchange
from sae.cli import console
from sae.cli.app import app
import sae.interchange.measure
for name in interchange.FORMATS:
    importlib.import_module(f"sae.interchange.formats.{name}")
def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before, imported = memory("VmRSS"), time.perf_counter()
code = console.run(app, "sae", ["import", sys.argv[1], "--out", sys.argv[2]])
end = time.perf_counter()
print("FIGURES", code, end - imported, end - start, memory("VmHWM") - before)
"""


class Turn(NamedTuple):
    """One import in a process of its own."""

    seconds: float
    """From the command to its end."""
    seconds_all: float
    """With the start of Python and torch."""
    bytes_peak: int
    """Resident at the peak, beyond what all modules take."""


def main() -> None:
    arguments = _arguments()
    figures: dict[str, float] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            shape = (arguments.n_latents, arguments.d)
            found = measure(kind, Path(folder), *shape, arguments.repeats)
        print(
            f"{kind:<18} {found['mb']:6.1f} MB  {found['seconds']:5.2f} s "
            f"({found['seconds_all']:.2f} s with the start)  "
            f"peak {found['peak_over_size']:.2f} x its size",
            flush=True,
        )
        figures |= {f"{kind}/{name}": value for name, value in found.items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(kind: str, folder: Path, n_latents: int, d: int, repeats: int) -> dict[str, float]:
    """The least seconds and the highest peak of some imports of a checkpoint of one of `KINDS`."""
    path = KINDS[kind](folder, _state(n_latents, d))
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    turns = [_turn(path, folder / f"out{n}") for n in range(repeats)]
    best = min(turns, key=lambda turn: turn.seconds_all)
    return {
        "mb": size / 1e6,
        "seconds": best.seconds,
        "seconds_all": best.seconds_all,
        "peak_over_size": max(turn.bytes_peak for turn in turns) / size,
    }


def _state(n_latents: int, d: int) -> dict[str, Tensor]:
    """W_enc (d, n_latents), W_dec (n_latents, d) and their biases, as most peers hold them."""
    generator = torch.Generator().manual_seed(0)
    return {
        "W_enc": torch.randn(d, n_latents, generator=generator),
        "b_enc": torch.randn(n_latents, generator=generator),
        "W_dec": torch.randn(n_latents, d, generator=generator),
        "b_dec": torch.randn(d, generator=generator),
    }


def _ttt(folder: Path, state: dict[str, Tensor]) -> Path:
    held = {"config": {"k": 32}, "model_state_dict": state}
    torch.save(held, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def _old_torch(folder: Path, state: dict[str, Tensor]) -> Path:
    held = {"cfg": {"d_in": len(state["W_enc"])}, "state_dict": state}
    torch.save(held, folder / "sae.pt", _use_new_zipfile_serialization=False)
    return folder / "sae.pt"


def _gzipped(folder: Path, state: dict[str, Tensor]) -> Path:
    held = {"cfg": {"d_in": len(state["W_enc"])}, "state_dict": state}
    (folder / "sae.pkl.gz").write_bytes(gzip.compress(pickle.dumps(held), compresslevel=1))
    return folder / "sae.pkl.gz"


def _saev(folder: Path, state: dict[str, Tensor]) -> Path:
    d, n_latents = state["W_enc"].shape
    config = {"d_model": d, "d_sae": n_latents, "activation": {"cls": "Relu", "params": {}}}
    header = {"schema": 5, "cfg": config, "commit": "", "lib": ""}
    with (folder / "sae.pt").open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save(state, file)
    return folder / "sae.pt"


def _sparsify(dtype: torch.dtype) -> Callable[[Path, dict[str, Tensor]], Path]:
    def write(folder: Path, state: dict[str, Tensor]) -> Path:
        d, n_latents = state["W_enc"].shape
        renamed = {
            "encoder.weight": state["W_enc"].T.contiguous().to(dtype),
            "encoder.bias": state["b_enc"].to(dtype),
            "W_dec": state["W_dec"].to(dtype),
            "b_dec": state["b_dec"].to(dtype),
        }
        save_file(renamed, folder / "sae.safetensors")
        config: dict[str, Any] = {"d_in": d, "num_latents": n_latents, "k": 32}
        (folder / "cfg.json").write_text(json.dumps(config))
        return folder

    return write


def _saelens(folder: Path, state: dict[str, Tensor]) -> Path:
    d, n_latents = state["W_enc"].shape
    save_file(state, folder / "sae_weights.safetensors")
    config = {"architecture": "topk", "k": 32, "d_in": d, "d_sae": n_latents, "dtype": "float32"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": {}}
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


KINDS: dict[str, Callable[[Path, dict[str, Tensor]], Path]] = {
    "torch (ttt)": _ttt,
    "old torch": _old_torch,
    "gzipped pickle": _gzipped,
    "saev": _saev,
    "sparsify": _sparsify(torch.float32),
    "sparsify bfloat16": _sparsify(torch.bfloat16),
    "saelens": _saelens,
}


def _turn(path: Path, out: Path) -> Turn:
    child = [sys.executable, "-c", _CHILD, str(path), str(out)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    code, seconds, seconds_all, peak = done.stdout.rpartition("FIGURES")[2].split()
    if code != "0":
        raise SystemExit(f"sae import of {path.name} ended with {code}: {done.stderr}")
    return Turn(float(seconds), float(seconds_all), int(peak))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n-latents", type=int, default=24_576)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
