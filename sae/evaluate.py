"""What is reported of an SAE: how well it rebuilds images that it has not seen, per domain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sae.errors import UserError
from sae.files import FORMAT, write_json
from sae.model import SAE, require_match
from sae.progress import Progress
from sae.store import EmbeddingStore
from sae.train import holdout_rows
from sae.zeroshot import ZeroShot, class_names, zeroshot

REPORT = "eval.json"
TOKENS_AT_ONCE = 2048
DENSE_RATE = 0.1
"""A latent that fires on more of the tokens than this is dense: too common to mean one thing."""
WEAK_ACT = 1e-3


@dataclass(frozen=True)
class Fit:
    """How an SAE does on some tokens."""

    n_images: int
    n_tokens: int
    fvu: float
    """Fraction of variance unexplained, about these tokens' own mean: 0 is perfect."""
    r2: float
    """1 - fvu: the variances of all dimensions are summed before they are divided."""
    cosine: float
    """Mean cosine of a raw embedding and its reconstruction. A large common mean flatters it."""
    l0: float
    """Latents above 0 per token."""
    l0_1e3: float
    """Latents above 0.001 per token."""
    dead: float
    """Share of the latents that fire on none of these tokens: few tokens make it large."""
    dense: float
    """Share of the latents that fire on more than a tenth of these tokens."""


@dataclass(frozen=True)
class EvalReport:
    """Everything that `sae eval` prints and writes."""

    overall: Fit
    domains: dict[str, Fit]
    """Domains without an image among the rows are left out."""
    zeroshot: dict[str, ZeroShot] = field(default_factory=dict)
    """By domain, and "" for all; empty when it was not asked for or there are no classes."""

    def flat(self) -> dict[str, float | int | None]:
        """One flat object: "fvu", "zeroshot_sae_top1", "sketch/fvu", "sketch/zeroshot_sae_top1".

        What is not a number (the fvu of a single token) is None.
        """
        flat: dict[str, float | int | None] = {}
        for domain, fit in {"": self.overall, **self.domains}.items():
            for name, value in asdict(fit).items():
                flat[_key(domain, name)] = None if math.isnan(value) else value
        for domain, result in self.zeroshot.items():
            for name, value in asdict(result).items():
                flat[_key(domain, f"zeroshot_{name}")] = value
        return flat

    def table(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Rows and header to print: a line per figure, a column per domain."""
        flat = self.flat()
        columns = ["", *self.domains]
        names = [key for key in flat if "/" not in key]
        rows = [(name, *(_cell(flat.get(_key(c, name))) for c in columns)) for name in names]
        return rows, ("", "all", *self.domains)


def evaluate_run(
    model: SAE,
    store: EmbeddingStore,
    folder: Path,
    device: torch.device,
    n_zeroshot: int = 2000,
    progress: Progress | None = None,
) -> EvalReport:
    """Evaluate on the held-out images and write `folder`/eval.json.

    Zero-shot classification takes up to `n_zeroshot` images of each domain; 0 leaves it out.
    """
    rows = held_out(model, store)
    report = evaluate(model, store, rows, device, progress)
    if n_zeroshot and len(class_names(store.images["label"].unique())) > 1:
        from sae.clip import load_clip

        clip = load_clip(store.info.clip, str(device))
        results = zeroshot(model, store, clip, rows, n_max=n_zeroshot, progress=progress)
        report = EvalReport(report.overall, report.domains, results)
    write_json(folder / REPORT, {"format": FORMAT, "store": store.info.identity} | report.flat())
    return report


def held_out(model: SAE, store: EmbeddingStore) -> NDArray[np.int64]:
    """Rows of the images that training left out. Raises `UserError` when there are none."""
    rows = np.flatnonzero(holdout_rows(store.images, model.config.holdout))
    if len(rows) == 0:
        raise UserError(
            f"no image of {store.path} is held out (holdout {model.config.holdout}, "
            f"{store.info.n_images} images); train with a larger --holdout or embed more images"
        )
    return rows


def evaluate(
    model: SAE,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> EvalReport:
    """Measure on the images `rows` (ascending) in one pass; memory does not grow with them."""
    require_match(model.config, store.info)
    model = model.to(device).eval()
    domain_of = store.images["domain"].to_numpy()
    sums = {domain: FitSums(model) for domain in store.domains}
    n_done = 0
    for batch in store.batches(max(1, TOKENS_AT_ONCE // store.info.tokens_per_image), rows):
        domains = domain_of[batch.rows]
        for domain in sorted(set(domains)):
            x = batch.x[torch.from_numpy(domains == domain)].to(device)  # (b, t, d)
            sums[domain].update(x)
        n_done += len(batch.rows)
        if progress is not None:
            progress(n_done, len(rows))
    total = FitSums(model)
    for part in sums.values():
        total.add(part)
    seen = {domain: part.fit() for domain, part in sums.items() if part.n_images}
    return EvalReport(total.fit(), seen)


class FitSums:
    """Running sums over tokens, from which a `Fit` follows; two can be added."""

    def __init__(self, model: SAE) -> None:
        self.model = model
        device = model.W_dec.device
        self.n_images = 0
        self.n_tokens = 0
        # Sums of centred values: the variance is then no small difference of large numbers.
        self.x = torch.zeros(model.d, dtype=torch.float64)
        self.x_square = 0.0
        self.error_square = 0.0
        self.cosine = 0.0
        self.n_weak = 0
        self.n_active = torch.zeros(model.n_latents, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in the raw tokens (b, t, d) of some images."""
        self.n_images += len(x)
        for tokens in torch.split(x.flatten(0, 1), TOKENS_AT_ONCE):
            self._update_tokens(tokens.float())

    def _update_tokens(self, x: Tensor) -> None:
        codes = self.model.encode(x)
        x_hat = self.model.decode(codes)
        centred = self.model.centre(x)
        self.n_tokens += len(x)
        self.x += centred.sum(0).cpu().double()
        self.x_square += float(centred.square().sum())
        self.error_square += float((self.model.centre(x_hat) - centred).square().sum())
        self.cosine += float(F.cosine_similarity(x, x_hat, dim=1).sum())
        self.n_weak += int((codes.acts > WEAK_ACT).sum())
        fired = codes.latents[codes.acts > 0]
        self.n_active += torch.bincount(fired, minlength=self.model.n_latents)

    def add(self, other: FitSums) -> None:
        """Take in another part's sums."""
        for name in ("n_images", "n_tokens", "x_square", "error_square", "cosine", "n_weak"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.x = self.x + other.x
        self.n_active = self.n_active + other.n_active

    def fit(self) -> Fit:
        """The figures; fvu and r2 are NaN where all tokens are equal."""
        n = self.n_tokens
        variance = self.x_square - float(self.x.square().sum()) / n
        some = variance > 1e-6 * self.x_square  # less is rounding
        fvu = self.error_square / variance if some else float("nan")
        return Fit(
            n_images=self.n_images,
            n_tokens=n,
            fvu=fvu,
            r2=1 - fvu,
            cosine=self.cosine / n,
            l0=int(self.n_active.sum()) / n,
            l0_1e3=self.n_weak / n,
            dead=float((self.n_active == 0).float().mean()),
            dense=float((self.n_active > DENSE_RATE * n).float().mean()),
        )


def _key(domain: str, name: str) -> str:
    return f"{domain}/{name}" if domain else name


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
