"""Images that changed, went or broke after they were embedded are not taken for the old ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from interp.records.codec import from_json
from interp.records.types import Explanation
from interp.run.run import Run
from sae.core.errors import FAILURES, OK
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp

PAID = ("--model", "openai/gpt-4.1-mini", "--price", "1,2")
LOCAL = ("--model", "local")


@pytest.fixture(scope="module")
def labelled(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """World, store and a run with labels of one's own; read-only."""
    copy = Path(shutil.copytree(walk.run.parent, tmp_path_factory.mktemp("own") / "walk"))
    assert interp("explain", "--run", copy / "run", *LOCAL) == OK
    return copy


@pytest.fixture
def own(labelled: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(labelled, tmp_path / "walk"))
    shutil.rmtree(tmp_path / "walk")


def images_in(own: Path) -> list[Path]:
    return sorted((own / "world").rglob("*.png"))


def mirror(path: Path) -> None:
    """Another picture under the old name."""
    with Image.open(path) as image:
        turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned.putpixel((0, 0), (1, 2, 3))
    turned.save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


COMMANDS: tuple[tuple[object, ...], ...] = (
    ("explain", *LOCAL),
    ("cards",),
    ("score", *LOCAL),
    ("explain", *PAID, "--dry-run", 1),
    ("score", *PAID, "--estimate"),
    ("show", 3),
)
FULL = 2
"""So many commands meet every damage in the fast tier: they look at images in ways of their own."""


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        pytest.param(
            command,
            damage,
            id=f"{' '.join(map(str, command[:2]))}-{name}",
            marks=() if n < FULL or damage is mirror else pytest.mark.slow,
        )
        for n, command in enumerate(COMMANDS)
        for damage, name in ((mirror, "changed"), (Path.unlink, "gone"), (cut, "cut"))
    ],
)
def test_where_all_have_changed_a_command_ends_with_4_and_names_them(
    own: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[object, ...],
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.chdir(own)
    if command[0] == "explain":
        (own / "run" / "explanations.jsonl").unlink()
    for path in images_in(own):
        damage(path)
    assert interp(*command, "--run", own / "run") == FAILURES
    said = capsys.readouterr().err
    assert "(100.0%) are not as they were embedded" in said
    assert ".png (" in said
    assert not (own / "run" / "scores.jsonl").exists()
    assert command[0] != "explain" or not (own / "run" / "explanations.jsonl").exists()
    assert not list((own / "run").glob("gallery/thumbs/*/*"))


def test_one_of_three_hundred_is_named_and_left_out(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = own / "run" / "explanations.jsonl"
    before = [from_json(Explanation, row) for row in read_jsonl(journal)]
    journal.unlink()
    changed = before[0].codes["A"]
    evidence = Run(own / "run").evidence.of(before[0].latent)
    place = next(e for e in evidence.examples if e.image_id == changed)
    mirror(own / "world" / place.domain / place.path)
    assert interp("explain", "--run", own / "run", *LOCAL) == OK
    said = capsys.readouterr().err
    assert f"{place.domain}/{place.path} (it has changed since it was embedded)" in said
    after = [from_json(Explanation, row) for row in read_jsonl(journal)]
    assert all(changed not in one.codes.values() for one in after)
    assert any(changed in one.codes.values() for one in before)


def test_once_the_images_are_back_all_is_explained_as_if_nothing_had_been(own: Path) -> None:
    journal = own / "run" / "explanations.jsonl"
    whole = journal.read_bytes()
    journal.unlink()
    (own / "world").rename(own / "away")
    shutil.copytree(own / "away", own / "world")
    for path in images_in(own)[::2]:
        path.unlink()
    assert interp("explain", "--run", own / "run", *LOCAL) == FAILURES
    shutil.rmtree(own / "world")
    (own / "away").rename(own / "world")
    assert interp("explain", "--run", own / "run", *LOCAL) == OK
    assert journal.read_bytes() == whole
