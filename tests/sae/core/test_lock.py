"""The lock of a folder: one process, or the processes of one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae.core.errors import UserError
from sae.core.lock import hold, join


def test_another_job_is_refused_until_the_last_process_of_the_first_has_gone(
    tmp_path: Path,
) -> None:
    first = hold(tmp_path / ".lock")
    with pytest.raises(UserError, match="is working on"):
        join(tmp_path / ".lock")  # nobody was let in yet
    first.share()
    second = join(tmp_path / ".lock")
    for lock in (first, second):
        with pytest.raises(UserError, match=r"process \d+ is working on"):
            hold(tmp_path / ".lock")
        lock.close()
    assert not list(tmp_path.iterdir())
    hold(tmp_path / ".lock").close()
