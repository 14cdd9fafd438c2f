"""Which files go to the hub: clean, whole, and only those on the list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae.core.errors import USAGE, UserError
from sae.interchange.hub.parcel import MOST_GALLERY_FILES, is_publishable, pack
from tests.support.commands import sae
from tests.support.sae.hub_parcels import CANARY, FIGURES, GALLERY, REPO, a_run, saved
from tests.support.servers.fake_hub import TOKEN, FakeHub


@pytest.mark.parametrize("canary", [CANARY, "/scratch/canary/x", r"C:\\Users\\canary\\x"])
def test_no_text_file_that_goes_up_names_a_place(hub: FakeHub, tmp_path: Path, canary: str) -> None:
    model = saved(tmp_path / "sae", clip=f"local-dir:{CANARY}", layer="3", source=CANARY)
    (model / "eval.json").write_text(json.dumps({**FIGURES, f"{CANARY}/fvu": 0.1, "x": CANARY}))
    run = a_run(tmp_path / "run", model, canary)
    assert sae("push", model, REPO, "--gallery", run) == 0
    files = hub.files(REPO)
    assert {"config.json", "eval.json", "README.md", "labels.csv"} < set(files)
    assert [name for name, data in files.items() if b"canary" in data] == []
    json.loads(files["config.json"])
    assert b"and/or a wheel" in files["labels.csv"]
    assert b"black/white/red" in files["labels.csv"]
    # The page's own files are code: they must come through unchanged.
    for name in ("index.html", "app.css", "app.js", "list.js"):
        assert files[f"gallery/{name}"] == (GALLERY / name).read_bytes()


def test_only_files_on_the_list_go_up(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    (model / "train.json").write_text("{}")
    (model / "notes.txt").write_text("mine")
    assert sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model)) == 0
    assert set(hub.files(REPO)) == {
        ".gitattributes",
        *("config.json", "sae.safetensors", "eval.json", "README.md", "labels.csv"),
        *(f"gallery/{name}" for name in ("index.html", "app.css", "app.js", "list.js")),
        *("gallery/data/index.js", "gallery/thumbs/ab/ab12.webp"),
    }


@pytest.mark.parametrize(
    "name",
    ["gallery/../x.js", "gallery/.git/x.js", "x/config.json", "gallery/x.exe", "/config.json"],
)
def test_other_names_are_not_on_the_list(name: str) -> None:
    assert not is_publishable(name)


def test_a_key_in_a_file_stops_the_push(
    hub: FakeHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (TOKEN, "sk-or-v1-" + "0123456789abcdef" * 2):
        run = a_run(tmp_path / key[-4:], model, key)
        assert sae("push", model, REPO, "--gallery", run) == USAGE
        error = capsys.readouterr().err
        assert "labels.csv, line 2" in error
        assert key not in error
    assert hub.asked == []


def test_labels_of_another_sae_are_refused(tmp_path: Path, model: Path) -> None:
    run = a_run(tmp_path / "run", saved(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="run of another SAE"):
        pack(model, run)


def test_a_gallery_that_is_too_large_stays_here_and_is_said(tmp_path: Path, model: Path) -> None:
    run = a_run(tmp_path / "run", model)
    for number in range(MOST_GALLERY_FILES):
        (run / "gallery" / "thumbs" / f"{number}.webp").touch()
    parcel = pack(model, run)
    assert [i.name for i in parcel.items] == [
        *("config.json", "sae.safetensors", "eval.json", "labels.csv")
    ]
    assert "the gallery stays here" in " ".join(parcel.notes)


def test_what_is_no_sae_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an SAE; `sae train"):
        pack(tmp_path)
