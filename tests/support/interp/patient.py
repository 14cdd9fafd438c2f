"""`python -m tests.support.interp.patient ...`: `interp ...` with time to end on a busy machine."""

from __future__ import annotations

import sys

from interp.cli.app import main
from interp.llm.scheduler import run_all


def give_time_to_end(seconds: float = 60.0) -> None:
    """A run that is stopped waits for what is in flight for this long, and not for a second."""
    assert run_all.__defaults__ is not None
    run_all.__defaults__ = (*run_all.__defaults__[:-1], seconds)


if __name__ == "__main__":
    give_time_to_end()
    sys.exit(main())
