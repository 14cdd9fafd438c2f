"""A fake server that looks at pixels, and a fresh ledger."""

import pytest

from interp.llm.ledger.ledger import Ledger
from tests.support.servers.loopback import Loopback


@pytest.fixture
def server():
    with Loopback() as running:
        yield running


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened
