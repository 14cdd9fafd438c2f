import json
import math
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from interp.cli import ledger as ledger_cli
from interp.llm.ledger import report
from interp.llm.ledger.ledger import Ledger, key_of
from interp.llm.ledger.report import Row, Total, Unanswered
from interp.llm.types import Reply, Usage
from sae.core.errors import UserError
from tests.support.paths import ROOT


def put(ledger, about, usd, model="m", provider="Azure", tokens=(100, 10), text="{}"):
    """One answer; its key is returned."""
    request = {"model": model, "messages": [about, len(ledger)]}
    key = key_of(request)
    reply = Reply(text, f"{model}-2026", provider, Usage(*tokens, usd), "stop", key)
    ledger.put(key, request, reply, about, 90.0)
    return key


@pytest.fixture
def path(tmp_path):
    """Three latents explained, one of them scored in two calls, and two requests lost."""
    with Ledger(tmp_path / "a run #1?" / "calls.sqlite") as ledger:
        put(ledger, "preflight", 0.0625)
        put(ledger, "explain 3", 0.5)
        put(ledger, "explain 3", 0.25)
        put(ledger, "explain 4", 1.0, provider="OpenAI")
        put(ledger, "explain 5", 2.0, model="n", provider=None)
        put(ledger, "score 3", 0.125)
        put(ledger, "score 3", 0.125)
        ledger.risk("lost", "explain 6", 0.75)
        ledger.settle(ledger.risk("empty", "explain 6", 0.5), billed=0.25)
        ledger.settle(ledger.risk("refused connection", "score 3", 0.5))
    return ledger.path


def age(path, *days):
    """Set the dates of the calls in the order of their keys."""
    calls = sqlite3.connect(path)
    with calls:
        keys = [key for (key,) in calls.execute("SELECT key FROM calls ORDER BY key")]
        for key, day in zip(keys, days, strict=True):
            created = f"2026-03-{day:02}T12:30:59+00:00"
            calls.execute("UPDATE calls SET created = ? WHERE key = ?", (created, key))
    calls.close()
    return keys


def test_totals_are_by_stage_model_and_provider(path):
    found = {(t.stage, t.model, t.provider): t for t in report.totals(path)}
    assert list(found) == [
        ("explain", "m", "Azure"),
        ("explain", "m", "OpenAI"),
        ("explain", "n", ""),
        ("preflight", "m", "Azure"),
        ("score", "m", "Azure"),
    ]
    azure = found["explain", "m", "Azure"]
    assert azure[3:9] == (2, 1, 0, 200, 20, 0.75)
    assert azure.usd_per_latent == 0.75
    assert found["score", "m", "Azure"].usd_per_latent == 0.25
    assert math.isnan(found["preflight", "m", "Azure"].usd_per_latent)


def test_the_sum_over_all_counts_each_latent_once(path):
    whole = report.overall(path)
    assert whole[:9] == ("", "", "", 7, 3, 0, 700, 70, 4.0625)
    assert whole.usd_per_latent == 4.0625 / 3


def test_the_totals_add_up_to_the_sum_over_all(path):
    whole, parts = report.overall(path), report.totals(path)
    for name in ("n_calls", "n_unknown", "prompt_tokens", "completion_tokens", "usd"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)


def test_an_unknown_cost_is_counted_and_never_zero(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        put(ledger, "explain 3", 0.5)
        put(ledger, "explain 4", math.nan)
    whole = report.overall(ledger.path)
    assert (whole.usd, whole.n_unknown) == (0.5, 1)
    assert math.isnan(whole.usd_per_latent)
    assert sum(math.isnan(row.usd) for row in report.rows(ledger.path)) == 1


def test_first_and_last_are_the_dates_of_the_answers(path):
    age(path, 5, 3, 9, 4, 6, 7, 8)
    whole = report.overall(path)
    assert (whole.first, whole.last) == ("2026-03-03T12:30:59+00:00", "2026-03-09T12:30:59+00:00")
    assert min(t.first for t in report.totals(path)) == whole.first


def test_what_was_or_may_have_been_billed_without_an_answer_is_told_apart(path):
    assert report.sum_unanswered(path) == [Unanswered("explain", 2, 0.25, 0.75)]


def test_rows_come_oldest_first(path):
    keys = age(path, 7, 6, 5, 4, 3, 2, 1)
    assert [row.key for row in report.rows(path)] == keys[::-1]


def test_a_row_is_one_call(path):
    (row,) = report.rows(path, model="n")
    assert row[2:] == ("explain 5", "n", "", 100, 10, 2.0, "stop")


@pytest.mark.parametrize(
    ("model", "stage", "n"),
    [(None, None, 7), ("m", None, 6), (None, "explain", 4), ("m", "explain", 3), ("m", "expl", 0)],
)
def test_rows_are_chosen_by_model_and_stage(path, model, stage, n):
    found = list(report.rows(path, model, stage))
    assert len(found) == n
    assert all(row.model == (model or row.model) for row in found)


def test_the_export_is_one_object_a_call_oldest_first(path, tmp_path):
    keys = age(path, 7, 6, 5, 4, 3, 2, 1)
    out = tmp_path / "deep" / "calls.jsonl"
    assert report.export(path, out) == 7
    calls = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert [call["key"] for call in calls] == keys[::-1]
    assert all(set(call) == {"key", "created", "about", "request", "reply"} for call in calls)
    assert all(key_of(call["request"]) == call["key"] for call in calls)
    assert sum(call["reply"]["usd"] for call in calls) == report.overall(path).usd
    assert sorted(call["about"] for call in calls)[-1] == "score 3"


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", "\x00\x1b[2J", "ü 画 🦊", '"\\'])
def test_any_answer_is_one_line_of_the_export(tmp_path, text):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        put(ledger, "explain 3", 0.5, text=text)
    report.export(ledger.path, tmp_path / "out.jsonl")
    (line, rest) = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    assert json.loads(line)["reply"]["text"] == text
    assert rest == b""


def test_an_export_onto_the_ledger_itself_is_refused(path, tmp_path):
    before = path.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    for out in (path, link):
        with pytest.raises(UserError, match="is the ledger itself"):
            report.export(path, out)
    assert path.read_bytes() == before


def test_a_run_at_work_can_be_read_and_goes_on(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        put(ledger, "explain 3", 0.5)
        reading = report.rows(ledger.path)
        first = next(reading)
        put(ledger, "explain 4", 0.25)  # neither waits for the other
        assert list(reading) == []  # a reader sees one moment
        assert report.overall(ledger.path).usd == 0.75
        assert [first, *report.rows(ledger.path)][0].about == "explain 3"
        code = (
            "import sys; from pathlib import Path\nfrom interp.llm.ledger import report\n"
            "print(report.overall(Path(sys.argv[1])).n_calls)"
        )
        command = [sys.executable, "-c", code, str(ledger.path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout == "2\n"


def test_the_ledger_is_opened_for_reading_only(path):
    with pytest.raises(UserError, match="readonly"), report.open_read_only(path) as calls:
        calls.execute("DELETE FROM calls")


def test_reading_changes_no_byte_of_the_ledger(path, tmp_path):
    before = path.read_bytes()
    ledger_cli.print_totals(path)
    ledger_cli.print_rows(path)
    report.export(path, tmp_path / "out.jsonl")
    assert path.read_bytes() == before


READ_ONLY = """
import os, sys
from pathlib import Path
from interp.llm.ledger import report
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    print(report.overall(Path(sys.argv[1])).n_calls)
except report.UserError as error:
    print(error)
"""


def test_a_folder_that_is_read_only_can_be_read_unless_a_run_died_there(path):
    command = [sys.executable, "-c", READ_ONLY]
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        copy = Path(name) / "calls.sqlite"
        shutil.copyfile(path, copy)
        Path(name).chmod(0o555)
        whole = subprocess.run([*command, copy], capture_output=True, text=True, cwd=ROOT)
        Path(name).chmod(0o755)
        Path(f"{copy}-wal").write_bytes(b"what was not yet moved into the file")
        Path(name).chmod(0o555)
        torn = subprocess.run([*command, copy], capture_output=True, text=True, cwd=ROOT)
        Path(name).chmod(0o755)
    assert whole.stdout == "7\n", whole.stderr
    assert torn.stdout.startswith(f"cannot read {copy}: "), torn.stderr


def test_a_ledger_of_the_first_version_has_calls_without_a_stage(tmp_path, capsys):
    path = tmp_path / "calls.sqlite"
    stored = {"provider": None, "prompt_tokens": 10, "completion_tokens": 2, "usd": 1.0}
    row = ("k", "2026-01-02T03:04:05+00:00", '{"model": "m"}', json.dumps(stored))
    calls = sqlite3.connect(path)
    with calls:
        calls.execute("CREATE TABLE calls (key TEXT PRIMARY KEY, created, request, reply)")
        calls.execute("PRAGMA user_version=1")
        calls.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", row)
    calls.close()
    created = row[1]
    assert report.totals(path) == [Total("", "m", "", 1, 0, 0, 10, 2, 1.0, created, created)]
    assert report.sum_unanswered(path) == []
    ledger_cli.print_totals(path)
    assert "- m " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist: no model was asked in this run yet"),
        (b"no database at all" * 100, "cannot read"),
        (b"", "has format 0; this version reads format 1"),
    ],
)
def test_what_is_no_ledger_is_a_user_error(tmp_path, content, words):
    path = tmp_path / "calls.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        report.totals(path)


def test_the_printed_totals_hold_every_figure(path, capsys):
    age(path, 1, 2, 3, 4, 5, 6, 7)
    ledger_cli.print_totals(path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "stage, model (provider) calls prompt completion USD a latent",
        "explain m (Azure) 2 200 20 $0.7500 $0.750000",
        "explain m (OpenAI) 1 100 10 $1.0000 $1.000000",
        "explain n 1 100 10 $2.0000 $2.000000",
        "preflight m (Azure) 1 100 10 $0.0625 -",
        "score m (Azure) 2 200 20 $0.2500 $0.250000",
        "all 7 700 70 $4.0625 $1.354167",
        "answered from 2026-03-01 12:30 to 2026-03-07 12:30 UTC",
        "explain: 2 without an answer (lost, or still in flight): billed $0.2500, "
        "perhaps up to $0.7500 more",
    ]


def test_unknown_costs_are_printed_as_unknown(tmp_path, capsys):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        put(ledger, "explain 3", math.nan)
        put(ledger, "score 3", 0.5)
    ledger_cli.print_totals(ledger.path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        "explain m (Azure) 1 100 10 unknown -",
        "score m (Azure) 1 100 10 $0.5000 $0.500000",
        "all 2 200 20 $0.5000 + 1 unknown -",
    ]
    ledger_cli.print_rows(ledger.path, stage="explain")
    assert " unknown " in capsys.readouterr().out


def test_the_list_has_one_line_a_call(path, capsys):
    (key, *_) = [row.key for row in report.rows(path, model="n")]
    ledger_cli.print_rows(path)
    header, *lines = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "UTC about model provider prompt completion USD end key"
    assert len(lines) == 7
    (line,) = [line for line in lines if "explain 5" in line]
    assert " ".join(line.split()[2:]) == f"explain 5 n - 100 10 2.000000 stop {key[:12]}"


def test_nothing_to_print_is_said(tmp_path, capsys):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        pass
    ledger_cli.print_totals(ledger.path)
    ledger_cli.print_rows(ledger.path)
    assert capsys.readouterr().out == "no answered call yet\nno such call\n"


def test_names_from_a_server_cannot_steer_the_terminal(tmp_path, capsys):
    with Ledger(tmp_path / "calls.sqlite") as ledger:
        put(ledger, "explain 3", 0.5, provider="\x1b[2J\nEvil")
    ledger_cli.print_totals(ledger.path)
    ledger_cli.print_rows(ledger.path)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("?[2J?Evil") == 2


def test_the_figures_are_flat_and_equal_to_what_is_printed(path):
    found = ledger_cli.figures(path)
    assert found["usd"] == 4.0625
    assert found["n_latents"] == 3
    assert found["explain/m/Azure/usd_per_latent"] == 0.75
    assert found["explain/n/-/n_calls"] == 1
    assert (found["n_unanswered"], found["usd_unanswered"], found["usd_risked"]) == (2, 0.25, 0.75)
    assert all(isinstance(value, int | float) for value in found.values())


def test_the_fields_of_a_row_have_the_types_they_promise(path):
    row = next(report.rows(path))
    assert isinstance(row, Row)
    assert [type(value) for value in row] == [str, str, str, str, str, int, int, float, str]
