"""Evidence that is collected anew with other groups: labels from images that may now test them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from interp.evidence.tables import write_table
from interp.pipeline.explain import ExplainStage
from interp.pipeline.score import newest_explanations
from interp.pipeline.settings import ModelSettings
from interp.records.codec import to_json
from interp.records.split import name_group, split_of
from interp.run.run import Run
from sae.core.errors import Notice, UserError
from sae.core.files import append_jsonl
from tests.support.interp.synthetic_run import explanation, make_evidence, make_images, write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two latents, each named from an image of the explain side."""
    root = tmp_path / "images"
    images = make_images(root, per_class=4)
    shown = [image_id for image_id, _ in images if split_of(image_id) == "explain"]
    run = Run(write_run(tmp_path / "run", root, images, make_evidence(root, images, 2)))
    by = ExplainStage(run, ModelSettings(model="m/x"), [0, 1]).by
    changes = {"model": by.model, "prompt": by.prompt, "server": by.server}
    named = [explanation(n, "wheel", codes={"A": shown[n]}, **changes) for n in (0, 1)]
    append_jsonl(run.explanations, map(to_json, named))
    return Run(run.path)


def test_a_label_whose_image_now_tests_is_neither_scored_nor_taken_for_done(run: Run) -> None:
    assert list(newest_explanations(run)) == [0, 1]
    assert ExplainStage(run, ModelSettings(model="m/x"), [0, 1]).pending == []
    shown = run.results.newest_explanations()[0].codes["A"]
    twins = (sorted((shown, f"{k:064x}")) for k in range(100))
    twin = next(pair for pair in twins if split_of(name_group(pair)) == "score")
    rows = [
        {"image_id": i, "domain": "photo", "path": "x", "group": name_group(twin)} for i in twin
    ]
    write_table(run.path / "collect" / "groups.parquet", pa.Table.from_pylist(rows))
    again = Run(run.path)
    with pytest.warns(Notice, match=r"1 of 2 labels were made from images that may test .*explain"):
        assert list(newest_explanations(again)) == [1]
    assert ExplainStage(again, ModelSettings(model="m/x"), [0, 1]).pending == [0]


def test_where_no_label_is_left_the_command_that_makes_them_is_named(run: Run) -> None:
    ids = [e.codes["A"] for e in run.results.newest_explanations().values()]
    extra = next(k for k in range(100) if split_of(name_group([*ids, f"{k:064x}"])) == "score")
    group = name_group([*ids, f"{extra:064x}"])
    rows = [{"image_id": i, "domain": "photo", "path": "x", "group": group} for i in ids]
    write_table(run.path / "collect" / "groups.parquet", pa.Table.from_pylist(rows))
    with pytest.warns(Notice), pytest.raises(UserError, match="run `interp explain"):
        newest_explanations(Run(run.path))
