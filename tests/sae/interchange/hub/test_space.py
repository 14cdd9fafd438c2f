"""`sae push RUN --space`: the gallery as a static page, without what is of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sae.core.errors import USAGE, UserError
from sae.interchange.hub.gallery import pack_gallery
from sae.interchange.hub.parcel import MOST_GALLERY_FILES
from tests.support.commands import sae
from tests.support.sae.hub_parcels import CANARY, a_run
from tests.support.servers.fake_hub import TOKEN, FakeHub, Repo

SPACE = "ann/latents"
THERE = f"spaces/{SPACE}"
INFO = {"clip": f"local-dir:{CANARY}", "layer": "9", "tokens": "cls", "n_images": 8000}


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Path:
    """A run with a gallery that says where the images lie here."""
    made = a_run(tmp_path / "run", model, CANARY)
    (made / "run.json").write_text(json.dumps(INFO | {"n_latents": 12}))
    (made / "gallery/local.js").write_text(f'G.local({{"photo":"{CANARY}"}});\n')
    (made / "gallery/map.parquet").write_bytes(b"PAR1")
    return made


def test_the_gallery_lies_at_the_top_of_a_static_space(hub: FakeHub, run: Path) -> None:
    assert sae("push", run, "--space", SPACE, "--license", "mit", "--dataset", "ann/pics") == 0
    files = hub.files(THERE)
    assert set(files) == {
        *(".gitattributes", "README.md", "index.html", "app.css", "app.js", "list.js"),
        *("data/index.js", "thumbs/ab/ab12.webp"),
    }
    assert hub.repos[THERE].sdk == "static"
    front = files["README.md"].decode().split("---\n")[1]
    said = yaml.safe_load(front)
    assert (said["sdk"], said["app_file"]) == ("static", "index.html")
    assert (said["title"], said["license"], said["datasets"]) == ("latents", "mit", ["ann/pics"])
    assert (run / "gallery/index.html").read_bytes() == files["index.html"]
    assert len([line for line in hub.asked if "/commit/" in line]) == 1
    assert SPACE not in hub.repos  # no model of that name


def test_no_place_of_this_machine_goes_up(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("push", run, "--space", SPACE) == 0
    assert [name for name, data in hub.files(THERE).items() if b"canary" in data] == []
    assert "CLIP `local-dir:vit`" in hub.files(THERE)["README.md"].decode()
    assert "paths of this machine cut" in capsys.readouterr().out


def test_a_place_that_cannot_be_cut_is_refused(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sae.interchange.hub import scrub

    half = scrub.Scrubbed("", 1)
    monkeypatch.setattr("sae.interchange.hub.gallery.cut_places", lambda text: half)
    assert sae("push", run, "--space", SPACE) == USAGE
    assert "still names a folder of this machine" in capsys.readouterr().err
    assert hub.asked == []


def test_a_key_stops_the_push(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "gallery/data/index.js").open("a") as file:
        file.write(f"// {TOKEN}\n")
    assert sae("push", run, "--space", SPACE) == USAGE
    error = capsys.readouterr().err
    assert "gallery/data/index.js, line 2, holds an access key" in error
    assert TOKEN not in error
    assert hub.asked == []


def test_a_dry_run_shows_files_and_card_and_asks_nothing(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sae("push", run, "--space", SPACE, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "sdk: static" in out
    assert "nothing was sent" in out
    assert "canary" not in out
    assert hub.asked == []


def test_a_second_push_takes_away_what_is_no_longer_there(hub: FakeHub, run: Path) -> None:
    assert sae("push", run, "--space", SPACE) == 0
    hub.repos[THERE].commit("main", {**hub.files(THERE), "mine.txt": b"kept"})
    (run / "gallery/thumbs/ab/ab12.webp").rename(run / "gallery/thumbs/ab/ab34.webp")
    assert sae("push", run, "--space", SPACE) == 0
    files = hub.files(THERE)
    assert {"mine.txt", "thumbs/ab/ab34.webp"} < set(files)
    assert "thumbs/ab/ab12.webp" not in files


@pytest.mark.parametrize(
    ("sdk", "files", "said"),
    [
        ("gradio", {"app.py": b""}, "a Space with a program in it"),
        ("static", {"index.html": b"my page"}, "holds a page that is no gallery"),
    ],
)
def test_what_others_have_there_is_not_written_over(
    hub: FakeHub,
    run: Path,
    sdk: str,
    files: dict[str, bytes],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repos[THERE] = Repo(sdk=sdk)
    hub.add(THERE, files)
    assert sae("push", run, "--space", SPACE) == USAGE
    assert said in capsys.readouterr().err
    assert hub.files(THERE) == files


def test_private_and_branch_reach_the_space(hub: FakeHub, run: Path) -> None:
    assert sae("push", run, "--space", SPACE, "--private", "--revision", "v2") == 0
    assert hub.repos[THERE].private
    assert "index.html" in hub.files(THERE, "v2")
    assert "index.html" not in hub.files(THERE)


def test_arguments_that_do_not_go_together_are_one_line(
    hub: FakeHub, run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, said in (
        ((run, "ann/x", "--space", SPACE), "takes a run's folder alone"),
        ((run, "--gallery", run, "--space", SPACE), "takes a run's folder alone"),
        ((model,), "give REPO, owner/name on the hub"),
        ((run, "--space", "no-owner"), "is no id of a repository"),
        ((model, "--space", SPACE), "not a run"),
    ):
        assert sae("push", *command) == USAGE
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert hub.asked == []


def test_a_gallery_that_is_too_large_and_one_that_is_missing_are_refused(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(MOST_GALLERY_FILES):
        (run / "gallery/thumbs" / f"{number}.webp").touch()
    assert sae("push", run, "--space", SPACE) == USAGE
    assert "at most 10,000" in capsys.readouterr().err
    (run / "gallery/index.html").unlink()
    (run / "collect").mkdir()
    with pytest.raises(UserError, match="interp cards --run"):
        pack_gallery(run)
    assert hub.repos == {}
