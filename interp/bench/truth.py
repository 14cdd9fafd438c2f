"""How good are latents, labels and scores where the truth is known: the built-in world.

A latent's planted concept is the one that its strongest held-out images show most, against how
often the world shows it anyway; the latent is pure when at least three quarters of them show it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.evidence.reader import EvidenceReader
from interp.pictures.cache import Images
from interp.records.types import Explanation, Status
from interp.run.truth_file import LabelTruth
from interp.score.judge import Judge
from interp.score.latent import score_latent
from interp.score.nulls.shuffle import shuffle_labels
from sae.core.errors import UserError
from sae.core.files import read_config
from sae.data.table import Kind, read_frame
from sae.model.sae import SAE
from sae.world.scene.concepts import BY_NAME, TIERS, concept_named
from sae.world.write import MARKER, WorldInfo

N_TOP = 16
"""Strongest held-out images that a concept must hold for."""
PURE = 0.75
"""Share of them."""
RECALL = 0.1
"""Share of a domain's images of an object on which its latent must fire to fire in that domain."""


@dataclass(frozen=True)
class TruthReport:
    """Shares in [0, 1]; NaN where there is nothing to count."""

    n_live: int
    pure: float
    """Of the live latents."""
    n_pure_objects: int
    """Pure latents whose planted concept is an object."""
    both_domains: float
    """Of the pure object latents: those that fire in sketches and in photos of their object."""
    named_objects: float
    """Of the pure object latents: those whose label says the planted concept, or a synonym."""
    named_pure: float
    """Likewise, of all pure latents."""
    named_true: float
    """Of the live latents: those whose label is true of at least PURE of the top images."""
    auroc_true: float
    """Median AUROC over the pure latents when the judge is told the planted concept."""
    auroc_shuffled: float
    """Likewise, when it is told another latent's."""

    def table(self) -> list[tuple[str, ...]]:
        """Rows for people."""
        return [
            ("live latents", f"{self.n_live}"),
            ("pure (one concept in 3/4 of the top 16 held-out images)", f"{self.pure:.1%}"),
            ("pure object latents", f"{self.n_pure_objects}"),
            ("  of them firing in both domains", f"{self.both_domains:.1%}"),
            ("  of them named right", f"{self.named_objects:.1%}"),
            ("pure latents named right", f"{self.named_pure:.1%}"),
            ("live latents whose label is true of 3/4 of the top 16", f"{self.named_true:.1%}"),
            ("median AUROC of the true label, pure latents", f"{self.auroc_true:.3f}"),
            ("median AUROC of shuffled true labels", f"{self.auroc_shuffled:.3f}"),
        ]


@dataclass(frozen=True)
class Planted:
    """What the truth says of every latent."""

    names: tuple[str, ...]  # of the concepts
    precision: NDArray[np.float64]  # (n_latents, concepts) share of the top images, NaN when dead
    concept: NDArray[np.int64]  # (n_latents,) place in `names`
    purity: NDArray[np.float64]  # (n_latents,) precision of that concept

    @property
    def pure(self) -> NDArray[np.bool_]:
        return np.nan_to_num(self.purity) >= PURE


def measure(
    reader: EvidenceReader,
    model: SAE,
    truth: pd.DataFrame,
    explanations: Mapping[int, Explanation],
    judge: Judge,
    images: Images,
    progress: Callable[[int, int], None] | None = None,
) -> TruthReport:
    """Measure a run on a store of the built-in world, whose `truth` is indexed by image id.

    `images` gives the judge its pictures.
    """
    found = find_planted(reader, truth)
    live = np.array(reader.live(), dtype=np.int64)
    pure = live[found.pure[live]]
    objects = [n for n in pure if BY_NAME[found.names[found.concept[n]]].kind == "object"]
    named = {n: _named_concept(explanations.get(int(n)), found.names) for n in live}
    both = fires_in_both(reader, model, truth, found)
    told = {
        int(n): _told(int(n), found.names[found.concept[n]], explanations)
        for n in pure
        if int(n) in explanations
    }
    true, false = _scores(reader, judge, images, told, progress)
    return TruthReport(
        n_live=len(live),
        pure=_mean(found.pure[live]),
        n_pure_objects=len(objects),
        both_domains=_mean(both[objects]),
        named_objects=_mean([named[n] == found.concept[n] for n in objects]),
        named_pure=_mean([named[n] == found.concept[n] for n in pure]),
        named_true=_mean([_is_true(found, n, named[n]) for n in live]),
        auroc_true=float(np.median(true)) if true else float("nan"),
        auroc_shuffled=float(np.median(false)) if false else float("nan"),
    )


def judge_labels(
    reader: EvidenceReader, truth: pd.DataFrame, explanations: Mapping[int, Explanation]
) -> list[LabelTruth]:
    """Whether each label of a live latent is true of the images that it is for."""
    found = find_planted(reader, truth)
    made = []
    for latent in reader.live():
        said = explanations.get(latent)
        if said is not None and said.label is not None:
            named = _named_concept(said, found.names)
            concept = found.names[found.concept[latent]]
            made.append(LabelTruth(latent, said.label, concept, _is_true(found, latent, named)))
    return made


def read_truth(path: Path) -> pd.DataFrame:
    """truth.parquet of a written world, indexed by image id; world.json beside it says the tier."""
    if not path.exists():
        raise UserError(f"{path} is missing; `sae world` writes it beside the images")
    marker = path.with_name(MARKER)
    tier = read_config(marker, WorldInfo).tier if marker.exists() else "easy"
    columns: dict[str, Kind] = {
        **dict.fromkeys(("image_id", "path", "domain", "label"), "text"),
        "seed": "whole",
        **dict.fromkeys((concept.name for concept in TIERS[tier]), "bool"),
        **({"objects": "list"} if tier == "hard" else {}),
    }
    return read_frame(path, columns, "draw the world again").set_index("image_id")


def find_planted(reader: EvidenceReader, truth: pd.DataFrame) -> Planted:
    """The planted concept of every latent, from its strongest images on the score side."""
    examples = reader.examples
    top = examples[
        (examples["side"] == "score") & (examples["kind"] == "top") & (examples["rank"] < N_TOP)
    ]
    true = truth.select_dtypes(bool)
    shown = true.reindex(top["image_id"].astype(str)).to_numpy(float)  # (examples, concepts)
    precision = pd.DataFrame(shown).groupby(top["latent"].to_numpy()).mean()
    p = precision.reindex(range(reader.info.n_latents)).to_numpy(np.float64)
    base = true.mean().to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = np.nan_to_num(p * np.log((p + 1e-6) / (base + 1e-6)), nan=-np.inf)
    concept = lift.argmax(1)
    names = tuple(map(str, true.columns))
    return Planted(names, p, concept, np.take_along_axis(p, concept[:, None], 1)[:, 0])


def fires_in_both(
    reader: EvidenceReader, model: SAE, truth: pd.DataFrame, found: Planted
) -> NDArray[np.bool_]:
    """(n_latents,) whether a latent fires on its planted concept in every domain of the store."""
    images = reader.store.images
    true = truth.loc[images["image_id"], list(found.names)].to_numpy(bool)  # (images, concepts)
    domain = images["domain"].to_numpy()
    n_fired = {name: np.zeros(model.n_latents) for name in reader.store.domains}
    n_true = {name: true[domain == name].sum(0)[found.concept] for name in n_fired}
    for batch in reader.store.batches():
        fired = _fired(model, batch.x)  # (b, n_latents)
        shows = true[batch.rows][:, found.concept]  # (b, n_latents)
        for name, counts in n_fired.items():
            counts += (fired & shows)[domain[batch.rows] == name].sum(0)
    recalls = [n_fired[name] / np.maximum(n_true[name], 1) for name in n_fired]
    return np.asarray(np.min(recalls, axis=0) > RECALL)


@torch.inference_mode()
def _fired(model: SAE, x: torch.Tensor) -> NDArray[np.bool_]:
    b, t, d = x.shape
    codes = model.encode(x.reshape(b * t, d).float())
    active = codes.dense(model.n_latents) > 0  # (b * t, n_latents)
    return np.asarray(active.reshape(b, t, -1).any(1).numpy())


def _named_concept(explanation: Explanation | None, names: tuple[str, ...]) -> int | None:
    """Place in `names` of what the label says; None when it says none of them."""
    if explanation is None or explanation.label is None:
        return None
    concept = concept_named(explanation.label)
    return names.index(concept.name) if concept and concept.name in names else None


def _is_true(found: Planted, latent: int, concept: int | None) -> bool:
    return concept is not None and bool(found.precision[latent, concept] >= PURE)


def _told(latent: int, concept: str, explanations: Mapping[int, Explanation]) -> Explanation:
    return dataclasses.replace(explanations[latent], label=concept, description="", failure=None)


def _scores(
    reader: EvidenceReader,
    judge: Judge,
    images: Images,
    told: Mapping[int, Explanation],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[float], list[float]]:
    """AUROC of every latent under its planted label, and under another's."""
    status: dict[int, Status] = dict.fromkeys(told, "live")
    tests = [*told.values(), *shuffle_labels(list(told.values()), status)]
    values: list[float] = []
    for number, test in enumerate(tests):
        evidence = reader.of(test.latent)
        score = asyncio.run(score_latent(evidence, test, judge, images))
        values.append(score.auroc)
        if progress is not None:
            progress(number + 1, len(tests))
    true, false = values[: len(told)], values[len(told) :]
    return [v for v in true if not np.isnan(v)], [v for v in false if not np.isnan(v)]


def _mean(values: Iterable[bool] | NDArray[np.bool_]) -> float:
    array = np.asarray(list(values), dtype=float)
    return float(array.mean()) if len(array) else float("nan")
