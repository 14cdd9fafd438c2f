"""Images of the whole explain side and words -> one to three terms that predict the activation.

The baseline that costs nothing: a regression of the activation on CLIP similarities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from interp.local import naming
from interp.local.models import LocalNamer, fingerprint, letters_of
from interp.local.vocabulary import Term
from interp.pictures.cache import Images, read_images
from interp.records.family import LINEAR
from interp.records.split import check_side
from interp.records.types import (
    TOO_FEW,
    UNREADABLE,
    AnsweredBy,
    Evidence,
    Example,
    Explanation,
    Kind,
    LatentStats,
)
from interp.records.wording import ADDRESSES_JUDGE, addresses_judge, cut_description, cut_label
from sae.core.clip_name import without_place

MOST_TERMS = 3
LEAST_GAIN = 0.02
"""Of cross-validated R2, by which a further term must predict images better that it was not fitted
on."""
N_FOLDS = 5
LEAST_ACTIVE = 5
"""Fewer active images than this, or fewer others, give no label."""
_KINDS: tuple[Kind, ...] = ("weak", "quantile", "silent", "hard")
_FOLDS = 7
"""Name of the random stream that folds are drawn from."""

Floats = NDArray[np.float64]


class Sample(NamedTuple):
    """Images of the explain side and what is to be predicted on them."""

    z: Floats  # (n, c) similarities in deviations above what is usual
    acts: Floats  # (n,)
    weights: Floats  # (n,) images that each stands for

    def where(self, chosen: NDArray[np.bool_]) -> Sample:
        """Those of `chosen`, (n,) flags."""
        return Sample(self.z[chosen], self.acts[chosen], self.weights[chosen])


class Fit(NamedTuple):
    """Terms, as columns, the heaviest first."""

    terms: tuple[int, ...]
    weights: tuple[float, ...]
    """Above 0: what one deviation of a term adds to the activation, in its own deviations."""
    r2: float
    """Of images that were left out of the fit (`N_FOLDS` folds); 0: no better than the mean."""


class LinearNamer(LocalNamer):
    """Names a latent by the terms whose CLIP similarities, added up, follow its activation.

    The terms are fitted on an even sample of all images of the explain side, not on the strongest.
    """

    @classmethod
    def identify(cls, clip_name: str, vocabulary: Sequence[Term]) -> AnsweredBy:
        """See `LocalNamer.identify`."""
        settings = (MOST_TERMS, LEAST_GAIN, N_FOLDS, LEAST_ACTIVE)
        prompt = fingerprint("linear", clip_name, vocabulary, *settings)
        return AnsweredBy(f"{LINEAR}:{without_place(clip_name)}", prompt)

    @staticmethod
    def choose(evidence: Evidence) -> tuple[Example, ...]:
        """See `LocalNamer.choose`."""
        return choose_fitted(evidence)

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """One to three terms; no label where images are too few or their activations all one."""
        chosen = choose_fitted(evidence)
        latent, by = evidence.stats.latent, AnsweredBy(self.name, self.prompt)
        if not _is_enough(chosen):
            return Explanation.failed(latent, by, TOO_FEW, letters_of(chosen))
        shown = read_images(images, chosen)
        unnamed = Explanation.failed(latent, by, UNREADABLE, letters_of([*shown]))
        if not _is_enough([*shown]):
            return unnamed
        rows = self.encoder.encode((e.image_id, image) for e, image in shown.items())
        z = naming.standardise(rows @ self._texts.T, self._similarity)  # (n, c)
        sample = Sample(
            z.double().numpy(),
            np.array([example.act for example in shown]),
            weigh([*shown], evidence.stats),
        )
        folds = _folds([example.group_id for example in shown], latent)
        fit = fit_terms(sample, folds)
        if not fit.terms:
            return replace(unnamed, failure=TOO_FEW, reason="no term goes with the activation")
        return self._named(unnamed, fit, len(shown), evidence.stats)

    def _named(
        self, unnamed: Explanation, fit: Fit, n_images: int, stats: LatentStats
    ) -> Explanation:
        names = [self._terms[term] for term in fit.terms]
        label, label_cut = cut_label(join_terms(names))
        weighted = " + ".join(f"{w:.2f} {name}" for w, name in zip(fit.weights, names, strict=True))
        provenance, _ = cut_description(
            f"linear on CLIP similarities: {weighted} (deviations of the activation for each of "
            f"the similarity); R2 {fit.r2:.2f} on images left out, of {n_images} images"
        )
        verdict = "single" if len(names) == 1 else "several"
        return replace(
            unnamed,
            label=label,
            failure=None,
            lint=(*((ADDRESSES_JUDGE,) if addresses_judge(label) else ()), *label_cut),
            verdict=verdict if fit.r2 > 0 else "unclear",
            confidence=max(0, round(100 * fit.r2)),
            candidates=tuple(names),
            domain=stats.bound_domain,
            provenance=provenance,
        )


def choose_fitted(evidence: Evidence) -> tuple[Example, ...]:
    """The images that terms are fitted on: the even sample of the active ones, and those that leave
    the latent silent, or nearly so. Raises `LeakError` for one of the score side.
    """
    kept: dict[str, Example] = {}
    for kind in _KINDS:
        for example in evidence.of("explain", kind):
            kept.setdefault(example.image_id, example)
    chosen = tuple(kept.values())
    check_side(chosen, "explain")
    return chosen


def weigh(examples: Sequence[Example], stats: LatentStats) -> Floats:
    """(n,) how many images of the explain side each stands for, in parts that are all the same.

    An active image stands for as many as any other. A hard or weak image was chosen, not drawn, and
    stands for itself; the silent ones of a domain share its images that are silent. A domain of
    which no silent image was drawn is left out where it has some.
    """
    active = Counter(e.domain for e in examples if e.kind == "quantile")
    silent = Counter(e.domain for e in examples if e.kind == "silent")
    one = min(1.0, 2 * active.total() / max(stats.n_active, 1))  # about half are explain images
    weights = np.zeros(len(examples))
    for at, example in enumerate(examples):
        rate = stats.domain_rate.get(example.domain, 0.0)
        if not rate or (rate < 1 and not silent[example.domain]):
            continue
        shared = active[example.domain] * (1 - rate) / rate
        weights[at] = {
            "quantile": 1.0,
            "silent": shared / max(silent[example.domain], 1),
        }.get(example.kind, one)
    return weights if (weights > 0).sum() >= 2 * LEAST_ACTIVE else np.ones(len(examples))


def fit_terms(sample: Sample, folds: NDArray[np.int64]) -> Fit:
    """The terms that predict best, as many as predict images better that were left out.

    Terms are taken one by one, each time the one that explains most of what is left; their weights
    are refitted together and never below 0. `folds`: (n,) the fold that each image is left out
    with. No terms where none goes with the activation.
    """
    terms, weights = _grow(sample)
    gains = _cross_validated(sample, folds)[: len(terms)]
    n = 1
    while n < len(gains) and gains[n] - gains[n - 1] >= LEAST_GAIN:
        n += 1
    if not terms:
        return Fit((), (), 0.0)
    kept = weights[n - 1]
    order = np.argsort(-kept, kind="stable").tolist()
    found = tuple(terms[place] for place in order)
    scaled = tuple(float(kept[place]) for place in order)
    return Fit(found, scaled, float(gains[n - 1]))


def join_terms(names: Sequence[str]) -> str:
    """ "cup", "cup or zigzag", "cup, net or zigzag"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _grow(sample: Sample) -> tuple[list[int], list[Floats]]:
    """Up to `MOST_TERMS` terms, best first, and the weights of the first one, two, ... of them."""
    root = np.sqrt(sample.weights / sample.weights.sum())[:, None]
    z = (sample.z - np.average(sample.z, axis=0, weights=sample.weights)) * root
    y = (sample.acts - np.average(sample.acts, weights=sample.weights)) * root[:, 0]
    scale = float(np.linalg.norm(y))
    terms: list[int] = []
    found: list[Floats] = []
    if scale <= 0:
        return terms, found
    y = y / scale
    rest_z, rest = z.copy(), y.copy()
    while len(terms) < MOST_TERMS:
        spread = np.linalg.norm(rest_z, axis=0)
        known = spread > 1e-6 * np.maximum(np.linalg.norm(z, axis=0), 1e-12)
        explained = np.where(known, rest @ rest_z / np.where(known, spread, 1.0), -np.inf)
        best = int(explained.argmax())
        weights = nnls(z[:, [*terms, best]], y)[0]
        if explained[best] <= 0 or not (weights > 0).all():
            break
        terms.append(best)
        found.append(weights)
        along = rest_z[:, best] / spread[best]
        rest = rest - along * (along @ rest)
        rest_z = rest_z - np.outer(along, along @ rest_z)
    return terms, found


def _cross_validated(sample: Sample, folds: NDArray[np.int64]) -> Floats:
    """(MOST_TERMS,) R2 of one, two, ... terms on images that neither chose nor fitted them."""
    predicted = np.zeros((MOST_TERMS, len(sample.acts)))
    usual = np.zeros(len(sample.acts))
    for fold in np.unique(folds):
        out = folds == fold
        rest = sample.where(~out)
        terms, weights = _grow(rest)
        mean = np.average(rest.acts, weights=rest.weights)
        spread = np.sqrt(np.average((rest.acts - mean) ** 2, weights=rest.weights))
        usual[out] = mean
        predicted[:, out] = mean
        for n in range(MOST_TERMS):
            known = min(n + 1, len(terms))
            if known:
                chosen = terms[:known]
                centre = np.average(rest.z[:, chosen], axis=0, weights=rest.weights)
                moved = (sample.z[out][:, chosen] - centre) @ weights[known - 1]
                predicted[n, out] += spread * moved
    left = ((sample.acts - predicted) ** 2) @ sample.weights
    whole = float(((sample.acts - usual) ** 2) @ sample.weights)
    return np.asarray(1 - left / whole if whole > 0 else np.zeros(MOST_TERMS))


def _folds(groups: Sequence[str], latent: int) -> NDArray[np.int64]:
    """(n,) a fold for each image; images that belong together are left out together."""
    names = sorted(set(groups))
    order = np.random.default_rng([_FOLDS, latent]).permutation(len(names))
    fold_of = {names[at]: place % N_FOLDS for place, at in enumerate(order.tolist())}
    return np.array([fold_of[group] for group in groups])


def _is_enough(examples: Sequence[Example]) -> bool:
    n_active = sum(example.kind == "quantile" for example in examples)
    return min(n_active, len(examples) - n_active) >= LEAST_ACTIVE
