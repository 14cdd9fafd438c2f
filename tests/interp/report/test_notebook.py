"""A run in Python: tables with what is held against labels, and cards that a notebook shows."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path

import pytest

import interp
from interp.report.figures import fixed
from interp.run.verdicts import append_reviews
from sae.core.errors import UserError
from tests.support.interp.galleries import XSS, small_run
from tests.support.interp.reviewing import verdict_on
from tests.support.interp.whole_runs import CELLS, EFFECT, NULLS, whole_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("notebook"))


def test_tables_hold_what_the_files_say(run_dir: Path) -> None:
    run = interp.load(run_dir)
    assert run.nulls["auroc"].tolist() == [null.auroc for null in NULLS]
    assert run.nulls[["latent", "kind", "label"]].values.tolist() == [
        [0, null.kind, null.label] for null in NULLS
    ]
    supports = run.supports.set_index("latent")
    assert supports.loc[0, "gain"] == NULLS[1].gain
    assert set(supports["state"]) <= {"supported", "undecided", "unsupported"}
    [verdict] = run.verdicts.to_dict("records")
    assert (verdict["latent"], verdict["verdict"], verdict["note"]) == (0, "partly", "rather a rim")
    [effect] = run.effects.to_dict("records")
    assert (effect["ablate"], effect["boost"]) == (EFFECT.ablate, EFFECT.boost)
    assert effect["shown_by"] == "ablation"
    [crossed] = run.transfers.to_dict("records")
    assert [crossed[f"auroc_{cell}"] for cell in ("aa", "ab", "ba", "bb")] == [
        cell.auroc for cell in CELLS
    ]
    assert (crossed["kind"], crossed["label_b"]) == ("shape", "rim")


def test_a_run_without_them_has_empty_tables_with_the_same_columns(
    run_dir: Path, tmp_path: Path
) -> None:
    bare, whole = interp.load(small_run(tmp_path)), interp.load(run_dir)
    for name in ("nulls", "supports", "verdicts", "effects", "transfers"):
        table = getattr(bare, name)
        assert len(table) == 0, name
        assert list(table.columns) == list(getattr(whole, name).columns), name


def test_a_card_says_in_words_what_is_known_around_its_sheet(run_dir: Path) -> None:
    card = interp.load(run_dir).card(0)
    text = card._repr_html_()
    for words in ("label 0", "a person says: partly", "rather a rim", "shape: holds in", "gain"):
        assert words in text
    for value in (*(null.auroc for null in NULLS), 0.47):
        assert fixed(value) in text
    assert "taken out of 20 of its images" in text
    found = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert found is not None
    assert base64.b64decode(found[1]) == card._repr_png_()
    plain = interp.load(run_dir).card(1)._repr_html_()
    for words in ("across domains", "edited", "a person says"):
        assert words not in plain


def test_hostile_words_on_a_card_are_text(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    append_reviews(run, [verdict_on(run, 0, "wrong", better=XSS[3], note=XSS[0])])
    text = interp.load(run).card(0)._repr_html_()
    assert "<script" not in text
    assert text.count("<img ") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_no_such_latent(run_dir: Path) -> None:
    with pytest.raises(UserError, match="latent 9"):
        interp.load(run_dir).card(9)
    assert not math.isnan(interp.load(run_dir).supports["gain"].iloc[0])
