"""Signals to stop are noted, and work ends at a moment that suits."""

from __future__ import annotations

import os
import signal

import pytest

from sae.core.interrupts import catch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_of_either_kind_is_noted_and_the_next_acts(
    number: signal.Signals,
) -> None:
    def act(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(number, act)
    try:
        with catch_signals() as is_stopped:
            assert not is_stopped()
            os.kill(os.getpid(), number)
            assert is_stopped()
            with pytest.raises(TimeoutError):
                os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)
