"""`interp transfer`: explained on one domain, scored on the other, beside the run's own labels."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from interp.report.labels import read_labels
from interp.run.results import EXPLANATIONS, SCORES
from interp.run.run import TRANSFER, Run
from interp.run.transfer_file import read_transfer
from sae.core.errors import OK, USAGE
from sae.core.files import read_jsonl
from tests.support.commands import Walk, interp
from tests.support.servers.loopback import Loopback

LOCAL = ("--model", "local")
SOME = ("--latents", "0-5")


@pytest.fixture
def run(walk: Walk, tmp_path: Path) -> Path:
    """A run of one's own beside the store."""
    (tmp_path / "store").symlink_to(walk.store)
    return Path(shutil.copytree(walk.run, tmp_path / "run"))


def journal(run: Path) -> dict[str, bytes]:
    return {name: (run / TRANSFER / name).read_bytes() for name in (EXPLANATIONS, SCORES)}


def test_it_fills_four_cells_and_leaves_the_runs_own_labels_alone(run, capsys):
    assert interp("explain", *LOCAL, "--run", run, *SOME) == OK
    assert interp("score", *LOCAL, "--run", run) == OK
    before = read_labels(run)
    own = {name: (run / name).read_bytes() for name in (EXPLANATIONS, SCORES)}
    assert interp("transfer", *LOCAL, "--run", run, *SOME) == OK
    assert "mean held-out AUROC" in capsys.readouterr().out
    assert {name: (run / name).read_bytes() for name in own} == own
    after = read_labels(run)
    assert after.drop(columns="transfer").equals(before.drop(columns="transfer"))
    found = read_transfer(run)
    assert set(found) >= {n for n in range(6) if Run(run).evidence.status[n] == "live"}
    assert after.set_index("latent_id")["transfer"][min(found)] == found[min(found)].kind
    cells = Counter(
        (line["explained_on"], line["scored_on"]) for line in read_jsonl(run / TRANSFER / SCORES)
    )
    assert set(cells) == {(a, b) for a in ("sketch", "photo") for b in ("sketch", "photo")}
    for line in read_jsonl(run / TRANSFER / SCORES):
        assert {verdict["domain"] for verdict in line["verdicts"]} <= {line["scored_on"]}
    assert (run / "transfer.png").stat().st_size > 1000
    assert interp("cards", "--run", run) == OK
    index = (run / "gallery/data/index.js").read_text()
    assert '"transfer":{"names":[' in index
    assert found[min(found)].words() in (run / "gallery/data/c0000.js").read_text()


def test_what_is_done_is_not_done_again_and_a_limit_comes_to_the_same(run, walk, tmp_path):
    assert interp("transfer", *LOCAL, "--run", run, *SOME) == OK
    whole = journal(run)
    assert interp("transfer", *LOCAL, "--run", run, *SOME) == OK
    assert journal(run) == whole
    other = Path(shutil.copytree(walk.run, tmp_path / "other"))
    assert interp("transfer", *LOCAL, "--run", other, *SOME, "--limit", 2) == OK
    n_first = len({line["latent"] for line in read_jsonl(other / TRANSFER / EXPLANATIONS)})
    assert n_first == 2
    assert interp("transfer", *LOCAL, "--run", other, *SOME) == OK
    assert {n: sorted(b.splitlines()) for n, b in journal(other).items()} == {
        n: sorted(b.splitlines()) for n, b in whole.items()
    }
    assert (other / "transfer.csv").read_bytes() == (run / "transfer.csv").read_bytes()


def test_the_estimate_counts_the_requests_of_the_run_and_nothing_is_paid_twice(run, tmp_path):
    with Loopback() as server:
        words = ("--model", "x/y", "--base-url", server.base_url, "--price", "1,2")
        command = ("transfer", *words, "--run", run, "--latents", "0-3")
        assert interp(*command, "--estimate", "--json", tmp_path / "e.json") == OK
        assert interp(*command, "--dry-run", 3) == OK
        assert server.chats == []
        assert len(list((run / "dry-run").glob("*.json"))) == 3
        assert interp(*command) == OK
        told = json.loads((tmp_path / "e.json").read_text())
        tables = [line["request"] for line in _calls(run, tmp_path)]
        schemas = Counter(request["schema_name"] for request in tables)
        assert told["transfer-explain/n_requests"] == schemas["explain"] > 0
        # Where both labels read alike the same question is asked once.
        assert told["transfer-score/n_requests"] >= schemas["detect"] > 0
        stages = {line["about"].split()[0] for line in _calls(run, tmp_path)}
        assert stages - {"preflight"} == {"transfer-explain", "transfer-score"}
        n_chats = len(server.chats)
        assert interp(*command) == OK
        assert len(server.chats) == n_chats


def _calls(run: Path, tmp_path: Path) -> list[dict]:
    assert interp("ledger", "--run", run, "--export", tmp_path / "calls.jsonl") == OK
    return read_jsonl(tmp_path / "calls.jsonl")


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        ("sketch", "does not name two; choose two of sketch, photo: --domains sketch,photo"),
        ("sketch,sketch", "does not name two"),
        ("sketch,foto", "there is no domain 'foto'"),
    ],
)
def test_domains_that_are_not_two_of_the_runs_are_named(run, domains, said, capsys):
    assert interp("transfer", *LOCAL, "--run", run, "--domains", domains) == USAGE
    assert said in capsys.readouterr().err
    assert not (run / TRANSFER).exists()
