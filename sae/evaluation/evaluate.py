"""An SAE and a store -> how well it rebuilds images that it has not seen, per domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae.core.errors import UserError
from sae.core.files import FORMAT, write_json
from sae.core.lock import LOCK, hold
from sae.core.progress import Progress
from sae.data.classes.names import class_names
from sae.data.split import holdout_rows
from sae.data.store import EmbeddingStore
from sae.evaluation.config import EvalConfig
from sae.evaluation.dictionary import Stability, coherence, stability
from sae.evaluation.reconstruction import FitSums
from sae.evaluation.report import EvalReport
from sae.evaluation.threshold import calibrate
from sae.evaluation.zeroshot import template_sets, zeroshot
from sae.model.match import require_match
from sae.model.sae import SAE

if TYPE_CHECKING:
    from sae.clip.model import Clip

REPORT = "eval.json"
TOKENS_AT_ONCE = 2048


class NothingHeldOut(UserError):
    """A store has no image to evaluate on; `what` says so without the remedy."""

    def __init__(self, store: EmbeddingStore, holdout: float) -> None:
        told = f"holdout {holdout}, {store.info.n_images} images"
        self.what = f"no image of {store.path} is held out ({told})"
        super().__init__(f"{self.what}; train with a larger --holdout or embed more images")


def evaluate_run(
    model: SAE,
    store: EmbeddingStore,
    folder: Path | None,
    device: torch.device,
    asked: EvalConfig | None = None,
    against: SAE | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Evaluate on the held-out images and write `folder`/eval.json, where there is a folder.

    Zero-shot classification is done with one template, if `asked.templates` is 80 with CLIP's 80 as
    well, and with the mean of one's own where there are any; sketches also as "a sketch of a {}".
    `against`: the SAE that `asked.against` names, or another, to compare the latents with. With
    `asked.calibrate` the threshold of a BatchTopK is first set on half of the held-out images, and
    saved. Raises `UserError` for what does not fit together.
    """
    asked = asked or EvalConfig()
    texts = template_sets(store.domains, asked.templates, asked.template or [])
    ks, n_zeroshot = asked.ks, asked.n_zeroshot * asked.zeroshot
    with closing(hold(folder / LOCK)) if folder else nullcontext():
        if asked.calibrate:
            if not calibrate(model, store, device):
                raise UserError(f"{store.path} has too few held-out images to calibrate on")
            if folder is not None:
                model.save(folder)
        report = _report(model, store, device, n_zeroshot, progress, texts, ks, against)
        if folder is not None:
            origin = {"format": FORMAT, "store": store.info.identity}
            write_json(folder / REPORT, origin | report.flat())
    return report


def _report(
    model: SAE,
    store: EmbeddingStore,
    device: torch.device,
    n_zeroshot: int,
    progress: Progress | None,
    texts: Mapping[str, Sequence[str]],
    ks: Sequence[int],
    against: SAE | None,
) -> EvalReport:
    rows = held_out_rows(model, store)
    # First, so that what it lacks is said before the work.
    clip = _clip_of(store, device) if n_zeroshot else None
    report = evaluate(model, store, rows, device, progress, ks)
    if against is not None:
        report = replace(report, stability=_compare(model, report, against, store, rows, device))
    if clip is not None:
        results = zeroshot(model, store, clip, store.readable(rows), texts, n_zeroshot, progress)
        report = replace(report, zeroshot=results)
    return report


def _clip_of(store: EmbeddingStore, device: torch.device) -> Clip | None:
    """What made the store, which tells images from texts; None where it cannot tell classes."""
    # Of other labs' embeddings nobody knows the weights, and the labels may be numbers.
    if store.info.clip_sha == "" or len(class_names(store.images["label"].unique())) < 2:
        return None
    from sae.clip.store_images import load_clip_of

    try:
        return load_clip_of(store, str(device))
    except UserError as error:
        raise UserError(f"{error}; or add --no-zeroshot", error.exit_code) from None


def held_out_rows(model: SAE, store: EmbeddingStore) -> NDArray[np.int64]:
    """Rows of the images that training left out. Raises `NothingHeldOut` when there are none."""
    c = model.config
    rows = np.flatnonzero(holdout_rows(store.images, c.holdout, c.calibration))
    if len(rows) == 0:
        raise NothingHeldOut(store, c.holdout)
    return rows


def evaluate(
    model: SAE,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    ks: Sequence[int] = (),
) -> EvalReport:
    """Measure on the images `rows` (ascending) in one pass; memory does not grow with them.

    Raises `UserError` for `ks` that the SAE cannot have.
    """
    require_match(model.config, store.info)
    _require_ks(model, ks)
    model = model.to(device).eval()
    domain_of = store.images["domain"].to_numpy()
    sums = {domain: Sums(model, ks) for domain in store.domains}
    n_done = 0
    for batch in store.batches(max(1, TOKENS_AT_ONCE // store.info.tokens_per_image), rows):
        domains = domain_of[batch.rows]
        for domain in sorted(set(domains)):
            x = batch.x[torch.from_numpy(domains == domain)].to(device)  # (b, t, d)
            sums[domain].update(x)
        n_done += len(batch.rows)
        if progress is not None:
            progress(n_done, len(rows))
    total = Sums(model, ks)
    for part in sums.values():
        total.add(part)
    seen = {domain: part.own for domain, part in sums.items() if part.own.n_images}
    return EvalReport(
        overall=total.own.fit(),
        domains={domain: part.fit() for domain, part in seen.items()},
        at_k={k: part.fit() for k, part in total.at_k.items()},
        at_prefix={size: part.fit() for size, part in total.at_prefix.items()},
        at_own_prefix={size: part.fit() for size, part in total.at_own_prefix.items()},
        k=model.config.k if model.config.activation == "batch_topk" else 0,
        coherence=coherence(model.W_dec, total.own.n_active > 0),
        frequency={"": total.own.frequency()}
        | {domain: part.frequency() for domain, part in seen.items()},
    )


class Sums:
    """The sums of a part of the tokens: of the SAE itself, with other k, and of its prefixes."""

    def __init__(self, model: SAE, ks: Sequence[int]) -> None:
        self.own = FitSums(model)
        self.at_k = {k: FitSums(model) for k in sorted(set(ks))}
        sizes = model.config.prefixes[:-1]
        self.at_prefix = {size: FitSums(model) for size in sizes}
        # Where there is no k, latents do not compete: both are the same.
        own_sizes = [size for size in sizes if model.config.k]
        self.at_own_prefix = {size: FitSums(model) for size in own_sizes}
        self.widest = _with_k(model, max(self.at_k)) if self.at_k else None

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in the raw tokens (b, t, d) of some images."""
        for part in self._parts():
            part.n_images += len(x)
        for tokens in torch.split(x.flatten(0, 1), TOKENS_AT_ONCE):
            self._update_tokens(tokens.float())

    def _update_tokens(self, x: Tensor) -> None:
        codes = self.own.model.encode(x)
        self.own.update(x, codes)
        for size, part in self.at_prefix.items():
            part.update(x, codes.first(size))
        for size, part in self.at_own_prefix.items():
            part.update(x, self.own.model.encode(x, size, own=True))
        if self.widest is not None:
            codes = self.widest.encode(x)  # the largest first: a smaller k is its first columns
            for k, part in self.at_k.items():
                part.update(x, codes._replace(acts=codes.acts[:, :k], latents=codes.latents[:, :k]))

    def add(self, other: Sums) -> None:
        """Take in another part's sums."""
        for part, more in zip(self._parts(), other._parts(), strict=True):
            part.add(more)

    def _parts(self) -> list[FitSums]:
        prefixes = (*self.at_prefix.values(), *self.at_own_prefix.values())
        return [self.own, *self.at_k.values(), *prefixes]


def _compare(
    model: SAE,
    report: EvalReport,
    other: SAE,
    store: EmbeddingStore,
    rows: NDArray[np.int64],
    device: torch.device,
) -> Stability:
    """Live latents of `model` against those of `other`, both on the same images."""
    other_live = evaluate(other, store, rows, device).frequency[""] > 0
    live = torch.from_numpy(report.frequency[""] > 0)
    return stability(model.W_dec, other.W_dec, live, torch.from_numpy(other_live))


def _require_ks(model: SAE, ks: Sequence[int]) -> None:
    rule = model.config.activation
    if ks and rule not in ("topk", "signed_topk"):
        raise UserError(f"--k needs an SAE that keeps k latents per token; this one has {rule!r}")
    for k in ks:
        if not 1 <= k <= model.n_latents:
            raise UserError(f"--k {k} is not in 1..{model.n_latents}, the SAE's latents")


def _with_k(model: SAE, k: int) -> SAE:
    """The same weights, not copied, with another k."""
    with torch.device("meta"):
        other = SAE(replace(model.config, k=k))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()
