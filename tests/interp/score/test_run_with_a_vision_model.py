"""A run of scoring against a server that really looks at the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from interp.llm.ledger.ledger import Ledger
from interp.llm.server.client import ChatModel, ClientConfig
from interp.pictures.painter import Layout
from interp.score.kinds.detect import VlmJudge
from interp.score.run import (
    ScoreSummary,
)
from sae.core.errors import UserError
from tests.support.interp.scoring import run, scores_in
from tests.support.servers.loopback import Loopback


def vlm_run(
    folder: Path, server: Loopback, concurrency: int = 1, layout: Layout = "grid"
) -> ScoreSummary:
    config = ClientConfig(
        "fake/vision",
        server.base_url,
        concurrency=concurrency,
        timeout=30,
        deadline=120,
        first_wait=0.02,
    )
    with Ledger(folder / "calls.sqlite") as ledger:
        return run(
            folder / "scores.jsonl",
            VlmJudge(ChatModel(config, ledger, "sk-test"), layout),
            concurrency=concurrency,
        )


class Whole(NamedTuple):
    """A run that nothing stopped, and the server that it asked."""

    path: Path
    summary: ScoreSummary
    server: Loopback


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    with Loopback() as server:
        yield Whole(folder / "scores.jsonl", vlm_run(folder, server, concurrency=2), server)


def test_a_vision_model_that_looks_at_the_pixels_scores_the_right_label_high(whole: Whole) -> None:
    red, green, blue = scores_in(whole.path)
    assert red.auroc > 0.85
    assert green.auroc == 0.5
    assert blue.auroc < 0.4
    assert whole.summary.usd == pytest.approx(0.012)
    assert len(red.calls) == 4
    assert len(whole.server.chats) == 12
    assert whole.server.most_at_once <= 2


def test_separate_pictures_give_the_server_the_same_to_see(tmp_path: Path, whole: Whole) -> None:
    with Loopback() as server:
        vlm_run(tmp_path, server, concurrency=4, layout="separate")
        assert all(len(chat.pictures) == 10 for chat in server.chats)
    red, green, blue = scores_in(tmp_path / "scores.jsonl")
    assert red.auroc > 0.85
    assert green.auroc == 0.5
    assert blue.auroc < 0.4


def test_a_stopped_run_goes_on_without_paying_twice_and_ends_in_the_same_bytes(
    tmp_path: Path, whole: Whole
) -> None:
    before = whole.server.answered
    whole.server.queue(*[None] * 5, "402")
    with pytest.raises(UserError):
        vlm_run(tmp_path, whole.server)
    written = (tmp_path / "scores.jsonl").read_bytes()
    vlm_run(tmp_path, whole.server)
    assert written
    assert whole.path.read_bytes().startswith(written)
    assert (tmp_path / "scores.jsonl").read_bytes() == whole.path.read_bytes()
    asked_here = whole.server.answered - before
    assert sorted(asked_here.values()) == [1] * 12
