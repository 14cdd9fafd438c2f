"""Libraries whose warnings are not shown, in several threads."""

from __future__ import annotations

import warnings

from sae.core.errors import Notice
from sae.core.quiet import quiet


def test_two_that_overlap_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    quiet.__enter__()  # one thread
    quiet.__enter__()  # another one
    quiet.__exit__()
    assert warnings.filters != before
    quiet.__exit__()
    assert warnings.filters == before


def test_libraries_are_silent_inside_and_we_are_not() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quiet:
            warnings.warn("theirs", UserWarning, stacklevel=1)
            warnings.warn("ours", Notice, stacklevel=1)
    assert [str(one.message) for one in shown] == ["ours"]
