"""`interp explain` and `interp score` with a model that has to be paid: limits, retries, caps."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from interp.llm.server.preflight import ASKED
from interp.records.codec import from_json
from interp.records.types import Explanation
from sae.core.errors import BUDGET, FAILURES, OK, USAGE
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import COST, Fault

KEY = "sk-or-canary-0123456789abcdef"


@pytest.fixture
def run(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one's own, nothing explained."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    for name in ("store", "world"):
        shutil.copytree(getattr(walk, name), tmp_path / name)
    return Path(shutil.copytree(walk.run, tmp_path / "run"))


def explain(run: Path, server: Loopback, *more: object) -> int:
    words = ("--model", "x/y", "--base-url", server.base_url, "--concurrency", 4, "--run", run)
    return interp("explain", *words, *more)


def newest(run: Path) -> dict[int, Explanation]:
    rows = read_jsonl(run / "explanations.jsonl")
    return {row["latent"]: from_json(Explanation, row) for row in rows}


def asked(run: Path) -> list[int]:
    """Latents that have images enough."""
    return [latent for latent, e in newest(run).items() if e.failure != "too_few_images"]


def test_colours_are_asked_first_and_a_complete_run_needs_no_server(server, run):
    assert explain(run, server) == OK
    first = server.chats[: len(ASKED)]
    assert all(len(chat.pictures) == 1 for chat in first)
    assert len(server.chats) == len(ASKED) + len(asked(run))
    url = server.base_url
    server.requests.clear()
    assert interp("explain", "--model", "x/y", "--base-url", url, "--run", run) == OK
    assert server.requests == []


def test_the_reason_of_a_failure_is_kept_counted_and_shown(server, run, capsys):
    said = f"Too many pixels for you, Bearer {KEY}"

    def refuse(request):
        many = len(request.pictures) > 1
        return (400, {"error": {"message": said}}) if many else None

    server.refuse = refuse
    assert explain(run, server, "--limit", 3) == FAILURES
    out = capsys.readouterr().out
    assert "3 failed: bad_request\n    3 x 400: Too many pixels for you, Bearer [key]" in out
    assert "--retry-failed asks again" in out
    (next_line,) = [line for line in out.splitlines() if line.startswith("next:")]
    assert "interp explain --model x/y" in next_line
    assert f"--base-url {server.base_url} --run {run} --retry-failed" in next_line
    words = {e.reason for e in newest(run).values() if e.failure == "bad_request"}
    assert words == {"400: Too many pixels for you, Bearer [key]"}
    assert "Too many pixels" in (run / "labels.csv").read_text(encoding="utf-8")
    assert interp("cards", "--run", run) == OK
    cards = (run / "gallery" / "data" / "c0000.js").read_text(encoding="utf-8")
    assert "Too many pixels" in cards
    assert KEY not in cards


def test_a_judges_missing_answers_say_why(server, run, capsys):
    assert explain(run, server, "--limit", 2) == OK
    assert f"interp score --model x/y --base-url {server.base_url}" in capsys.readouterr().out
    server.refuse = lambda request: (
        (400, {"error": {"message": "No such luck"}}) if len(request.texts) > 1 else None
    )
    server.always = Fault("prose")
    words = ("--model", "x/y", "--base-url", server.base_url, "--run", run)
    assert interp("score", *words) != OK
    rows = list(read_jsonl(run / "scores.jsonl"))
    assert rows
    assert all(row["reason"] for row in rows if row["n_missing"])
    assert " x " in capsys.readouterr().out


def test_a_refused_field_is_told_with_what_is_sent_instead(server, run, capsys):
    said = "Unsupported value: 'temperature' does not support 0.3 with this model."
    server.refuse = lambda request: (
        (400, {"error": {"message": said}}) if "temperature" in request.body else None
    )
    assert explain(run, server, "--limit", 2) == OK
    words = f"asked with the server's own temperature, since the server said: 400: {said}"
    assert words in capsys.readouterr().out
    assert sum("temperature" in chat.body for chat in server.chats) == 1


def test_the_same_name_at_another_url_is_another_model_and_pays_for_itself(server, run):
    assert explain(run, server, "--limit", 2) == OK
    with Loopback() as other:
        assert explain(run, other, "--limit", 2) == OK
        assert len(other.chats) == len(ASKED) + 2
        servers = [row["server"] for row in read_jsonl(run / "explanations.jsonl")]
        assert servers == [server.base_url] * 2 + [other.base_url] * 2
    n_asked = len(server.chats)
    assert explain(run, server, "--limit", 2, "--latents", "0-3") == OK
    assert len(server.chats) - n_asked <= len(ASKED) + 2


def test_too_many_failures_end_with_exit_code_4_and_retrying_asks_only_for_those(
    server, run, capsys
):
    server.queue(*[None] * (len(ASKED) + 5))
    server.always = Fault("prose")
    assert explain(run, server, "--concurrency", 1) == FAILURES
    assert "ask them again with --retry-failed" in capsys.readouterr().err
    failed = [n for n, e in newest(run).items() if e.failure == "not_json"]
    assert len(failed) == len(asked(run)) - 5
    server.always = None
    server.requests.clear()
    assert explain(run, server) == FAILURES  # nothing is asked again by itself
    assert server.chats == []
    assert explain(run, server, "--retry-failed") == OK
    assert len(server.chats) == len(failed)
    assert [e.failure for e in newest(run).values() if e.failure != "too_few_images"] == [
        None
    ] * len(asked(run))


def test_failures_within_the_share_that_is_allowed_are_no_error(server, run):
    server.queue(*[None] * len(ASKED), "prose", "prose")
    assert explain(run, server, "--concurrency", 1, "--max-failures", 0.5) == OK
    assert Counter(e.failure for e in newest(run).values())["not_json"] <= 1


def test_a_limit_does_so_many_of_those_left(server, run, capsys):
    assert explain(run, server, "--limit", 3) == OK
    assert "are left" in capsys.readouterr().out
    assert len(newest(run)) == 3
    assert explain(run, server, "--limit", 2) == OK
    assert len(newest(run)) == 5


def test_a_cap_ends_with_exit_code_3_and_a_higher_one_goes_on_where_it_stopped(server, run, capsys):
    priced = ("--price", "0.1,0.5")  # the worst case is about 1.6 answers of the server
    assert explain(run, server, *priced, "--max-cost", 6 * COST) == BUDGET
    assert "is reached" in capsys.readouterr().err
    n_paid = sum(server.answered.values())
    assert 3 <= n_paid <= 6
    assert explain(run, server, *priced, "--max-cost", 1) == OK
    assert set(server.answered.values()) == {1}


def test_routing_is_passed_on_and_is_part_of_what_was_asked(server, run):
    routing = ("--provider", "deepinfra,together", "--quantization", "fp8", "--zdr")
    assert explain(run, server, *routing, "--limit", 1) == OK
    for chat in server.chats:
        assert chat.body["provider"] == {
            "only": ["deepinfra", "together"],
            "quantizations": ["fp8"],
            "zdr": True,
        }
    n_sent = len(server.chats)
    # The same explanation is there, whoever was chosen to make it.
    assert explain(run, server, "--limit", 1, "--latents", str(min(newest(run)))) == OK
    assert len(server.chats) == n_sent


def test_one_model_that_does_not_see_ends_before_any_latent_is_asked_about(server, run, capsys):
    server.always = Fault("blind")
    assert explain(run, server) == USAGE
    assert "does not see the pictures" in capsys.readouterr().err
    assert len(server.chats) == 1
    assert not (run / "explanations.jsonl").exists()


def test_the_key_is_in_no_file_and_no_output(server, run, capsys, tmp_path):
    server.queue("echo_answer", "echo", "401")
    for words in ((), ("--debug",), ("--estimate",), ("--dry-run", 1), ()):
        explain(run, server, *words)
    interp("score", "--model", "x/y", "--base-url", server.base_url, "--run", run)
    interp("models", "--base-url", server.base_url)
    interp("ledger", "--run", run)
    interp("ledger", "--run", run, "--list")
    interp("ledger", "--run", run, "--export", tmp_path / "calls.jsonl")
    assert any(chat.headers["authorization"] == f"Bearer {KEY}" for chat in server.chats)
    out, err = capsys.readouterr()
    assert KEY not in out + err
    cache = tmp_path.parent.glob("cache/**/*")
    for path in (*tmp_path.rglob("*"), *cache):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
