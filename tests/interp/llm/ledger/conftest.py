"""A fresh ledger."""

import pytest

from interp.llm.ledger.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.sqlite") as opened:
        yield opened
