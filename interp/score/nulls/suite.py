"""A latent, its label and its judged images -> what labels that say nothing score on them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from interp.records.nulls import FREE, Null, NullTest
from interp.records.types import Explanation, LatentStats, Verdict
from interp.records.wording import wording
from interp.score.metrics import Z95
from interp.score.nulls.compare import aurocs, compare

GENERIC = ("an image", "a picture of something", "something")
"""Said of any picture; a free judge's grades of the three are averaged."""
N_WORDS = 1000
"""Words beside the labels of the run that a free judge ranks a label among: the smallest p is then
about .001, and a false discovery rate of 5% can be reached where 2% of the labels are right."""
MOST_LABELS = 500
"""Labels of other latents at most, drawn once for the run: more cost time and tell no more."""
KIN_SHARE = 0.05
"""Share of the words, those nearest to the label in meaning, that are not ranked with it: "dog" is
not wrong where "poodle" fits as well."""
MOST_DOMAINS = 5
_MINOR = frozenset(
    (
        *("a", "an", "the", "of", "in", "on", "at", "with", "and", "or", "to", "by", "for", "from"),
        *("as", "is", "are", "its", "some", "any", "that", "this", "something", "thing"),
        *("image", "picture"),
    )
)
"""Words that say nothing of what is shown."""


class FreeJudge(Protocol):
    """A judge whose grades of many labels cost nothing (`interp.local.models.LocalJudge`)."""

    def prepare(self, labels: Sequence[str]) -> None:
        """Look at labels together that will be graded."""
        ...

    def grade_all(self, labels: Sequence[str], image_ids: Sequence[str]) -> NDArray[np.float64]:
        """(labels, images) grades from 0 to 100 of images that it has judged."""
        ...

    def kinship(self, label: str, labels: Sequence[str]) -> NDArray[np.float64]:
        """(labels,) how near each is to `label` in meaning; larger is nearer."""
        ...


class Nulls(Protocol):
    """What compares a scored label with labels that say nothing."""

    def test(
        self, stats: LatentStats, explanation: Explanation, verdicts: Sequence[Verdict], z: float
    ) -> NullTest: ...


@dataclass(frozen=True)
class FreeNulls:
    """All labels of the run and `N_WORDS` words, graded by a judge that is free."""

    judge: FreeJudge
    labels: Sequence[str]
    """Of all latents of the run."""
    words: Sequence[str]
    """A vocabulary."""
    _others: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        labels = _draw(distinct(self.labels), MOST_LABELS)
        taken = {wording(label) for label in labels}
        words = [word for word in distinct(self.words) if wording(word) not in taken]
        object.__setattr__(self, "_others", (*labels, *_draw(words, N_WORDS)))
        object.__setattr__(self, "labels", labels)
        self.judge.prepare([*self._others, *GENERIC])

    def test(
        self,
        stats: LatentStats,
        explanation: Explanation,
        verdicts: Sequence[Verdict],
        z: float = Z95,
    ) -> NullTest:
        """Images without a grade are left out, of the label and of all others alike; intervals are
        of `z` standard errors."""
        label = explanation.label or ""
        judged = [verdict for verdict in verdicts if verdict.score is not None]
        ids = [verdict.image_id for verdict in judged]
        own = [verdict.score for verdict in judged if verdict.score is not None]
        truth = [verdict.truth for verdict in judged]
        grades = self.judge.grade_all(self._others, ids)  # (others, images)
        is_other = self._is_other(label)
        reached = aurocs(grades[is_other], np.array(truth)) >= _area(own, truth)
        foils = grades[: len(self.labels)][is_other[: len(self.labels)]]
        nulls = self._named(stats, label, judged, own, truth, z)
        if len(foils):
            text = f"{len(foils):,} labels of other latents"
            nulls.append(compare("shuffled", text, own, foils.mean(0).tolist(), truth, z))
        return NullTest(FREE, tuple(nulls), int(is_other.sum()), int(reached.sum()))

    def _named(
        self,
        stats: LatentStats,
        label: str,
        judged: Sequence[Verdict],
        own: Sequence[float],
        truth: Sequence[bool],
        z: float,
    ) -> list[Null]:
        domains = domain_labels(verdict.domain for verdict in judged)
        named = [("generic", GENERIC), *(("domain", (text,)) for text in domains)]
        named += [("class", (name,)) for name in class_labels(stats, label)]
        ids = [verdict.image_id for verdict in judged]
        return [
            compare(
                kind,
                " | ".join(texts),
                own,
                self.judge.grade_all(texts, ids).mean(0).tolist(),
                truth,
                z,
            )
            for kind, texts in named
        ]

    def _is_other(self, label: str) -> NDArray[np.bool_]:
        """Which of `_others` speak of something else than the label."""
        nearest = np.argsort(-self.judge.kinship(label, self._others), kind="stable")
        told_apart = np.array([not says_the_same(label, other) for other in self._others])
        told_apart[nearest[: int(KIN_SHARE * len(nearest))]] = False
        return told_apart


def domain_labels(domains: Iterable[str]) -> list[str]:
    """ "a sketch", "a photo": of each domain of the images, the commonest first."""
    counted: dict[str, int] = {}
    for domain in domains:
        counted[domain] = counted.get(domain, 0) + 1
    return [f"a {name}" for name in sorted(counted, key=lambda n: (-counted[n], n))][:MOST_DOMAINS]


def class_labels(stats: LatentStats, label: str) -> list[str]:
    """The commonest class of the latent's images, unless the label says it: then it is no null."""
    names = [name.replace("_", " ") for name, _ in stats.top_classes[:1]]
    return [name for name in names if not says_the_same(label, name)]


def says_the_same(first: str, second: str) -> bool:
    """Whether two labels share a word that means something: "a red cup", "cups"."""
    return bool(_content(first) & _content(second)) or wording(first) == wording(second)


def distinct(labels: Iterable[str]) -> list[str]:
    """Each label once, whatever its case, in the order of the alphabet."""
    return sorted({wording(label): label for label in sorted(labels) if wording(label)}.values())


def _draw(labels: Sequence[str], n: int) -> list[str]:
    """At most `n` of them, the same whenever they are drawn, in their order."""
    chosen = np.random.default_rng(0).permutation(len(labels))[:n]
    return [labels[index] for index in sorted(chosen.tolist())]


@functools.lru_cache(maxsize=1 << 14)
def _content(label: str) -> frozenset[str]:
    words = re.findall(r"[^\W_]+", label.casefold())
    return frozenset(word.removesuffix("s") for word in words) - _MINOR


def _area(own: Sequence[float], truth: Sequence[bool]) -> float:
    return float(aurocs(np.asarray([own]), np.asarray(truth, bool))[0])
