"""The classes of a run in its gallery."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.report.gallery import build_gallery
from interp.run.run import Run
from sae.core.errors import UserError
from sae.core.files import write_json
from sae.data.classes.config import ClassInfo
from tests.support.interp.browsers import Watched
from tests.support.interp.galleries import XSS, small_run


def write_classes(folder: Path, names: list[str], identity: str = "sae") -> None:
    """Of the first class latents 1 and 0, of the others latent 0; of the last none."""
    info = ClassInfo(
        version="0",
        store_identity="store",
        sae_identity=identity,
        n_latents=2,
        n_left_out=0,
        tokens_per_image=1,
        names=names,
        n_images=[1] * len(names),
    )
    lines = [(names[0], 2, 0), (names[0], 1, 1), *((name, 1, 0) for name in names[1:-1])]
    table = pd.DataFrame(lines, columns=["class", "rank", "latent"])
    table = table.assign(count=1, mean=0.5, lift=1.5, label="")
    folder.mkdir(exist_ok=True)
    table.to_parquet(folder / "classes.parquet", index=False)
    write_json(folder / "classes.json", info)


def index_of(run: Path) -> dict[str, Any]:
    text = (run / "gallery/data/index.js").read_text("ascii")
    columns: dict[str, Any] = json.loads(text[8:-3])
    return columns


def test_the_index_has_each_classs_latents_in_their_order(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    assert "classes" not in index_of(run)
    write_classes(run / "classes", ["wheel", "cat", "none"])
    build_gallery(Run(run))
    assert index_of(run)["classes"] == {
        "names": ["wheel", "cat", "none"],
        "latents": [[1, 0], [0], []],
    }


def test_classes_of_another_sae_or_damaged_ones_are_told_and_the_gallery_stays(
    tmp_path: Path,
) -> None:
    run = small_run(tmp_path)
    build_gallery(Run(run))
    before = index_of(run)
    write_classes(run / "classes", ["wheel", "cat"], identity="other")
    with pytest.raises(UserError, match=r"of another SAE than the run; run `sae classes .*sae"):
        build_gallery(Run(run))
    write_classes(run / "classes", ["wheel", "cat"])
    (run / "classes/classes.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"classes\.parquet is damaged"):
        build_gallery(Run(run))
    assert index_of(run) == before
    shutil.rmtree(run / "classes")
    (run / "classes").mkdir()
    with pytest.raises(UserError, match=r"classes\.json is missing"):
        build_gallery(Run(run))


def test_the_page_filters_by_class_in_the_classs_order(browser: Any, tmp_path: Path) -> None:
    run = small_run(tmp_path)
    write_classes(run / "classes", ["wheel", *XSS, "none"])
    build_gallery(Run(run))
    shown = Watched(browser, run)
    page = shown.page

    def rows() -> list[str]:
        return [row.split("#")[1].split()[0] for row in page.locator(".row").all_inner_texts()]

    page.select_option("#class", "wheel")
    assert rows() == ["1", "0"]
    assert page.input_value("#sort") == "rank"
    page.select_option("#sort", "id")
    assert rows() == ["0", "1"]
    page.select_option("#class", XSS[0])
    assert rows() == ["0"]
    assert "class=" in page.url
    page.reload()
    page.wait_for_selector(".row")
    assert (page.input_value("#class"), rows()) == (XSS[0], ["0"])
    page.select_option("#class", "none")
    assert rows() == []
    page.select_option("#class", "")
    assert sorted(rows()) == ["0", "1"]
    assert shown.faults == []
    (run / "classes/classes.json").unlink()
    shutil.rmtree(run / "classes")
    build_gallery(Run(run))
    plain = Watched(browser, run, "#/?class=wheel&sort=rank")
    assert plain.page.locator("#of-class").is_hidden()
    assert plain.page.locator(".row").count() == 2
    assert plain.faults == []
