"""Labels that several latents share get one round of "what sets this set apart from that one"."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from interp.llm.ledger.report import totals
from interp.local.apart import LEAST_APART, LEAST_GAIN, NEARLY, LocalApart, choose_name
from interp.local.clip_encoder import ClipEncoder
from interp.pictures.contrast import MOST_OTHERS, Contrast, contrast_of, sharers
from interp.records.codec import to_json
from interp.records.split import LeakError, split_of
from interp.records.types import Example
from interp.run.run import Run
from sae.core.errors import BUDGET, OK, USAGE
from sae.core.files import append_jsonl
from tests.support.commands import Walk, interp
from tests.support.interp.latents import (
    COLOURS,
    ColourClip,
    Source,
    make_evidence,
    plain_with_ids,
)
from tests.support.interp.synthetic_run import explanation
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import (
    COST,
    Fault,
    Request,
    chat_body,
    explain_answer,
)

APART = "given the same name as this one"
KEPT = "Shared Thing"


def answer(request: Request) -> tuple[int, Any] | None:
    """The same name for all; then one by the pictures, the old one for a quarter of them."""
    text = " ".join(request.texts)
    if "second_label" not in text:
        return None
    said = explain_answer(request) | {"label": KEPT}
    if APART in text:
        said["label"] = _name_of(request)
    return 200, chat_body(request, json.dumps(said))


def _name_of(request: Request) -> str:
    digest = hashlib.sha256(request.pictures[0].tobytes()).hexdigest()
    return KEPT if digest[0] in "0123" else f"shape {digest[1:7].translate(LETTERS)}"


LETTERS = str.maketrans("0123456789", "ghijklmnop")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(refuse=answer) as running:
        yield running


@pytest.fixture
def run(walk: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one's own, nothing explained."""
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-test")
    for name in ("store", "world"):
        shutil.copytree(getattr(walk, name), tmp_path / name)
    return Path(shutil.copytree(walk.run, tmp_path / "run"))


def explain(run: Path, server: Loopback, *more: object, workers: int = 4) -> int:
    words = ("--model", "x/y", "--base-url", server.base_url, "--concurrency", workers)
    return interp("explain", "--run", run, *words, "--price", "1,1", *more)


def apart(server: Loopback) -> list[Request]:
    return [chat for chat in server.chats if APART in " ".join(chat.texts)]


def files(run: Path) -> dict[str, bytes]:
    journal = run / "disambiguation/explanations.jsonl"
    return {path.name: path.read_bytes() for path in (journal, run / "labels.csv")}


def test_each_latent_is_asked_once_what_sets_it_apart(
    server: Loopback, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, server) == OK
    before = Run(run).results.newest_explanations()
    n = sum(e.label is not None for e in before.values())
    assert n > 5
    assert f"{n} of {n} labels are shared by several latents" in capsys.readouterr().out
    n_chats = len(server.chats)
    assert explain(run, server, "--disambiguate", "--estimate", "--json", run / "e.json") == OK
    assert explain(run, server, "--disambiguate", "--dry-run", 1) == OK
    assert len(server.chats) == n_chats
    assert json.loads((run / "e.json").read_text())["n_requests"] == n
    sent = next((run / "dry-run").glob("001-disambiguate-*.json")).read_text()
    assert APART in sent
    assert "<<<shared thing>>>" in sent
    made = run / "made.json"
    assert explain(run, server, "--disambiguate", "--json", made) == OK
    assert len(apart(server)) == n
    told = Run(run).results
    answers = {e.latent: e for e in Run(run).disambiguation.explanations}
    new = {at: e for at, e in answers.items() if e.label != "shared thing"}
    assert set(answers) == {at for at, e in before.items() if e.label}
    assert 0 < len(new) < n
    for latent, old in before.items():
        now = told.explanation(latent)
        assert now == new.get(latent, old)
    for e in new.values():
        assert e.provenance.startswith("told apart from latents ")
        assert e.provenance.endswith(", also called shared thing")
        assert all(split_of(image_id) == "explain" for image_id in e.codes.values())
    figures = json.loads(made.read_text())
    assert (figures["n_shared_before"], figures["n_new"]) == (n, len(new))
    assert figures["n_shared"] == n - len(new)
    assert figures["usd"] == pytest.approx(n * COST)
    assert {part.stage for part in totals(run / "calls.sqlite")} >= {"explain", "disambiguate"}
    kept = files(run)
    assert explain(run, server, "--disambiguate") == OK
    assert explain(run, server) == OK  # the first answers do not come back
    assert files(run) == kept
    assert len(apart(server)) == n


def test_where_no_label_is_shared_that_is_said_and_nobody_is_asked(
    server: Loopback, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def name_each(request: Request) -> tuple[int, Any] | None:
        if answer(request) is None:
            return None
        said = explain_answer(request) | {"label": f"shape {request.digest.translate(LETTERS)}"}
        return 200, chat_body(request, json.dumps(said))

    server.refuse = name_each
    assert explain(run, server) == OK
    n = sum(e.label is not None for e in Run(run).results.newest_explanations().values())
    n_chats = len(server.chats)
    capsys.readouterr()
    assert explain(run, server, "--disambiguate") == OK
    assert f"no label is shared by several latents, of {n}" in capsys.readouterr().out
    assert len(server.chats) == n_chats


def test_a_round_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    server: Loopback, run: Path
) -> None:
    assert explain(run, server) == OK
    other = Path(shutil.copytree(run, run.with_name("other")))
    assert explain(other, server, "--disambiguate", workers=16) == OK
    n = len(apart(server))
    labels = (run / "explanations.jsonl").read_bytes()
    server.requests.clear()
    answered: list[None] = []

    def some(request: Request) -> tuple[int, Any] | None:
        if APART in " ".join(request.texts):
            if len(answered) == 3:
                return None
            answered.append(None)
        return answer(request)

    def choose(request: Request) -> Fault | None:
        return Fault("402") if len(answered) == 3 else None

    server.choose, server.refuse = choose, some
    assert explain(run, server, "--disambiguate", workers=1) == BUDGET
    assert (run / "explanations.jsonl").read_bytes() == labels  # not while others are to be asked
    server.choose, server.refuse = None, answer
    assert len(answered) == 3 < n
    server.requests.clear()
    assert explain(run, server, "--disambiguate", workers=1) == OK
    assert len(apart(server)) == n - 3
    assert files(run) == files(other)
    assert (run / "explanations.jsonl").read_bytes() == (other / "explanations.jsonl").read_bytes()


def test_the_cap_holds_and_the_baseline_tells_nothing_apart(server: Loopback, run: Path) -> None:
    assert explain(run, server) == OK
    assert explain(run, server, "--disambiguate", "--max-cost", 0.0001) == BUDGET
    assert not apart(server)
    assert interp("explain", "--run", run, "--model", "local:linear", "--disambiguate") == USAGE
    assert explain(run, server, "--disambiguate", "--best-of", 2) == USAGE


def test_a_refused_question_leaves_the_label(server: Loopback, run: Path) -> None:
    assert explain(run, server) == OK
    server.refuse = lambda request: (
        answer(request) if APART not in " ".join(request.texts) else None
    )
    server.always = Fault("refusal")
    labels = Run(run).results.newest_explanations()
    assert explain(run, server, "--disambiguate", "--max-failures", 1) == OK
    assert Run(run).results.newest_explanations() == labels
    assert {e.failure for e in Run(run).disambiguation.explanations} == {"refused"}


# ------------------------------------------------------------------------------ held against whom


def test_those_who_share_a_label_stand_next_to_one_another() -> None:
    labels = ["cup", "net", " CUP", "cup", None, "ring", "Cup "]
    newest = {n: explanation(n, label) for n, label in enumerate(labels)}
    assert sharers(newest) == {0: (2, 3, 6), 2: (3, 6, 0), 3: (6, 0, 2), 6: (0, 2, 3)}


def test_a_latent_is_held_against_the_strongest_images_of_others_that_leave_it_silent() -> None:
    evidence = {latent: make_evidence(latent) for latent in range(5)}
    shared = evidence[1].of("explain", "top")[0]
    own = replace(shared, latent=0, kind="quantile", stratum=4)
    evidence[0] = replace(evidence[0], examples=(*evidence[0].examples, own))
    source = Source(*evidence.values())
    newest = {n: explanation(n, "cup") for n in range(5)}
    contrast = contrast_of(0, newest, sharers(newest)[0], source)
    assert contrast.others == (1, 2, 3)
    assert len(contrast.others) == MOST_OTHERS
    assert shared.image_id not in {e.image_id for e in contrast.examples}
    assert [e.latent for e in contrast.examples[:5]] == [2, 3, 1, 2, 3]  # in turn
    assert len(contrast.examples) == 3 * 16 - 1
    assert {e.side for e in contrast.examples} == {"explain"}
    stray = replace(evidence[1].of("score", "top")[0], side="explain", rank=-1)
    evidence[1] = replace(evidence[1], examples=(stray, *evidence[1].examples))
    with pytest.raises(LeakError, match="explain side"):
        contrast_of(0, newest, sharers(newest)[0], Source(*evidence.values()))


# ------------------------------------------------------------------------------ without a key


def told(*columns: tuple[float, float]) -> int:
    """The choice among names that all of the latent's images, and of the others', reach so far."""
    own = torch.tensor([[float(first) for first, _ in columns]] * 8)
    others = torch.tensor([[float(second) for _, second in columns]] * 8)
    return choose_name(own, others, torch.full((len(columns),), 4.0))


def test_a_name_is_chosen_that_fits_nearly_as_well_and_tells_the_images_apart() -> None:
    assert told((4, 4), (3.5, 1), (3.9, 3.9)) == 1
    assert told((4, 4), (4 * NEARLY - 0.1, -4)) == 0  # does not fit well enough
    assert told((4, 4), (3.9, 3.9)) == 0  # tells nothing apart
    assert told((4, 1), (4, 1)) == 0  # no better than the label
    assert told((-1, 0), (-0.5, -2)) == 0  # fits neither


def test_a_small_gain_is_not_enough() -> None:
    order = torch.arange(100.0)[:, None] / 100
    others = order.repeat(1, 2)
    for gain, chosen in ((LEAST_GAIN - 0.05, 0), (LEAST_GAIN + LEAST_APART - 0.5 + 0.05, 1)):
        own = torch.cat([order, order + gain], 1) + 2
        assert choose_name(own, others + 2, torch.full((2,), 4.0)) == chosen


def test_the_local_namer_takes_a_next_best_name_that_others_do_not_have() -> None:
    evidence, other = make_evidence(7), make_evidence(8)
    shown = other.of("explain", "top")[:16]

    def images(example: Example) -> Image.Image:
        return Image.new("RGB", (32, 32), COLOURS["red" if example.latent == 7 else "green"])

    for taken, label in ((frozenset({"yellow"}), "red"), (frozenset({"yellow", "red"}), "yellow")):
        own = explanation(7, "yellow", candidates=("yellow", "blue", "red"), second_label="red")
        contrast = Contrast(own, (8,), shown, taken)
        background = plain_with_ids("blue", "green", "white", "yellow", "red")
        namer = LocalApart(ClipEncoder(ColourClip()), background, {7: contrast}.__getitem__)
        found = asyncio.run(namer.explain(evidence, images))
        assert found.label == label
        assert found.provenance == "told apart from latent 8, also called yellow"
        assert set(found.codes.values()) >= {example.image_id for example in shown}
        assert found.second_label == (None if label == "red" else "red")
        assert found.candidates[0] == label


def test_a_round_without_a_key_is_counted_and_made_once(
    walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(walk.run, walk.run.with_name("apart")))
    assert interp("explain", "--run", run, "--model", "local") == OK
    before = Run(run).results.newest_explanations()
    same = [replace(e, label="apple") for e in before.values() if e.label][:4]
    append_jsonl(run / "explanations.jsonl", map(to_json, same))
    n = len(sharers(Run(run).results.newest_explanations()))
    capsys.readouterr()
    assert interp("explain", "--run", run, "--model", "local", "--disambiguate") == OK
    said = capsys.readouterr().out
    now = Run(run).results
    n_new = len(now.explanations) - len(before) - len(same)
    assert len(Run(run).disambiguation.explanations) == n
    assert f"{n_new} have a new label" in said
    assert f" {n} of " in said
    assert f" before, {len(sharers(now.newest_explanations()))} now" in said
    kept = files(run)
    assert interp("explain", "--run", run, "--model", "local", "--disambiguate") == OK
    assert files(run) == kept
