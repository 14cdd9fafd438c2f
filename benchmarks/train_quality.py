"""How good an SAE is after a given number of tokens: ours and the peers' own code.

    python benchmarks/train_quality.py --seeds 3 --json quality.json

The tokens are sums of planted directions (`planted.py`), so that it is known what is to be found.
README.md in this folder says what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402
from planted import Planted, planted, recovery  # noqa: E402
from quality_systems import LEARNERS, PACKAGES, Budget, Dictionary  # noqa: E402
from versions import is_installed, versions  # noqa: E402

_AT_ONCE = 1000


@dataclass(frozen=True)
class Quality:
    """What a training came to, on tokens that it has not seen."""

    lr: float
    fvu: float
    l0: float
    dead: float
    """By the training's own count, at its end; the thresholds differ: see README.md."""
    silent: float
    """Share of the latents that fire on none of the held-out tokens."""
    found: float
    """Share of the planted directions that a live decoder row meets with a cosine above .9."""
    mean_cosine: float
    """Of each planted direction with the nearest live decoder row."""
    weighted_cosine: float
    """The same, weighted by how often the direction is active."""
    cpu_s: float
    """Of the training, with what it takes to choose the learning rate."""


def main() -> None:
    """Train, print a table, and write it as JSON when asked to."""
    parser = _options()
    given = parser.parse_args()
    torch.set_num_threads(1)
    here = [name for name in LEARNERS if name not in PACKAGES or is_installed(PACKAGES[name])]
    names = given.systems.split(",") if given.systems else here
    if missing := sorted(set(names) - set(here)):
        parser.error(f"--systems: {', '.join(missing)} not known, or not installed (extra bench)")
    found: dict[str, list[Quality]] = {}
    for seed in range(given.seeds):
        data = planted(n=given.n, seed=seed)
        for name in names:
            for lr in map(float, given.lr.split(",")):
                quality = _quality(name, lr, data, _budget(given, data, seed))
                print(f"{name}, seed {seed}: {quality}", flush=True)
                found.setdefault(_line(name, lr), []).append(quality)
    print(table(found))
    if given.json is not None:
        text = json.dumps({**_conditions(given), **figures(found)}, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def measure(trained: Dictionary, data: Planted, cpu_s: float) -> Quality:
    """On the held-out tokens of `data`."""
    error, n_active = 0.0, torch.zeros(len(trained.W_dec))
    for x in data.held_out.split(_AT_ONCE):
        x_hat, acts = trained.rebuild(x)
        error += float((x - x_hat).square().sum())
        n_active += (acts != 0).float().sum(0)
    variance = float((data.held_out - data.held_out.mean(0)).square().sum())
    met = recovery(trained.W_dec, data.directions, n_active > 0, data.rates)
    return Quality(
        lr=trained.lr,
        fvu=error / variance,
        l0=float(n_active.sum()) / len(data.held_out),
        dead=trained.dead,
        silent=float((n_active == 0).float().mean()),
        found=met.found,
        mean_cosine=met.mean,
        weighted_cosine=met.weighted,
        cpu_s=cpu_s,
    )


def averages(qualities: Sequence[Quality]) -> dict[str, float]:
    """Of each figure over the seeds."""
    rows = [asdict(quality) for quality in qualities]
    return {name: mean(row[name] for row in rows) for name in rows[0]}


def figures(found: dict[str, list[Quality]]) -> dict[str, object]:
    """One flat object: "ours: fvu", and "ours: fvu of each seed" as a list."""
    flat: dict[str, object] = {}
    for name, qualities in found.items():
        for figure, average in averages(qualities).items():
            flat[f"{name}: {figure}"] = average
            flat[f"{name}: {figure} of each seed"] = [getattr(q, figure) for q in qualities]
    return flat


def table(found: dict[str, list[Quality]]) -> str:
    """Markdown: a line for each system and learning rate, averaged over the seeds."""
    header = "| system | lr | FVU | L0 | dead | silent | found | mean cosine | weighted | CPU s |"
    lines = [header, "|---" * header.count(" | ") + "|---|"]
    for name, qualities in found.items():
        a = averages(qualities)
        shares = " | ".join(f"{a[share]:.1%}" for share in ("dead", "silent", "found"))
        lines.append(
            f"| {name} | {a['lr']:.2g} | {a['fvu']:.4f} | {a['l0']:.1f} | {shares} | "
            f"{a['mean_cosine']:.3f} | {a['weighted_cosine']:.3f} | {a['cpu_s']:.0f} |"
        )
    return "\n".join(lines)


def _line(name: str, lr: float) -> str:
    own = "--lr auto" if name == "ours" else "its own lr"
    return f"{name}, {f'lr {lr:g}' if lr else own}"


def _budget(given: argparse.Namespace, data: Planted, seed: int) -> Budget:
    return Budget(data.x, given.n_latents, given.k, given.batch, given.n_tokens, seed)


def _quality(name: str, lr: float, data: Planted, budget: Budget) -> Quality:
    began = time.process_time()
    trained = LEARNERS[name](budget, lr)
    return measure(trained, data, time.process_time() - began)


def _conditions(given: argparse.Namespace) -> dict[str, object]:
    packages = ("torch", "numpy", *PACKAGES.values())
    return {
        "device": platform.processor() or platform.machine(),
        **versions(packages),
        **{name: getattr(given, name) for name in ("n", "n_latents", "k", "batch", "n_tokens")},
        "seeds": given.seeds,
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=100_000, help="tokens that there are")
    parser.add_argument("--n-tokens", type=int, default=307_200, help="tokens to train on, in all")
    parser.add_argument("--n-latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32, help="latents kept per token")
    parser.add_argument("--batch", type=int, default=512, help="tokens per step")
    parser.add_argument(
        "--lr", default="0", help="learning rates, 0 for the system's own: 0,1e-3,4e-3"
    )
    parser.add_argument("--seeds", type=int, default=1, help="of data, weights and order")
    parser.add_argument("--systems", default="", help="some of: " + ", ".join(LEARNERS))
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


if __name__ == "__main__":
    main()
