"""A synthetic evidence source for tests: latents that answer to one colour, drawn on demand."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw

from interp.explain.explainer import VlmExplainer
from interp.explain.run import ExplainSummary
from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.records.split import split_of
from interp.records.types import Evidence, Example, Kind, LatentStats, Side
from sae.data.view import Heat
from tests.support.interp.asking import explain_run
from tests.support.interp.patient import give_time_to_end
from tests.support.paths import ROOT
from tests.support.servers.loopback_answers import COLOURS

NAMES = tuple(COLOURS)
RGB = {
    "red": (220, 30, 30),
    "yellow": (230, 220, 20),
    "green": (30, 200, 30),
    "cyan": (20, 220, 220),
    "blue": (30, 30, 220),
    "magenta": (220, 20, 220),
}


@cache
def image_ids(side: Side) -> tuple[str, ...]:
    """Content hashes that fall on one side."""
    ids = (hashlib.sha256(str(n).encode()).hexdigest() for n in range(4000))
    return tuple(image_id for image_id in ids if split_of(image_id) == side)


def colour_of(latent: int) -> str:
    return NAMES[latent % len(NAMES)]


def draw(colour: str, image_id: str, size: int = 96) -> Image.Image:
    """A disc whose place and size come from the image's id, on white."""
    image = Image.new("RGB", (size, size), "white")
    x, y, r = (int(image_id[k : k + 4], 16) / 65535 for k in (16, 20, 24))
    radius = size * (0.2 + 0.1 * r)
    x, y = size * (0.35 + 0.3 * x), size * (0.35 + 0.3 * y)
    pen = ImageDraw.Draw(image)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=RGB[colour])
    return image


class ColourSource:
    """An `EvidenceSource`: latent k answers to discs of colour k."""

    def __init__(
        self,
        n_top: int = 16,
        n_silent: int = 20,
        heat: bytes | None = None,
        side: Side = "explain",
        claimed: Side | None = None,
        rates: dict[str, float] | None = None,
    ) -> None:
        """`claimed`: the side that examples say they are of, when it is not the true one. `rates`:
        share of each domain's images that are active.
        """
        self.rates = rates or {"sketch": 0.04, "photo": 0.04}
        self.n_top, self.n_silent, self.packed = n_top, n_silent, heat
        self.side: Side = side
        self.claimed: Side = claimed or side

    def of(self, latent: int) -> Evidence:
        known = replace(stats(latent), domain_rate=self.rates)
        return Evidence(known, tuple(self._examples(latent)))

    def image(self, example: Example) -> Image.Image:
        return draw(example.path, example.image_id)

    def heat(self, example: Example) -> Heat | None:
        return None if example.heat is None else Heat.of(example.heat, "squash")

    def _examples(self, latent: int) -> Iterator[Example]:
        ids = image_ids(self.side)
        start = 60 * latent % (len(ids) - 60)
        own, others = ids[start : start + 24], ids[start + 24 : start + 60]
        for rank in range(self.n_top):
            yield self._example(latent, "top", rank, own[rank], 9.0 - rank / 10)
        for rank in range(min(10, self.n_top // 2 * 2)):
            yield self._example(latent, "quantile", rank, own[-1 - rank], 5.0 - rank / 10, rank % 5)
        for rank in range(self.n_silent):
            kind: Kind = "silent" if rank % 2 else "hard"
            yield self._example(latent, kind, rank, others[rank], 0.0)

    def _example(
        self, latent: int, kind: Kind, rank: int, image_id: str, act: float, stratum: int = -1
    ) -> Example:
        colour = colour_of(latent + 1 + rank % 4 if act == 0 else latent)
        domain = "sketch" if int(image_id[-1], 16) % 2 else "photo"
        return Example(
            latent=latent,
            side=self.claimed,
            kind=kind,
            rank=rank,
            stratum=stratum,
            row=rank,
            image_id=image_id,
            domain=domain,
            label=f"class {colour}",
            path=colour,
            act=act,
            heat=self.packed,
        )


def stats(latent: int) -> LatentStats:
    return LatentStats(
        latent=latent,
        status="live",
        n_active=40,
        frequency=0.04,
        mean_act=5.0,
        max_act=9.0,
        hist=(0,) * 32,
        domain_rate={"sketch": 0.04, "photo": 0.04},
        sketch_share=0.5,
        class_entropy=math.nan,
        top_classes=(("Disc", 40),),
    )


def run(
    folder: Path,
    base_url: str,
    n_latents: int,
    concurrency: int = 4,
    key: str = "sk-test",
    timeout: float = 30.0,
) -> ExplainSummary:
    """What `interp explain` does, with quick retries."""
    config = ClientConfig(
        "fake/vision",
        base_url,
        concurrency=concurrency,
        timeout=timeout,
        deadline=120,
        first_wait=0.02,
    )
    with Ledger(folder / "calls.sqlite") as ledger:
        model = ChatModel(config, ledger, key)
        return explain_run(
            folder / "explanations.jsonl",
            ColourSource(),
            VlmExplainer(model),
            range(n_latents),
            concurrency=model.gate.room if concurrency > 1 else 1,  # 1: strictly in order
        )


def start(
    folder: Path, base_url: str, n_latents: int, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """`run` in a process of its own, which a test may stop or kill."""
    module = "tests.support.interp.explaining"
    command = [sys.executable, "-m", module, str(folder), base_url, str(n_latents)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr)


if __name__ == "__main__":
    give_time_to_end()
    run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
