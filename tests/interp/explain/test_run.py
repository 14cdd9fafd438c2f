"""A run of explanations against a server, stopped and continued."""

import json
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from interp.explain.explainer import ExplainConfig, VlmExplainer
from interp.records.codec import from_json
from interp.records.types import UNREADABLE, Explanation
from sae.core.errors import UserError
from sae.data.images import BadImage
from tests.support.interp.asking import explain_run
from tests.support.interp.explaining import ColourSource, colour_of, run, start
from tests.support.interp.scripted_model import Scripted
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import COST, Fault


def rows(folder: Path) -> list[Explanation]:
    lines = (folder / "explanations.jsonl").read_text().splitlines()
    return [from_json(Explanation, json.loads(line)) for line in lines]


@pytest.fixture
def server():
    with Loopback() as running:
        yield running


def test_every_latent_gets_the_colour_that_the_server_sees(server, tmp_path):
    summary = run(tmp_path, server.base_url, 8)
    assert [row.label for row in rows(tmp_path)] == [f"a {colour_of(n)} area" for n in range(8)]
    assert [row.latent for row in rows(tmp_path)] == list(range(8))
    assert (summary.n_labelled, summary.n_failed) == (8, 0)
    assert summary.usd == pytest.approx(8 * COST)
    assert server.most_at_once <= 4


def test_a_finished_run_asks_nothing_again(server, tmp_path):
    run(tmp_path, server.base_url, 4)
    before = (tmp_path / "explanations.jsonl").read_bytes()
    assert run(tmp_path, server.base_url, 4).n_skipped == 4
    assert (tmp_path / "explanations.jsonl").read_bytes() == before
    assert len(server.chats) == 4


def test_a_lost_file_is_written_again_from_the_ledger_without_asking(server, tmp_path):
    run(tmp_path, server.base_url, 4)
    before = (tmp_path / "explanations.jsonl").read_bytes()
    (tmp_path / "explanations.jsonl").unlink()
    run(tmp_path, server.base_url, 4)
    assert (tmp_path / "explanations.jsonl").read_bytes() == before
    assert len(server.chats) == 4


def test_lasting_failures_are_skipped_and_transient_ones_tried_again(server, tmp_path):
    server.queue(None, "403", *["500"] * 10)
    first = run(tmp_path, server.base_url, 3, concurrency=1)
    assert first.failures == {"moderated": 1, "server": 1}
    second = run(tmp_path, server.base_url, 3, concurrency=1)
    assert (second.n_skipped, second.n_labelled) == (2, 1)
    assert [(row.latent, row.failure) for row in rows(tmp_path)] == [
        (0, None),
        (1, "moderated"),
        (2, "server"),
        (2, None),
    ]


def test_another_model_or_prompt_explains_all_again(tmp_path):
    path, source = tmp_path / "explanations.jsonl", ColourSource()
    explain_run(path, source, VlmExplainer(Scripted()), [0, 1])
    assert explain_run(path, source, VlmExplainer(Scripted(name="other")), [0, 1]).n_skipped == 0
    config = ExplainConfig(max_tokens=800)
    assert explain_run(path, source, VlmExplainer(Scripted(), config), [0, 1]).n_skipped == 0
    assert explain_run(path, source, VlmExplainer(Scripted()), [0, 1, 1]).n_skipped == 2


def test_what_failed_for_its_images_is_done_once_they_are_back_and_few_ones_when_retried(tmp_path):
    path = tmp_path / "explanations.jsonl"

    class Gone(ColourSource):
        def image(self, example):
            raise BadImage("the file is gone")

    first = explain_run(path, Gone(), VlmExplainer(Scripted()), [0, 1])
    assert (first.failures, first.n_unusable, first.n_asked) == ({UNREADABLE: 2}, 2, 2)
    again = explain_run(path, ColourSource(), VlmExplainer(Scripted()), [0, 1])
    assert (again.n_labelled, again.n_skipped, again.n_unusable) == (2, 0, 0)
    explain_run(path, ColourSource(n_top=1), VlmExplainer(Scripted()), [2])  # so said b6fd069 too
    assert explain_run(path, ColourSource(), VlmExplainer(Scripted()), [2]).n_skipped == 1
    retried = explain_run(path, ColourSource(), VlmExplainer(Scripted()), [2], retry_failed=True)
    assert retried.n_labelled == 1


@pytest.mark.parametrize(("fault", "code"), [("401", 2), ("402", 3)])
def test_a_fatal_error_stops_sending_and_keeps_what_was_answered(server, tmp_path, fault, code):
    server.queue(*[None] * 3, *[fault] * 50)
    with pytest.raises(UserError) as caught:
        run(tmp_path, server.base_url, 30, concurrency=2)
    assert caught.value.exit_code == code
    assert len(server.chats) <= 3 + 2
    assert [row.latent for row in rows(tmp_path)] == list(range(len(rows(tmp_path))))
    server.faults.clear()
    run(tmp_path, server.base_url, 6)
    assert set(server.answered.values()) == {1}


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("prose", "not_json"),
        ("wrong_letters", "wrong_keys"),
        ("truncated", "truncated"),
        ("refusal", "refused"),
        ("content_filter", "refused"),
        ("403", "moderated"),
        ("400", "bad_request"),
        ("choices_null", "empty"),
        ("html", "html"),
    ],
)
def test_a_lasting_fault_is_a_state_of_the_explanation(server, tmp_path, fault, failure):
    server.always = Fault(fault)
    run(tmp_path, server.base_url, 1)
    (row,) = rows(tmp_path)
    assert (row.label, row.failure) == (None, failure)
    # A body without a choice can still say what it cost; nothing of it is worth keeping.
    n_billed = len(server.chats) if fault == "choices_null" else len(row.calls)
    assert row.usd == pytest.approx(COST * n_billed)


def wait_for(condition) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("nothing came")


def wait_until_quiet(server: Loopback) -> int:
    """How many questions came, when what a killed process had sent has come too."""
    before = -1
    while before != (before := len(server.chats)):
        time.sleep(0.5)
    return before


def n_stored(folder: Path) -> int:
    ledger = sqlite3.connect(f"file:{folder}/calls.sqlite?mode=ro", uri=True)
    (count,) = ledger.execute("SELECT COUNT(*) FROM calls").fetchone()
    ledger.close()
    return int(count)


def test_kill_9_in_the_middle_loses_no_answer_and_ends_in_the_same_bytes(server, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, server.base_url, 16)
    server.requests.clear()
    server.latency = 0.05
    child = start(broken, server.base_url, 16, subprocess.PIPE)
    with child:
        wait_for(lambda: len(server.chats) > 6)
        child.send_signal(signal.SIGKILL)
    stored, asked = n_stored(broken), wait_until_quiet(server)
    assert 0 < stored < 16
    assert asked - stored <= 4  # lost at most what was in flight
    run(broken, server.base_url, 16)
    assert len(server.chats) - asked == 16 - stored
    assert (broken / "explanations.jsonl").read_bytes() == (
        whole / "explanations.jsonl"
    ).read_bytes()


def test_sigint_keeps_what_is_in_flight_and_the_same_command_goes_on(server, tmp_path):
    server.latency = 0.2
    child = start(tmp_path, server.base_url, 12, subprocess.PIPE)
    with child:
        wait_for(lambda: len(server.chats) >= 2)
        child.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in child.stderr.read()
    in_flight = wait_until_quiet(server)
    assert in_flight < 12
    stored = n_stored(tmp_path)
    assert stored > 0  # none was answered yet when the signal was sent
    server.latency = 0
    run(tmp_path, server.base_url, 12)
    assert len(server.chats) == in_flight + 12 - stored
    assert [row.latent for row in rows(tmp_path)] == list(range(12))


def test_the_file_is_at_any_time_a_prefix_of_the_final_one(server, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole, server.base_url, 12)
    server.queue(*[None] * 8, "401")
    with pytest.raises(UserError):
        run(stopped, server.base_url, 12)
    part = (stopped / "explanations.jsonl").read_bytes()
    assert part
    assert (whole / "explanations.jsonl").read_bytes().startswith(part)
