"""How fast, and how carefully, two client designs ask a vision server that is not the bottleneck.

    python benchmarks/llm_throughput.py --questions 3000 --repeats 3 --json throughput.json

Each repeat asks the same questions with every client in turn, each time of a fresh server process
(`loopback_llm.py`). What happened is read from the server's own log, not from the clients.
README.md in this folder says what the figures mean and what was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from llm_clients import CLIENTS, Job, noise_jpegs
from llm_figures import Figures, Seen, figures, in_flight
from loopback_llm import Settings

_N_PICTURES = 16
_WARM_UP = 4
"""Latents that are asked before anything is measured: imports and first uses cost once."""


@dataclass(frozen=True)
class Run:
    """One client, one time. Seconds, USD and counts."""

    req_per_s: float
    """Usable answers per second of wall time, start and end of the client included."""
    steady_per_s: float
    """The same in the steady state of the pass with more requests (see `llm_figures`)."""
    steady_share: float
    """Mean in flight / cap in that time."""
    mean_share: float
    """Mean in flight / cap from the first request to the last answer."""
    n_most: int
    last_percent: float
    """Seconds from 99% of the answers to the last; the longer of the passes."""
    cpu_ms: float
    """CPU time of the client process per HTTP request, milliseconds."""
    n_requests: int
    n_lost: int
    """Questions that ended without a usable answer, or were never asked."""
    n_paid_twice: int
    n_early: int
    n_throttled: int
    billed: float
    overspend: float
    """USD beyond --max-cost; NaN without a cap."""


LABELS = {
    "req_per_s": "answers / s",
    "steady_per_s": "answers / s, steady",
    "steady_share": "in flight / cap, steady",
    "mean_share": "in flight / cap, all of it",
    "n_most": "most in flight",
    "last_percent": "last 1%, s",
    "cpu_ms": "client CPU, ms / request",
    "n_requests": "requests",
    "n_lost": "questions not answered",
    "n_paid_twice": "paid twice",
    "n_early": "before Retry-After",
    "n_throttled": "429s",
    "billed": "billed, USD",
    "overspend": "beyond --max-cost, USD",
}


def main() -> None:
    """Measure, print a table, and write it as JSON when asked to."""
    parser = _options()
    given = parser.parse_args()
    job, settings = _job(given), _settings(given)
    clients = given.clients.split(",")
    if not set(clients) <= set(CLIENTS) or (given.concurrency < 1 and "peer" in clients):
        parser.error("--clients: ours, peer or both; only ours knows --concurrency 0")
    runs: dict[str, list[Run]] = {name: [] for name in clients}
    for name in clients:
        measure(name, replace(job, n_latents=_WARM_UP, max_cost=None), Settings(latency=0.02))
    for repeat in range(given.repeats):
        for name in clients if repeat % 2 == 0 else reversed(clients):
            runs[name].append(measure(name, job, replace(settings, seed=given.seed + repeat)))
            print(f"{repeat + 1}/{given.repeats} {name}: {runs[name][-1].req_per_s:.1f} answers/s")
    print(table(runs))
    if given.json is not None:
        found = {**_conditions(given, job), **summary(runs)}
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(name: str, job: Job, settings: Settings) -> Run:
    """One client against a fresh server and in a fresh folder."""
    with server(settings) as url, tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        CLIENTS[name](job, f"{url}/v1", Path(folder))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        with urllib.request.urlopen(f"{url}/log") as response:
            rows = [Seen(*row) for row in json.load(response)]
    return as_run(rows, _passes(name, rows), job, wall, cpu)


def as_run(
    rows: Sequence[Seen], passes: Sequence[Sequence[Seen]], job: Job, wall: float, cpu: float
) -> Run:
    """The server's rows and the client's clocks as one line of the table."""
    cap = job.concurrency or max(n for _, n in in_flight(rows))
    whole = figures(rows, cap)
    parts: list[Figures] = [figures(part, cap) for part in passes]
    longest = max(parts, key=lambda part: part.n_requests)
    n_questions = job.n_latents * (1 + job.n_detect)
    cap_usd = math.nan if job.max_cost is None else job.max_cost
    return Run(
        req_per_s=whole.n_answered / wall,
        steady_per_s=longest.steady_per_s,
        steady_share=longest.steady_share,
        mean_share=whole.mean_share,
        n_most=whole.n_most,
        last_percent=max(part.last_percent for part in parts),
        cpu_ms=1000 * cpu / max(1, whole.n_requests),
        n_requests=whole.n_requests,
        n_lost=n_questions - whole.n_answered,
        n_paid_twice=whole.n_paid_twice,
        n_early=whole.n_early,
        n_throttled=whole.n_throttled,
        billed=whole.billed,
        overspend=max(0.0, whole.billed - cap_usd) if job.max_cost is not None else math.nan,
    )


@contextmanager
def server(settings: Settings) -> Iterator[str]:
    """A server process of its own; gives its address without a path."""
    options = [f"--{name}={value}" for name, value in asdict(settings).items()]
    script = Path(__file__).with_name("loopback_llm.py")
    process = subprocess.Popen(
        [sys.executable, str(script), *options, "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate()


def table(runs: dict[str, list[Run]]) -> str:
    """Medians over the repeats, with the least and the most of them; ratios to the last client."""
    names = list(runs)
    lines = [_line("", [*names, f"{names[0]} / {names[-1]}" if len(names) > 1 else ""])]
    for field, label in LABELS.items():
        values = {name: [getattr(run, field) for run in runs[name]] for name in names}
        cells = [_spread(values[name]) for name in names]
        ratio = _ratio(values[names[0]], values[names[-1]])
        lines.append(_line(label, [*cells, "" if len(names) < 2 else _number(ratio)]))
    return "\n".join(lines)


def summary(runs: dict[str, list[Run]]) -> dict[str, float | None]:
    """The table as one flat object: `ours_req_per_s`, its `_least` and `_most`, and `ratio_...`."""
    flat: dict[str, float] = {}
    names = list(runs)
    for field in LABELS:
        for name in names:
            values = [getattr(run, field) for run in runs[name]]
            flat[f"{name}_{field}"] = median(values)
            flat[f"{name}_{field}_least"], flat[f"{name}_{field}_most"] = min(values), max(values)
        if len(names) > 1:
            first, last = ([getattr(run, field) for run in runs[n]] for n in (names[0], names[-1]))
            flat[f"ratio_{field}"] = _ratio(first, last)
    return {key: None if math.isnan(value) else value for key, value in flat.items()}


def _passes(name: str, rows: Sequence[Seen]) -> list[list[Seen]]:
    """Ours explains all latents before it scores the first; the peer mixes both."""
    if name != "ours":
        return [list(rows)]
    stages = ("explain", "detect")
    passes = [[row for row in rows if row.stage == stage] for stage in stages]
    return [part for part in passes if part]


def _ratio(first: Sequence[float], last: Sequence[float]) -> float:
    """Median over the repeats of the ratio within a repeat."""
    if any(value == 0 for value in last):
        return math.nan
    return median(a / b for a, b in zip(first, last, strict=True))


def _spread(values: Sequence[float]) -> str:
    middle, least, most = _number(median(values)), _number(min(values)), _number(max(values))
    return middle if least == most else f"{middle} ({least} to {most})"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"{label:28}" + "".join(f"{cell:>26}" for cell in cells)


def _job(given: argparse.Namespace) -> Job:
    return Job(
        n_latents=max(1, given.questions // given.per_latent),
        n_detect=given.per_latent - 1,
        concurrency=given.concurrency,
        timeout=given.timeout,
        max_cost=given.max_cost,
        pictures=noise_jpegs(_N_PICTURES, round(1000 * given.picture_kb)),
    )


def _settings(given: argparse.Namespace) -> Settings:
    return Settings(given.latency, given.sigma, given.faults, given.rpm, given.seed)


def _conditions(given: argparse.Namespace, job: Job) -> dict[str, Any]:
    """What was asked for, and on what it ran."""
    options = {key: value for key, value in vars(given).items() if key != "json"}
    return {
        **options,
        "picture_bytes": median(len(picture) for picture in job.pictures),
        "n_cpus": len(os.sched_getaffinity(0)),
        "load_at_end": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{f"{name}_version": version(name) for name in ("openai", "httpx2", "tenacity")},
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--questions", type=int, default=3000, help="of one client in one repeat")
    add("--per-latent", type=int, default=6, help="questions about a latent, one of them explains")
    add("--concurrency", type=int, default=64, help="most requests in flight; 0 adapts (ours)")
    add("--latency", type=float, default=0.5, help="the server's median, seconds")
    add("--sigma", type=float, default=0.3, help="of the latency's logarithm")
    add("--picture-kb", type=float, default=200.0, help="size of each picture as JPEG, kB")
    add("--faults", choices=("none", "mix", "iid"), default="none", help="see loopback_llm.py")
    add("--rpm", type=float, default=0.0, help="requests a minute that the server lets in; 0: all")
    add("--max-cost", type=float, default=None, help="USD for one run (only ours knows a cap)")
    add("--timeout", type=float, default=5.0, help="the client's, for one request, seconds")
    add("--repeats", type=int, default=3, help="of every client, interleaved")
    add("--clients", default="ours,peer", help="which, in this order: " + ", ".join(CLIENTS))
    add("--seed", type=int, default=0)
    add("--json", type=Path, default=None, help="write the figures there, one flat object")
    return parser


if __name__ == "__main__":
    main()
