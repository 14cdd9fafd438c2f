"""What was said and measured in a run: read once, the last line counts, nothing is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from interp.records.codec import to_json
from interp.records.types import Evidence, Explanation, Score
from interp.run.results import Results
from sae.core.files import append_jsonl, repair_jsonl
from tests.support.interp import synthetic_run as synthetic


@pytest.fixture
def evidence(tmp_path: Path) -> list[Evidence]:
    images = synthetic.make_images(tmp_path / "images", per_class=4)
    return synthetic.make_evidence(tmp_path / "images", images, 3)


def explained(latent: int, label: str) -> Explanation:
    return synthetic.explanation(latent, label)


def write(folder: Path, *records: Explanation | Score) -> None:
    for record in records:
        name = "explanations.jsonl" if isinstance(record, Explanation) else "scores.jsonl"
        append_jsonl(folder / name, [to_json(record)])


def test_files_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.explanations == []
    assert results.score_lines == []
    assert results.label(0) is None
    assert results.score(0) is None
    assert list(tmp_path.iterdir()) == []


def test_a_torn_last_line_is_passed_over_and_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, explained(0, "cat"), explained(1, "dog"))
    path = tmp_path / "explanations.jsonl"
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    assert [e.label for e in Results(tmp_path).explanations] == ["cat"]
    assert path.read_bytes() == torn


def test_the_last_line_of_a_latent_counts_and_controls_do_not(
    tmp_path: Path, evidence: list[Evidence]
) -> None:
    write(tmp_path, explained(0, "old"), explained(0, "new"))
    control = dataclasses.replace(synthetic.scored(evidence[0], "new", 0.1), control="shuffled")
    first, last = (synthetic.scored(evidence[0], "new", auroc) for auroc in (0.7, 0.8))
    write(tmp_path, first, last, control)
    results = Results(tmp_path)
    score = results.score(0)
    assert score is not None
    assert (results.label(0), score.auroc, score.verdicts) == ("new", 0.8, ())
    assert results.score_with_verdicts(0) == last
    assert list(results.scores_with_verdicts()) == [first, last, control]


def test_a_score_of_an_earlier_label_is_none_but_can_be_seen(
    tmp_path: Path, evidence: list[Evidence]
) -> None:
    earlier = synthetic.scored(evidence[0], "old", 0.9)
    write(tmp_path, explained(0, "new"), earlier)
    results = Results(tmp_path)
    assert results.score(0) is None
    assert results.score_with_verdicts(0) == earlier


def test_what_this_process_appends_is_known_without_reading_again(
    tmp_path: Path, evidence: list[Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (synthetic.scored(evidence[n], f"label {n}", 0.7) for n in (0, 1))
    write(tmp_path, explained(0, "label 0"), first)
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"latent": 1, "lab')  # a process was killed here
    results = Results(tmp_path)
    before = len(results.score_lines), len(results.explanations)
    repair_jsonl(tmp_path / "scores.jsonl")  # as a stage does, that holds the lock
    for record in (second, explained(1, "label 1")):
        write(tmp_path, record)
        results.add(record)
    assert before == (1, 1)
    assert results.score(1) == dataclasses.replace(second, verdicts=())
    assert results.score_with_verdicts(1) == second
    afresh = Results(tmp_path)
    assert afresh.explanations == results.explanations
    assert [line.score for line in afresh.score_lines] == [s.score for s in results.score_lines]
    assert [line.images for line in afresh.score_lines] == [s.images for s in results.score_lines]


def test_what_was_not_read_cannot_be_added_to(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="was not read"):
        Results(tmp_path).add(explained(0, "cat"))


def test_what_another_process_added_is_found_out(tmp_path: Path) -> None:
    write(tmp_path, explained(0, "cat"))
    results = Results(tmp_path)
    assert results.label(0) == "cat"
    assert not results.forget_outdated()
    write(tmp_path, explained(0, "dog"))
    assert results.label(0) == "cat"
    assert results.forget_outdated()
    assert results.label(0) == "dog"


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, explained(0, "cat"), explained(1, "dog"))
    n_opened = 0
    opening = Path.open

    def counting(path: Path, *how: str, **more: str) -> object:
        nonlocal n_opened
        n_opened += path.name == "explanations.jsonl"
        return opening(path, *how, **more)

    monkeypatch.setattr(Path, "open", counting)
    results = Results(tmp_path)
    for _ in range(3):
        assert results.label(1) == "dog"
        assert len(results.newest_explanations()) == len(results.explanations) == 2
    assert n_opened == 1
