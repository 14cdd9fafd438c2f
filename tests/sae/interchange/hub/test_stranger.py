"""What a stranger's repository brings is data: nothing of it runs in a browser or a spreadsheet."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest

from sae.core.errors import USAGE, UserError
from sae.interchange.hub.push_pull import pull
from tests.support.commands import sae
from tests.support.paths import ROOT
from tests.support.sae.hub_parcels import REPO, a_run
from tests.support.servers.fake_hub import FakeHub

PAGE = ROOT / "interp" / "report" / "gallery" / "page"
RUN = b"<script>fetch('//evil')</script>"


def _hostile(hub: FakeHub, model: Path, tmp_path: Path, more: dict[str, bytes]) -> None:
    """A pushed SAE whose repository a stranger has changed since."""
    sae("push", model, REPO, "--gallery", a_run(tmp_path / "run", model))
    hub.add(REPO, {**hub.files(REPO), **more})


def test_pages_and_scripts_of_theirs_are_not_taken_and_ours_shows_the_data(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    evil = {"gallery/index.html": RUN, "gallery/app.js": RUN, "gallery/x/evil.js": RUN}
    evil |= {"gallery/app.css": RUN, "gallery/evil.html": RUN, "gallery/data/evil.js": RUN}
    cards = b'G.shard(0,[{"label":"</script><script>alert(1)</script>"}]);\n'
    words = b'G.words({"words":["<b>"],"of":[[0]]});\n'
    data = {"gallery/data/c0000.js": cards, "gallery/data/words.js": words}
    _hostile(hub, model, tmp_path, evil | data)
    pull(REPO, tmp_path / "pulled")
    gallery = tmp_path / "pulled" / "gallery"
    for path in gallery.rglob("*.*"):
        assert b"evil" not in path.read_bytes()
        assert "evil" not in path.name
    for path in PAGE.glob("*.js"):
        assert (gallery / path.name).read_bytes() == path.read_bytes()
    assert (gallery / "index.html").read_bytes() == (PAGE / "index.html").read_bytes()
    kept = (gallery / "data" / "words.js").read_text()
    assert kept == 'G.words({"words":["\\u003cb\\u003e"],"of":[[0]]});\n'
    text = (gallery / "data" / "c0000.js").read_text()
    assert "<" not in text
    said = re.fullmatch(r"G\.shard\(0,(.*)\);\n", text)
    assert said is not None
    assert json.loads(said[1]) == [{"label": "</script><script>alert(1)</script>"}]
    assert not any("evil" in line or "app.js" in line for line in hub.asked if "resolve" in line)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gallery/data/index.js", RUN, "index.js is no gallery's data"),
        ("gallery/data/words.js", b"G.words(alert(1));", "words.js is no gallery's data"),
        ("gallery/data/index.js", b"alert(1);G.index({});", "index.js is no gallery's data"),
        ("gallery/data/index.js", b"G.index({});alert(1)", "is no"),
        ("gallery/data/index.js", b"G.index({a:alert(1)});", "is not valid JSON"),
        ("gallery/data/c0001.js", b'G.shard(1,{"a":NaN});', "is not valid JSON"),
        ("gallery/thumbs/ab/ab12.webp", RUN, "ab12.webp is no webp picture"),
        ("eval.json", b'{"format": 1, "fvu": NaN}', "eval.json is not valid JSON"),
        ("labels.csv", b"latent_id\n\xff\xfe\n", "labels.csv is no CSV file in UTF-8"),
        ("config.json", b"../../../etc/passwd", "config.json is not valid JSON"),
    ],
)
def test_what_is_not_of_the_kind_that_its_name_tells_is_refused(
    hub: FakeHub, model: Path, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    _hostile(hub, model, tmp_path, {name: data})
    with pytest.raises(UserError, match=message) as refusal:
        pull(REPO, tmp_path / "pulled")
    assert refusal.value.exit_code == USAGE
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("pulled*"))


def test_cells_that_a_spreadsheet_would_run_are_text(
    hub: FakeHub, model: Path, tmp_path: Path
) -> None:
    rows = [["latent_id", "interpretation", "x"], ["0", "=HYPERLINK(1)", "-0.5"], ["1", "'+1", "a"]]
    text = "".join(",".join(row) + "\n" for row in rows)
    _hostile(hub, model, tmp_path, {"labels.csv": text.encode()})
    pull(REPO, tmp_path / "pulled")
    with (tmp_path / "pulled" / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[1:] == [["0", "'=HYPERLINK(1)", "-0.5"], ["1", "'+1", "a"]]


def test_a_link_out_of_the_cache_is_refused(
    hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hostile(hub, model, tmp_path, {})
    pull(REPO, tmp_path / "first")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    [link] = tmp_path.glob("hub-cache/**/snapshots/*/labels.csv")
    link.unlink()
    os.symlink(secret, link)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"labels.csv of ann/sketch-sae is a link that leads out"):
        pull(REPO, tmp_path / "second")
