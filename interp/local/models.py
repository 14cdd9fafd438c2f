"""Images and words -> labels, and scores of labels, by CLIP similarity: neither needs a key."""

from __future__ import annotations

import asyncio
import functools
import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interp.local import naming
from interp.local.clip_encoder import ClipEncoder, embed_terms
from interp.local.naming import Usual
from interp.local.vocabulary import RIVALS, Place, Term, place_among_rivals, texts_of
from interp.pictures.cache import Images, read_images
from interp.records.family import LOCAL
from interp.records.split import check_side
from interp.records.types import (
    TOO_FEW,
    UNREADABLE,
    AnsweredBy,
    Evidence,
    Example,
    Explanation,
)
from interp.records.wording import (
    ADDRESSES_JUDGE,
    addresses_judge,
    alternatives,
    cut_description,
    cut_label,
)
from interp.score.judge import Judgement, Pictures
from sae.core.clip_name import without_place
from sae.core.files import sha256_hex

N_NAMING_IMAGES = 16
"""The strongest explain images, by which a name must fit."""
N_FURTHER_IMAGES = 32
"""Explain images of all strengths that a name is read off beside them: what a few of the strongest
share by chance is not shared by these."""
N_CANDIDATES = 5
MIN_IMAGES = 3
"""Fewer top images than this give no name."""


class Curve(NamedTuple):
    """How a judge's similarity becomes a grade: a logistic fit, rounded."""

    midpoint: float
    """Similarity, in standard deviations above the background's mean, that means "cannot tell"."""
    steepness: float
    step: float = 0.1
    """Grades are rounded to this."""
    has_rivals: bool = False
    """Of the similarity to an object, a colour or a medium that to the world's other one that fits
    best is taken off, by `RIVAL_SHARES`: a look-alike goes by its own name."""


JUDGE_CURVES = {"tiny-conv": Curve(0.4, 1.6, step=10, has_rivals=True)}
"""By CLIP: rounded from what `benchmarks/local_judge.py` fits on a world of which no figure is
reported (seed 31), to whether the label is true, when objects alone had rivals. In tens, as vision
models answer: finer differences are of images that the label does not fit, and there they only tell
the latent."""
RIVAL_SHARES = {"object": 1.0, "colour": 0.5, "domain": 1.0}
"""How much of a rival's similarity is taken off, by kind. Colours: an image that shows two things
may well have both. Chosen among quarters on that same world."""
OTHER_CURVE = Curve(1.2, 1.7)
"""For any other CLIP; for "tiny", the fit to whether the latent is active (1.14, 1.67)."""

LEAST_SPREAD = 1e-6
"""Of a text's similarity to the background: it is divided by."""
_N_LISTS = 64
"""Lists of labels that are kept as they were looked up: a latent is graded by about six, of which
the long ones come again with the next latent."""


class LocalNamer:
    """Names a latent by the words whose CLIP similarity its images raise most: one, or two where
    its images fall into two groups.

    `background` is an unselected lot of images of the explain side: what a term scores anyway.
    """

    n_candidates = N_CANDIDATES
    """Names that are kept, best first."""

    def __init__(
        self,
        encoder: ClipEncoder,
        vocabulary: Sequence[Term],
        background: Iterable[tuple[str, Image.Image]],
    ) -> None:
        self.name, self.prompt, _ = self.identify(encoder.clip.name, vocabulary)
        self.encoder = encoder
        self._terms = [term.name for term in vocabulary]
        self._texts = embed_terms(encoder.clip, [term.texts for term in vocabulary])  # (c, d)
        self.background = encoder.encode(background)  # (b, d)
        self._similarity = self.background @ self._texts.T  # (b, c)
        self._usual = Usual.of(self._similarity)

    @classmethod
    def identify(cls, clip_name: str, vocabulary: Sequence[Term]) -> AnsweredBy:
        """Name and prompt of the namer with this CLIP and these terms; nothing is loaded."""
        more = () if cls.n_candidates == N_CANDIDATES else (cls.n_candidates,)
        prompt = fingerprint(
            clip_name, vocabulary, N_NAMING_IMAGES, N_FURTHER_IMAGES, naming.SETTINGS, *more
        )
        return AnsweredBy(LOCAL, prompt)

    @staticmethod
    def choose(evidence: Evidence) -> tuple[Example, ...]:
        """The images that it looks at. Raises `LeakError` for one of the score side."""
        return choose_named(evidence)

    async def explain(self, evidence: Evidence, images: Images) -> Explanation:
        """Name the latent from its images on the explain side; no label if they are too few."""
        chosen = choose_named(evidence)
        shown = read_images(images, chosen)
        strong = torch.tensor([example.kind == "top" for example in shown], dtype=torch.bool)
        codes = letters_of(shown)
        latent, by = evidence.stats.latent, AnsweredBy(self.name, self.prompt)
        n_strong = sum(example.kind == "top" for example in chosen)
        why = TOO_FEW if n_strong < MIN_IMAGES else UNREADABLE
        unnamed = Explanation.failed(latent, by, why, codes)
        if int(strong.sum()) < MIN_IMAGES:
            return unnamed
        similarity = self.encoder.encode(_with_ids(shown)) @ self._texts.T  # (n, c)
        z = naming.standardise(similarity, self._similarity)
        named = naming.name_images(z, strong, self._usual, (_HALVES, latent), self.n_candidates)
        names = [self._terms[term] for term in named.ranked]
        label, label_cut = cut_label(names[0])
        second = names[1] if len(named.terms) > 1 else None
        provenance, _ = cut_description(
            f"named by CLIP similarity from {len(shown)} images; "
            f"next best: {', '.join(names[len(named.terms) :])}"
        )
        speaks = any(addresses_judge(name) for name in names[: len(named.terms)])
        return replace(
            unnamed,
            label=label,
            second_label=cut_label(second)[0] if second else None,
            lint=(*((ADDRESSES_JUDGE,) if speaks else ()), *label_cut),
            verdict=named.verdict,
            confidence=named.confidence,
            failure=None,
            candidates=tuple(names),
            domain=evidence.stats.bound_domain,
            provenance=provenance,
        )


class LocalJudge:
    """Scores images by their CLIP similarity to a label, against what other images reach.

    0 to 100; 50, "cannot tell", lies at the midpoint of the CLIP's curve. The description is not
    read: CLIP's text tower is at its best with a few words.
    """

    def __init__(self, encoder: ClipEncoder, background: Iterable[tuple[str, Image.Image]]) -> None:
        self.name, self.prompt, _ = self.identify(encoder.clip.name)
        self.encoder = encoder
        self._curve = JUDGE_CURVES.get(encoder.clip.name, OTHER_CURVE)
        self.background = encoder.encode(background)  # (b, d)
        self._texts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._names_of = functools.lru_cache(_N_LISTS)(self._look_up)

    @classmethod
    def identify(cls, clip_name: str) -> AnsweredBy:
        """Name and prompt of the judge with this CLIP; nothing is loaded."""
        curve = JUDGE_CURVES.get(clip_name, OTHER_CURVE)
        prompt = fingerprint(clip_name, *curve, "the better of alternatives", RIVAL_SHARES)
        return AnsweredBy(f"local:{without_place(clip_name)}", prompt)

    async def judge(
        self, label: str, description: str, pictures: Pictures, about: str = ""
    ) -> Judgement:
        """A score for every picture; none is ever missing."""
        shown = await asyncio.to_thread(pictures)
        if not shown:
            return Judgement({})
        rows = self.encoder.encode((tile.image_id, tile.image) for tile in shown)  # (n, d)
        rounded = [round(score, 1) for score in self.grade([label], rows)[0].tolist()]
        letters = (tile.letter for tile in shown)
        return Judgement(scores=dict(zip(letters, rounded, strict=True)))

    def prepare(self, labels: Sequence[str]) -> None:
        """Embed the texts of labels together, once: the same ones give the same bits."""
        names = (name for label in labels for name in (label, *alternatives(label)))
        fresh = [name for name in dict.fromkeys(names) if name not in self._texts]
        if not fresh:
            return
        clip = self.encoder.clip
        texts = embed_terms(clip, [texts_of(label, clip.name) for label in fresh])  # (m, d)
        usual = self.background @ texts.T  # (b, m)
        spread = usual.std(0, correction=0).clamp_min(LEAST_SPREAD)
        self._texts |= zip(fresh, zip(texts, usual.mean(0), spread, strict=True), strict=True)

    def grade_all(self, labels: Sequence[str], image_ids: Sequence[str]) -> NDArray[np.float64]:
        """(labels, images) the grades of many labels, of images that were judged before."""
        rows = self.encoder.known(image_ids)  # (n, d)
        return np.asarray(self.grade(labels, rows).double().numpy().round(1))

    def kinship(self, label: str, labels: Sequence[str]) -> NDArray[np.float64]:
        """(labels,) cosine of each label's text with that of `label`."""
        self.prepare([label, *labels])
        own, others = self._texts[label][0], torch.stack([self._texts[text][0] for text in labels])
        return np.asarray((others @ own).double().numpy())

    def grade(self, labels: Sequence[str], rows: Tensor) -> Tensor:
        """(labels, n) grades of image rows (n, d)."""
        curve, standing = self._curve, self.standing(labels, rows)
        grades = 100 * torch.sigmoid(curve.steepness * (standing - curve.midpoint))
        return curve.step * torch.round(grades / curve.step)

    def standing(self, labels: Sequence[str], rows: Tensor) -> Tensor:
        """(labels, n) similarities above what is usual, and above rivals where there are any; of a
        label that names alternatives that of the one that fits better."""
        names = self._names_of(tuple(labels))
        z = names.deviations(rows)
        if self._curve.has_rivals:
            z = z - self._best_rivals(names.places, rows)
        if len(z) == len(labels):
            return z
        return torch.stack([part.amax(0) for part in torch.split(z, names.counts)])

    def _best_rivals(self, places: Sequence[Place | None], rows: Tensor) -> Tensor:
        """(names, n) the best of the other names of its kind; 0 for a name that has no rivals."""
        found = torch.zeros(len(places), rows.shape[0])
        for kind, names in RIVALS.items():
            own = {
                at: place.number for at, place in enumerate(places) if place and place.kind == kind
            }
            if not own:
                continue
            every = self._names_of(names).deviations(rows)  # (names, n)
            (first, second), best = every.topk(2, dim=0).values, every.argmax(0)
            numbers = torch.tensor([*own.values()])
            rival = torch.where(best == numbers[:, None], second, first)
            found[[*own]] = RIVAL_SHARES[kind] * rival
        return found

    def _look_up(self, labels: tuple[str, ...]) -> _Names:
        """What `standing` needs of the labels' names, without looking at any image."""
        named = [alternatives(label) for label in labels]
        names = [name for each in named for name in each]
        self.prepare(names)
        texts, mean, spread = map(
            torch.stack, zip(*(self._texts[name] for name in names), strict=True)
        )
        places = [place_among_rivals(name) for name in names]
        return _Names(texts, mean, spread, places, [len(each) for each in named])


class _Names(NamedTuple):
    """The m names that labels consist of, and what the background's similarity to them is."""

    texts: Tensor  # (m, d) unit rows
    mean: Tensor  # (m,)
    spread: Tensor  # (m,)
    places: list[Place | None]  # (m,)
    counts: list[int]  # (labels,) names of each label

    def deviations(self, rows: Tensor) -> Tensor:
        """(m, n) similarities to image rows (n, d) above what is usual."""
        return (self.texts @ rows.T - self.mean[:, None]) / self.spread[:, None]


def choose_named(evidence: Evidence) -> tuple[Example, ...]:
    """The images that a name is read off: the strongest, and an even choice of all strengths.

    Raises `LeakError` for one of the score side.
    """
    tops = evidence.of("explain", "top")[:N_NAMING_IMAGES]
    taken = {example.image_id for example in tops}
    sample = [e for e in evidence.positives("explain", "quantile") if e.image_id not in taken]
    n = min(len(sample), N_FURTHER_IMAGES)
    chosen = (*tops, *(sample[at * len(sample) // n] for at in range(n)))
    check_side(chosen, "explain")
    return chosen


def _with_ids(shown: Mapping[Example, Image.Image]) -> Iterator[tuple[str, Image.Image]]:
    return ((example.image_id, image) for example, image in shown.items())


_HALVES = 3
"""Name of the random stream that halves are drawn from."""


def fingerprint(*settings: object) -> str:
    """Names all that decides the answers; with other settings a latent is answered anew."""
    return sha256_hex(json.dumps(settings).encode())


def letters_of(shown: Iterable[Example]) -> dict[str, str]:
    """Image ids under A, B, ... Z, AA, AB, ..."""
    codes = (map("".join, product(string.ascii_uppercase, repeat=n)) for n in count(1))
    ids = (example.image_id for example in shown)
    return dict(zip(chain.from_iterable(codes), ids, strict=False))
