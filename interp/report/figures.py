"""Numbers -> how gallery and sheets show them: dom.js and Python round alike, to the last digit."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal


def number(value: float, digits: int = 4) -> float | None:
    """Rounded to significant digits, to keep the gallery's files small; None for NaN."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def whole(grade: float) -> int:
    """A judge's answer, 0 to 100, cut to a whole number: what is under 50 never reads 50."""
    return math.floor(grade)


def fixed(value: float) -> str:
    """Two decimals, as `G.fixed`; "–" for NaN."""
    kept = number(value)
    return "–" if kept is None else str(_rounded(kept, -2))


def percent(share: float) -> str:
    """A share as per cent, with two significant digits where it is small, as `G.percent`."""
    kept = 100 * (number(share) or 0.0)
    if kept == 0 or kept >= 9.95:
        return f"{_rounded(kept, 0)}%"
    if kept < 0.001:
        return "<0.001%"
    return f"{float(_significant(kept, 2)):.15g}%"


def act(value: float) -> str:
    """An activation with three significant digits, as `G.act`."""
    kept = number(value)
    if kept is None:
        return "–"
    if kept == 0 or abs(kept) >= 999.5:
        return f"{_rounded(kept, 0):,}"
    return f"{_significant(kept, 3):f}"


def _significant(value: float, digits: int) -> Decimal:
    place = Decimal(value).adjusted() - digits + 1
    rounded = _rounded(value, place)
    return rounded if rounded.adjusted() == place + digits - 1 else _rounded(value, place + 1)


def _rounded(value: float, place: int) -> Decimal:
    """To a power of ten; exact halves away from 0, as JavaScript does, not to even as Python."""
    return Decimal(value).quantize(Decimal(1).scaleb(place), ROUND_HALF_UP)
