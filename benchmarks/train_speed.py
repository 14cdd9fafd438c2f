"""Milliseconds of one training step: our engines, a plain dense one, and the peers' own code.

    python benchmarks/train_speed.py --json speed.json
    python benchmarks/train_speed.py --n-dead 2000

All systems take turns in one process with one thread. On a CPU the figure is the process's CPU
time, which other work on the machine does not count in; on a GPU it is wall time until the device
is done. README.md in this folder says what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402
from planted import planted  # noqa: E402
from torch import Tensor  # noqa: E402
from train_systems import PACKAGES, SYSTEMS, Step, Task  # noqa: E402
from versions import is_installed, versions  # noqa: E402

_N_BATCHES = 4
_BASES = ("dense", "sparsify")


def main() -> None:
    """Measure, print a table, and write it as JSON when asked to."""
    parser = _options()
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = [name for name in SYSTEMS if _is_here(name, given.device)]
    names = given.systems.split(",") if given.systems else known
    if missing := sorted(set(names) - set(known)):
        parser.error(f"--systems: {', '.join(missing)} not known, or not installed (extra bench)")
    batches = _batches(given)
    task = Task(batches[0], given.n_latents, given.k, _dead(given).to(given.device))
    times = measure({name: SYSTEMS[name](task) for name in names}, batches, given.rounds)
    print(table(times))
    if given.json is not None:
        found = {**_conditions(given), **figures(times)}
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(
    systems: Mapping[str, Step], batches: Sequence[Tensor], n_rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each system's steps: one step each a round, after one unmeasured round."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(n_rounds + 1):
        x = batches[turn % len(batches)]
        for name, step in systems.items():
            spent = _milliseconds(step, x)
            if turn:
                times[name].append(spent)
    return times


def figures(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Least and median milliseconds, and ratios of the least to those of each base."""
    found: dict[str, float] = {}
    for name, of_system in times.items():
        found[f"{name}: ms"] = min(of_system)
        found[f"{name}: median ms"] = median(of_system)
        for base in _BASES:
            if base in times:
                found[f"{name}: ratio to {base}"] = min(of_system) / min(times[base])
    return found


def table(times: Mapping[str, Sequence[float]]) -> str:
    """Markdown: a line for each system."""
    bases = [base for base in _BASES if base in times]
    header = ["system", "ms, least", "ms, median", *(f"/ {base}" for base in bases)]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, of_system in times.items():
        ratios = [f"{min(of_system) / min(times[base]):.2f}" for base in bases]
        cells = [name, f"{min(of_system):.1f}", f"{median(of_system):.1f}", *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _milliseconds(step: Step, x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize()
        began = time.perf_counter()
        step(x)
        torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began)
    began = time.process_time()
    step(x)
    return 1000 * (time.process_time() - began)


def _batches(given: argparse.Namespace) -> list[Tensor]:
    """Different batches (batch, d) of planted data, centred and scaled."""
    x = planted(_N_BATCHES * given.batch, n_held_out=0, d=given.d).x
    x = x - x.mean(0)
    return list((x / x.square().mean().sqrt()).to(given.device).split(given.batch))


def _dead(given: argparse.Namespace) -> Tensor:
    """Mask with `n_dead` latents, spread over the dictionary."""
    order = torch.randperm(given.n_latents, generator=torch.Generator().manual_seed(2))
    return torch.zeros(given.n_latents, dtype=torch.bool).index_fill(0, order[: given.n_dead], True)


def _is_here(name: str, device: str) -> bool:
    if name == "triton":
        return device != "cpu"
    return name not in PACKAGES or is_installed(PACKAGES[name])


def _conditions(given: argparse.Namespace) -> dict[str, object]:
    packages = ("torch", "numpy", "triton", *dict.fromkeys(PACKAGES.values()))
    device = platform.processor() or platform.machine()
    if given.device != "cpu":
        device = torch.cuda.get_device_name()
    return {
        "device": device,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load": os.getloadavg()[0],
        **versions(packages),
        **{name: getattr(given, name) for name in ("d", "n_latents", "k", "batch", "n_dead")},
        "rounds": given.rounds,
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--d", type=int, default=512, help="width of the embeddings")
    parser.add_argument("--n-latents", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32, help="latents kept per token")
    parser.add_argument("--batch", type=int, default=1024, help="tokens per step")
    parser.add_argument("--n-dead", type=int, default=0, help="latents that AuxK trains")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--systems", default="", help="some of: " + ", ".join(SYSTEMS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    main()
