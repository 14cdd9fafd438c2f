"""`interp bench`: what it says of systems of known quality is what they are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.bench.config import TIERS as WORLD_TIERS
from interp.bench.naming import WorldTruth
from interp.bench.truth import read_truth
from interp.llm.ledger.report import read_billed
from sae.core.errors import OK, USAGE
from sae.world import TIERS
from tests.support.commands import interp
from tests.support.servers.knowing_vlm import KnowingVlm
from tests.support.servers.loopback import Loopback
from tests.support.servers.loopback_answers import COST

KINDS = "pure=5,even=3,noise=3,random=2"
WORDS = ("--n-images", 300, "--kinds", KINDS, "--n-trained", 0)
PERFECT, MIXED = "oracle:1:0", "oracle:0.8:0.2"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench of oracles; copy what you change."""
    out = tmp_path_factory.mktemp("bench") / "out"
    asked = ("--models", PERFECT, "--judges", f"{PERFECT},{MIXED}")
    assert interp("bench", *WORDS, *asked, "--out", out) == OK
    return out


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_who_knows_the_truth_is_right_in_every_figure(bench: Path) -> None:
    perfect, mixed = read(bench / "summary.csv")
    right = {"named": 1, "named_exact": 1, "even_flagged": 1, "even_both": 1, "even_third": 0}
    right |= {"false_noise": 0, "false_random": 0}
    assert {name: float(perfect[name]) for name in right} == right
    assert float(perfect["spearman"]) > 0.98
    assert float(perfect["error"]) < 0.01
    assert {name: float(mixed[name]) for name in ("named", "even_both")} == {
        "named": 1,
        "even_both": 1,
    }
    assert 0.5 < float(mixed["spearman"]) < 1


def test_a_judge_of_known_rates_scores_as_the_rates_say(bench: Path) -> None:
    lines = [line for line in read(bench / "bench.csv") if line["judge"] == MIXED]
    truth, score = (np.array([float(line[name]) for line in lines]) for name in ("truth", "score"))
    # Half of 1 + rate of yes among active - rate among silent; both rates shrink by hit - alarm.
    assert np.mean(score) == pytest.approx(np.mean(0.5 + 0.6 * (truth - 0.5)), abs=0.05)


def test_truth_and_regret_are_as_counted_by_hand(bench: Path) -> None:
    truth = read_truth(bench / "world/truth.parquet")
    ids = pd.read_parquet(bench / "constructed/images.parquet")["image_id"]
    acts = np.load(bench / "constructed/latents.npy")
    for line in read(bench / "bench.csv"):
        active = acts[:, int(line["latent"])] > 0
        flags = truth.loc[ids].select_dtypes(bool)
        all_truths = (1 + flags[active].mean() - flags[~active].mean()) / 2
        assert float(line["best"]) == pytest.approx(all_truths.max(), abs=1e-5)
        assert float(line["truth_all"]) == pytest.approx(all_truths[line["label"]], abs=1e-5)


def test_a_finished_bench_is_left_as_it_is_and_another_is_refused(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(bench, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix != ".png"}
    asked = ("--models", PERFECT, "--judges", f"{PERFECT},{MIXED}", "--out", out)
    assert interp("bench", *WORDS, *asked) == OK
    assert {path: path.read_bytes() for path in before} == before
    assert interp("bench", *WORDS, *asked, "--seed", 1) == USAGE
    assert "holds the bench of seed 0" in capsys.readouterr().err
    shutil.rmtree(out / "runs")
    assert interp("bench", *WORDS, *asked) == OK
    assert (out / "bench.csv").read_bytes() == before[out / "bench.csv"]


def test_the_tiers_are_those_of_the_world() -> None:
    assert tuple(TIERS) == WORLD_TIERS


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--models", "oracle:2", "between 0 and 1"),
        ("--judges", " , ", "names no model"),
        ("--kinds", "pur=3", "did you mean 'pure'"),
        ("--tier", "medium", "easy, hard"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(
    option: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert interp("bench", "--out", tmp_path / "out", option, value) == USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_vision_model_of_known_rates_is_measured_for_money_and_never_twice(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(bench, out)
    truth = read_truth(out / "world/truth.parquet")
    vlm = KnowingVlm(out / "world", WorldTruth(truth, truth.index), 0.8, 0.2)
    with Loopback(refuse=vlm) as server:
        paid = ("--models", "fake/vision", "--judges", f"fake/vision,{PERFECT}", "--out", out)
        paid += ("--base-url", server.base_url, "--concurrency", 2, "--layout", "grid")
        price = ("--price", "1,1")
        assert interp("bench", *WORDS, *paid, *price, "--estimate", "--json", out / "e.json") == OK
        assert server.chats == []
        estimate = json.loads((out / "e.json").read_text())
        assert interp("bench", *WORDS, *paid, *price, "--max-cost", 0.0001) != OK
        assert len(server.chats) <= 1
        assert interp("bench", *WORDS, *paid, *price, "--max-cost", 100) == OK
        n_asked = len(server.chats)
        assert interp("bench", *WORDS, *paid, *price, "--max-cost", 100) == OK
        assert len(server.chats) <= n_asked + 1  # a look at whether it sees, at most
    by_vlm, by_oracle = read(out / "summary.csv")
    assert (by_vlm["explainer"], by_vlm["judge"]) == ("fake/vision", "fake/vision")
    assert float(by_vlm["named"]) >= 0.8
    # Not 0: of calls whose answers differ in level by chance only the pairs within a call count.
    assert float(by_oracle["error"]) < 0.01
    lines = [line for line in read(out / "bench.csv") if line["judge"] == "fake/vision"]
    truths, scores = (np.array([float(one[name]) for one in lines]) for name in ("truth", "score"))
    assert np.mean(scores) == pytest.approx(np.mean(0.5 + 0.6 * (truths - 0.5)), abs=0.06)
    usd = float(by_vlm["usd_explain"]) + float(by_vlm["usd_score"])
    assert usd == pytest.approx(COST * estimate["n_requests"], rel=0.2)


def test_the_estimate_of_a_paid_judge_is_what_is_then_sent_foils_and_all(
    bench: Path, tmp_path: Path
) -> None:
    out, said = Path(shutil.copytree(bench, tmp_path / "out")), tmp_path / "e.json"
    truth = read_truth(out / "world/truth.parquet")
    vlm = KnowingVlm(out / "world", WorldTruth(truth, truth.index), 0.8, 0.2)
    with Loopback(refuse=vlm) as server:
        asked = ("--models", f"{PERFECT},{MIXED}", "--judges", "fake/vision", "--out", out)
        paid = (*asked, "--base-url", server.base_url, "--layout", "grid", "--price", "1,1")
        assert interp("bench", *WORDS, *paid, "--estimate", "--json", said) == OK
        assert server.chats == []
        estimate = json.loads(said.read_text())
        assert interp("bench", *WORDS, *paid, "--max-cost", 100) == OK
        texts = [" ".join(chat.texts) for chat in server.chats]
        assert interp("bench", *WORDS, *paid, "--estimate", "--json", said) == OK
    texts = [text for text in texts if "Which colour" not in text]
    assert len(texts) == estimate["n_requests"] > 80
    assert all("rule_2: <<<" in text for text in texts)  # of so few latents all have foils
    runs = [path.parent for path in (out / "runs").glob("*/calls.sqlite")]
    assert len(runs) == 2
    billed = [read_billed(run / "calls.sqlite", "fake/vision", "score-foils") for run in runs]
    assert sum(one.n for one in billed) == len(texts)
    expected = estimate["prompt_tokens"] * estimate["n_requests"]
    assert sum(one.estimated for one in billed) == pytest.approx(expected, rel=0.02)
    left = json.loads(said.read_text())
    assert (left["n_requests"], left["usd"]) == (0, 0)  # what is scored is not counted again
