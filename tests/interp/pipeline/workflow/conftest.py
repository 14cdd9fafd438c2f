"""Words of `interp run` on the walk's drawings, small enough for seconds, and a finished run."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sae.core.errors import OK
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback

SETTINGS = """
[run]
clip = "tiny"
n_latents = 8
k = 1
epochs = 20
lr = 4e-3
causal = false
transfer = "none"
[run.embed]
workers = 0
[run.eval]
zeroshot = false
[run.collect]
dense_above = 0.9
"""


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture(scope="session")
def words(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """All but --model and --out."""
    file = tmp_path_factory.mktemp("settings") / "run.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    domains = [f"{name}={walk.world / name}" for name in ("sketch", "photo")]
    return ("--domain", *domains, "--config", file)


class Finished(NamedTuple):
    """A run by the local model. Read-only: copy what you change."""

    out: Path
    said: str
    """What was printed."""
    figures: dict[str, Any]
    """Of --json."""


@pytest.fixture(scope="session")
def finished(words: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """From nothing, in one command."""
    folder, said = tmp_path_factory.mktemp("finished"), io.StringIO()
    out, figures = folder / "run", folder / "figures.json"
    with contextlib.redirect_stdout(said):
        assert interp("run", *words, "--model", "local", "--out", out, "--json", figures) == OK
    return Finished(out, said.getvalue(), json.loads(figures.read_text()))


@pytest.fixture
def mine(finished: Finished) -> Iterator[Path]:
    """A copy of it, beside it: the store names its images from there."""
    copy = finished.out.with_name("mine")
    yield Path(shutil.copytree(finished.out, copy))
    shutil.rmtree(copy)
