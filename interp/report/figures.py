"""Numbers -> how gallery and sheets show them: dom.js and Python round alike, to the last digit."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def number(value: float, digits: int = 4) -> float | None:
    """Rounded to significant digits, to keep the gallery's files small; None for NaN."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def numbers(values: NDArray[np.floating[Any]], digits: int = 4) -> list[float | None]:
    """`number` of each, in a fraction of the time."""
    import numpy as np

    exact = np.asarray(values, np.float64)
    size = np.abs(exact)
    plain = (size >= _LEAST) & (size < _MOST)  # of those powers of ten are exact
    size = np.where(plain, size, 1.0)
    place = digits - 1 - np.floor(np.log10(size)).astype(int)
    up, down = 10.0 ** np.maximum(place, 0), 10.0 ** np.maximum(-place, 0)
    scaled = size * up / down
    kept = np.rint(scaled)
    # Beside a half, or where the logarithm was off by one, it is asked of the text.
    plain &= np.abs(np.abs(scaled - kept) - 0.5) > 1e-6
    plain &= (kept >= 10 ** (digits - 1)) & (kept <= 10**digits)
    found: list[float | None] = np.copysign(kept * down / up, exact).tolist()
    zero = exact == 0
    for at in np.flatnonzero(zero).tolist():
        found[at] = float(exact[at])
    for at in np.flatnonzero(~plain & ~zero).tolist():
        found[at] = number(float(exact[at]), digits)
    return found


_LEAST, _MOST = 1e-15, 1e15


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
