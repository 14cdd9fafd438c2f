"""Answers without an end take little memory of the client, however they are packed."""

import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.servers.raw import ENDLESS, gzip_answer, raw

FREE = 40_000_000
"""Bytes by which the client may grow: five copies of the 8 MB that a body may have."""
MEASURE = """
import asyncio, sys
from pathlib import Path
from interp.llm.cost.model_list import fetch_models
from interp.llm.ledger.ledger import Ledger
from interp.llm.types import ReplyError
from sae.core.errors import UserError
from tests.support.servers.client_questions import ask
def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
class At:
    pass
with Ledger(Path(sys.argv[1]) / "calls.sqlite") as ledger:
    At.base_url = sys.argv[2]
    ask(At, ledger)
    for url in sys.argv[3:]:
        At.base_url = url
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = memory("VmRSS")
        asked = lambda: ask(At, ledger, n_tries=2, deadline=6)
        for what in (asked, lambda: fetch_models(url, None)):
            try:
                what()
                end = "read"
            except (UserError, ReplyError) as error:
                end = str(error)
            print(memory("VmHWM") - start, end.replace(chr(10), "|"))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is told by Linux")
@pytest.mark.parametrize("send", ENDLESS)
def test_an_answer_without_an_end_takes_little_memory(tmp_path, send):
    with raw(gzip_answer) as good, raw(send) as bad:
        words = [sys.executable, "-c", MEASURE, tmp_path, good.base_url, bad.base_url]
        told = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line.partition(" ") for line in told.splitlines()]
    print(send.__name__, lines)
    assert len(lines) == 2
    for grown, _, end in lines:
        assert end != "read"
        assert int(grown) < FREE, end
