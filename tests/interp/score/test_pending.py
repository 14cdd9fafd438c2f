"""Which labels a run of scoring would still test, and by how many questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.score.run import n_questions
from interp.score.sampling import SampleConfig
from tests.support.interp.asking import pending_tests, score_run
from tests.support.interp.latents import Source, explained, make_evidence
from tests.support.interp.scoring import EVIDENCE, LATENTS, Scripted, named, redness, run, score


def pending(path: Path, source: Source | None = None, **how: Any) -> list[int]:
    tests = [*named()[::-1], explained(13, None, "refused")]
    source = source or Source(*EVIDENCE)
    return [test.latent for test in pending_tests(path, source, "scripted", "p1", tests, **how)]


def test_pending_are_the_labels_that_a_run_would_test_in_the_order_of_the_latents(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scores.jsonl"
    assert pending(path) == list(LATENTS)
    score_run(path, Source(*EVIDENCE), Scripted(redness), named()[1:2])
    assert pending(path) == [7, 11]
    score_run(path, Source(*EVIDENCE), Scripted(redness), named())
    assert pending(path) == []
    assert pending(path, control="shuffled") == list(LATENTS)
    assert pending(path, config=SampleConfig(n_positive=10)) == list(LATENTS)
    assert pending_tests(path, Source(*EVIDENCE), "other", "p1", named()) == named()
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p2", named()) == named()


@pytest.mark.parametrize("control", ["", "shuffled"])
def test_to_know_what_is_pending_each_latent_is_looked_up_once(
    tmp_path: Path, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, source = tmp_path / "scores.jsonl", Source(*EVIDENCE)
    run(path, Scripted(redness), control=control)
    asked: list[int] = []
    monkeypatch.setattr(source, "of", lambda n: asked.append(n) or Source(*EVIDENCE).of(n))
    assert pending(path, source, control=control) == []
    assert asked == list(LATENTS)


def test_labels_with_missing_answers_are_pending_again_when_failures_are_retried(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scores.jsonl"
    run(path, Scripted(redness))
    refusing = Scripted(lambda image: redness(image) or None, "refused")
    score_run(path, Source(*EVIDENCE), refusing, [explained(9, "cyan")])
    tests = [explained(7, "red"), explained(9, "cyan")]
    again = {"retry_failed": True}
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests) == []
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests, **again) == tests[1:]
    score_run(path, Source(*EVIDENCE), Scripted(redness), tests, retry_failed=True)
    assert pending_tests(path, Source(*EVIDENCE), "scripted", "p1", tests, **again) == []


@pytest.mark.parametrize(("n_hard", "n_silent", "n"), [(16, 32, 4), (3, 6, 3), (1, 1, 0)])
def test_questions_of_a_latent_are_its_grids_and_none_without_enough_images(
    n_hard: int, n_silent: int, n: int
) -> None:
    evidence = make_evidence(n_hard=n_hard, n_silent=n_silent)
    judge = Scripted(redness)
    score(judge, evidence)
    assert n_questions(evidence) == len(judge.asked) == n
    fewer = Scripted(redness)
    score(fewer, evidence, config=SampleConfig(n_tiles=5))
    assert n_questions(evidence, SampleConfig(n_tiles=5)) == len(fewer.asked) == 2 * n
