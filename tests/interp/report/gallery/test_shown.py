"""What cards show, read by columns, is what a look at each example and each verdict gives."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest

from interp.records.types import Evidence, Example, Score, Verdict
from interp.report.figures import number, whole
from interp.report.gallery.shown import N_PER_STRATUM, N_TOP, ShownReader
from interp.run.run import Run
from tests.support.interp import synthetic_run as synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Latents with heat maps; a dead one, one without a score, ties, images that are not held."""
    base = tmp_path_factory.mktemp("shown")
    images = synthetic.make_images(base / "images")
    evidence = synthetic.make_evidence(base / "images", images, 6, (7, 7), special={4: "dead"})
    explanations = [synthetic.explanation(latent, "cat") for latent in range(6)]
    scores = []
    for one in (evidence[latent] for latent in (5, 0, 2, 3)):
        score = synthetic.scored(one, "cat")
        more = [
            Verdict(f"{i:064x}", 10**6 + i, i % 2 == 0, math.nan, 0, kind, "photo", grade)
            for i, (kind, grade) in enumerate((("hard", 49.9), ("quantile", None), ("silent", 7.0)))
        ]
        ties = [dataclasses.replace(v, score=50.0, act=0.5) for v in score.verdicts[:6]]
        verdicts = (*more, *ties, *score.verdicts[6:])
        scores.append(dataclasses.replace(score, verdicts=verdicts))
    folder = base / "results" / "run"
    synthetic.write_run(
        folder, base / "images", images, evidence, explanations, scores, grid=(7, 7)
    )
    return Run(folder)


@pytest.mark.parametrize("latents", [[0, 1, 2, 3, 4, 5], [4], [3, 3, 1], [1, 4]])
def test_columns_show_what_records_show(run: Run, latents: list[int]) -> None:
    table = run.results.read_verdicts()
    reader = ShownReader(run.evidence, table)
    lines = [run.results.newest_score_line(latent) for latent in latents]
    shown = reader.of(latents, [line and table.places(line.span[0]) for line in lines])
    for latent, found in zip(latents, shown, strict=True):
        score, evidence = run.results.score_with_verdicts(latent), run.evidence.of(latent)
        expected, images = _look(evidence, score, list(run.evidence.store.domains))
        assert [found.top, found.quantiles] == expected[:2]
        assert repr(found.verdicts) == repr(expected[2])
        assert [_named(reader.example(at)) for at in found.images] == [_named(e) for e in images]
        assert [reader.has_heat(at) for at in found.images] == [e.heat is not None for e in images]
        assert found.strongest == [e.image_id for e in evidence.of("explain", "top")]
        assert len(set(found.keys)) == len(found.keys)
    assert latents != [4] or shown[0].images == []


def _look(
    evidence: Evidence, score: Score | None, domains: Sequence[str]
) -> tuple[list[Any], list[Example]]:
    held = {e.image_id: e for e in evidence.examples if e.side == "score"}
    tops = evidence.of("explain", "top")
    sample = evidence.of("explain", "quantile")
    groups = [[e for e in tops if e.domain == domain][:N_TOP] for domain in domains]
    strata = [
        [e for e in sample if e.stratum == stratum][:N_PER_STRATUM]
        for stratum in sorted({e.stratum for e in sample})
    ]
    judged = [(v, held.get(v.image_id) or _bare(v)) for v in (score.verdicts if score else ())]
    images: dict[str, Example] = {}
    for one in [e for group in (*groups, *strata) for e in group] + [e for _, e in judged]:
        images.setdefault(one.image_id, one)
    place = {image_id: at for at, image_id in enumerate(images)}
    ordered = sorted(judged, key=lambda pair: _order(pair[0]))
    verdicts = [
        [
            place[v.image_id],
            int(v.truth),
            number(v.act),
            v.kind,
            None if v.score is None else whole(v.score),
            _heat(e) if v.truth else None,
        ]
        for v, e in ordered
    ]
    rows = [
        [[[place[e.image_id], number(e.act), _heat(e)] for e in group] for group in of]
        for of in (groups, strata)
    ]
    return [*rows, verdicts], list(images.values())


def _order(v: Verdict) -> tuple[Any, ...]:
    """Positives, then the hard, then the other negatives; the clearest mistakes first."""
    unknown = math.isnan(v.act)
    return (
        not v.truth,
        v.kind != "hard",
        unknown,
        0 if unknown else -v.act,
        -(v.score or 0),
        v.image_id,
    )


def _heat(e: Example) -> str | None:
    return base64.b64encode(e.heat).decode() if e.heat else None


def _bare(v: Verdict) -> Example:
    return Example(0, "score", v.kind, 0, -1, v.row, v.image_id, v.domain, "", "", v.act)


def _named(e: Example) -> tuple[str, str, str, str, int]:
    return e.image_id, e.domain, e.label, e.path, e.row
