"""`interp export --zip`: the gallery in one file, which opens wherever it is unpacked."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from interp.records.codec import to_json
from interp.report.gallery import build_gallery
from interp.run.run import Run
from sae.core.files import append_jsonl
from tests.support.commands import interp
from tests.support.interp import synthetic_run as synthetic
from tests.support.interp.browsers import LOADED, Watched
from tests.support.interp.galleries import index_of
from tests.support.interp.whole_runs import whole_run

HOME = "/home/canary/pictures"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose gallery says where its images lie, and whose label names a folder."""
    run = whole_run(tmp_path_factory.mktemp("export"))
    said = synthetic.explanation(1, "rings", provenance=f"named from {HOME}/list.txt")
    append_jsonl(run / "explanations.jsonl", [to_json(said)])
    build_gallery(Run(run))
    assert (run / "gallery/local.js").exists()
    return run


def test_the_zip_opens_from_where_it_is_unpacked(browser: Any, built: Path, tmp_path: Path) -> None:
    file = tmp_path / "handed over.zip"
    assert interp("export", "--zip", file, "--run", built) == 0
    with zipfile.ZipFile(file) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        packed.extractall(tmp_path)
    place = tmp_path / f"{built.name}-gallery"
    here = {p.relative_to(built / "gallery").as_posix() for p in (built / "gallery").rglob("*.*")}
    assert {name.removeprefix(f"{place.name}/") for name in names} == here - {
        *("local.js", "map.parquet")
    }
    (tmp_path / "run").mkdir()
    place.rename(tmp_path / "run/gallery")
    shown = Watched(browser, tmp_path / "run", "#/0")
    assert min(shown.page.evaluate(LOADED)) > 0
    shown.page.locator("main button.frame").first.click()  # looks for no original
    assert shown.page.locator("dialog.viewer").is_visible()
    shown.page.keyboard.press("Escape")
    shown.go("#/1")
    shown.page.click(".provenance summary")
    assert "named from list.txt" in shown.page.inner_text(".provenance")
    assert shown.faults == []


def test_no_place_of_this_machine_is_in_it_and_it_is_the_same_bytes_again(
    built: Path, tmp_path: Path
) -> None:
    files = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for file in files:
        assert interp("export", "--zip", file, "--run", built) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == files
    with zipfile.ZipFile(files[0]) as packed:
        texts = [packed.read(n) for n in packed.namelist() if not n.endswith(".webp")]
    for word in (b"canary", str(built.parent).encode(), b"images/photo"):
        assert [text for text in texts if word in text] == []
    assert index_of(built)["meta"]["has_originals"]  # that of the run still knows its images


def test_a_key_is_refused_and_nothing_is_left(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "hf_" + "canary00" * 4
    run = tmp_path / "run"
    shutil.copytree(built, run)
    text = (run / "gallery/data/c0000.js").read_text()
    (run / "gallery/data/c0000.js").write_text(text.replace("label 0", key))
    file = tmp_path / "x.zip"
    assert interp("export", "--zip", file, "--run", run) == 2
    error = capsys.readouterr().err
    assert "holds an access key" in error
    assert key not in error
    assert not file.exists()


def test_a_write_that_fails_leaves_the_earlier_file(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.zip"
    file.write_text("earlier")

    def full(*_: Any) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    assert interp("export", "--zip", file, "--run", built) != 0
    assert file.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [file]


def test_a_run_without_a_gallery_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = whole_run(tmp_path)
    assert interp("export", "--zip", tmp_path / "x.zip", "--run", run) == 2
    assert "has no gallery; `interp cards --run" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["name"] == run.name
