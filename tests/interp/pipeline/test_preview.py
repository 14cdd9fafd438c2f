"""`--estimate` and `--dry-run`: what would be asked and paid, told without opening a socket."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import shutil
import socket
from pathlib import Path

import pytest

from interp.pictures import painter
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import Request

PRICES = {
    "anthropic/claude-haiku-4.5": "1,5",
    "openai/gpt-4.1-mini": "0.4,1.6",
    "google/gemini-3.1-flash-lite": "0.25,1.5",
}


@pytest.fixture
def run(walk: Walk, tmp_path: Path) -> Path:
    """A run of one's own, nothing explained; its store lies where it was."""
    for name in ("store", "world"):
        (tmp_path / name).symlink_to(getattr(walk, name))
    return Path(shutil.copytree(walk.run, tmp_path / "run"))


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def bill(picture_tokens, completion: int, seed: int = 0):
    """Usage as a provider of this kind counts it: by words for text, by its rule for pictures."""
    rng = random.Random(seed)

    def usage(request: Request) -> dict[str, float]:
        system = request.body["messages"][0]["content"]
        schema = json.dumps(request.body.get("response_format", ""))
        words = re.findall(r"\w+|[^\w\s]", " ".join([system, *request.texts]))
        n_text = 1.12 * len(words) + len(re.findall(r"\w+|[^\w\s]", schema)) / 1.35
        n_pictures = sum(picture_tokens(*picture.size) for picture in request.pictures)
        n_answer = round(completion * rng.uniform(0.9, 1.1)) if n_pictures > 300 else 10
        price_in, price_out = map(float, PRICES[request.body["model"]].split(","))
        n_prompt = round(n_text + n_pictures)
        cost = 1e-6 * (n_prompt * price_in + n_answer * price_out)
        return {"prompt_tokens": n_prompt, "completion_tokens": n_answer, "cost": cost}

    return usage


TRUTHS = {
    "anthropic/claude-haiku-4.5": lambda w, h: math.ceil(w / 28) * math.ceil(h / 28) + 3,
    "openai/gpt-4.1-mini": lambda w, h: 1.62 * math.ceil(w / 32) * math.ceil(h / 32),
    "google/gemini-3.1-flash-lite": lambda _w, _h: 1089,
}


def told(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())


def words(run: Path, model: str, server: Loopback | None = None) -> list[object]:
    url = server.base_url if server else "http://127.0.0.1:9/v1"
    return ["--run", run, "--model", model, "--base-url", url, "--price", PRICES[model]]


@pytest.mark.parametrize("model", PRICES)
def test_an_estimate_is_within_15_percent_of_the_bill(server, run, tmp_path, model):
    server.usage = bill(TRUTHS[model], completion=440)
    figures, paid = tmp_path / "estimate.json", tmp_path / "paid.json"
    command = ("explain", *words(run, model, server), "--limit", 8)
    assert interp(*command, "--estimate", "--json", figures) == 0
    assert server.chats == []
    assert interp(*command, "--json", paid) == 0
    n_asked = len([chat for chat in server.chats if len(chat.pictures) > 1])
    estimate = told(figures)
    assert estimate["n_requests"] == n_asked == told(paid)["n_labelled"]
    assert estimate["usd"] == pytest.approx(told(paid)["usd"], rel=0.15)
    assert estimate["usd_at_most"] > told(paid)["usd"]


@pytest.mark.parametrize("model", PRICES)
def test_after_a_pilot_of_5_latents_it_is_within_10_percent_however_the_model_counts(
    server, run, tmp_path, model
):
    server.usage = bill(lambda w, h: 1.9 * TRUTHS[model](w, h), completion=250)
    figures, paid = tmp_path / "estimate.json", tmp_path / "paid.json"
    assert interp("explain", *words(run, model, server), "--limit", 5) == 0
    assert interp("explain", *words(run, model, server), "--estimate", "--json", figures) == 0
    assert interp("explain", *words(run, model, server), "--json", paid) == 0
    assert told(figures)["n_requests"] == told(paid)["n_labelled"] > 3
    assert told(figures)["is_learned"]
    assert told(figures)["usd"] == pytest.approx(told(paid)["usd"], rel=0.10)


def test_scoring_is_estimated_too(server, run, tmp_path):
    model = "openai/gpt-4.1-mini"
    of_label, of_a_foil = 75, 40

    def usage(request):
        n_foils = request.texts[-1].count("\nrule_")
        return bill(TRUTHS[model], completion=of_label + n_foils * of_a_foil)(request)

    server.usage = usage
    assert interp("explain", *words(run, model, server), "--limit", 6) == 0
    server.requests.clear()
    figures, paid = tmp_path / "estimate.json", tmp_path / "paid.json"
    assert interp("score", *words(run, model, server), "--estimate", "--json", figures) == 0
    assert server.chats == []
    assert interp("score", *words(run, model, server), "--json", paid) == 0
    assert told(figures)["in_all/n_requests"] == len(server.chats)  # colours were asked before
    assert told(figures)["usd"] == pytest.approx(told(paid)["usd"], rel=0.15)
    assert 0 < told(figures)["score-foils/usd"] < told(figures)["usd"]


def test_an_estimate_opens_no_socket_draws_nothing_and_says_what_is_not_known(
    run, no_sockets, capsys, monkeypatch
):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(painter, "compose", refuse)
    monkeypatch.setattr(painter, "single", refuse)
    url = "http://127.0.0.1:9/v1"
    command = ("explain", "--run", run, "--model", "somebody/unknown", "--base-url", url)
    assert interp(*command, "--estimate") == 0
    shown = capsys.readouterr().out
    assert "price unknown" in shown
    assert "interp models" in shown


@pytest.mark.parametrize("stage", ["explain", "score"])
def test_a_dry_run_writes_exactly_what_is_sent_then_and_opens_no_socket(
    server, run, monkeypatch, stage
):
    model = "openai/gpt-4.1-mini"
    if stage == "score":
        assert interp("explain", *words(run, model, server), "--limit", 3) == 0
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", None)
        assert interp(stage, *words(run, model), "--dry-run", 3) == 0
    written = sorted((run / "dry-run").glob("*.json"))
    assert len(written) == 3
    server.requests.clear()
    assert interp(stage, *words(run, model, server), "--concurrency", 1, "--limit", 5) == 0
    sent = [chat.body for chat in server.chats]
    for path in written:
        body = json.loads(path.read_text())
        assert body in sent
        pictures = [part for part in body["messages"][1]["content"] if part["type"] == "image_url"]
        for number, part in enumerate(pictures, start=1):
            data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
            (shown,) = path.parent.glob(f"{path.stem}-{number:02d}.*")
            assert shown.read_bytes() == data


def test_a_dry_run_leaves_nothing_of_an_earlier_one(run):
    model = "openai/gpt-4.1-mini"
    assert interp("explain", *words(run, model), "--dry-run", 3) == 0
    assert interp("explain", *words(run, model), "--dry-run", 1, "--layout", "grid") == 0
    assert len(list((run / "dry-run").glob("*.json"))) == 1
    assert len(list((run / "dry-run").iterdir())) == 3  # the request and two grids


def test_the_local_model_has_nothing_to_estimate(run):
    assert interp("explain", "--run", run, "--model", "local", "--estimate") == 2


def test_a_dry_run_needs_no_key(run, monkeypatch, no_sockets):
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    assert interp("explain", "--run", run, "--model", "openai/gpt-4.1-mini", "--dry-run", 1) == 0
