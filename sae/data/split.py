"""An image id -> a fraction, and which images are held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def holdout_rows(images: pd.DataFrame, holdout: float, start: float = 0.0) -> NDArray[np.bool_]:
    """Which rows of a store are held out: a mask (n_images,), decided by each image's content.

    Of these, with `start`, only those from that share on.
    """
    shares = (fraction(image_id, "holdout") for image_id in images["image_id"])
    found = np.fromiter(shares, dtype=np.float64, count=len(images))
    return (start <= found) & (found < holdout)


def fraction(image_id: str, use: Literal["split", "holdout"]) -> float:
    """A number in [0, 1) from the content hash itself; the two uses are independent."""
    digits = image_id[0:8] if use == "split" else image_id[8:16]
    return int(digits, 16) / 2**32
