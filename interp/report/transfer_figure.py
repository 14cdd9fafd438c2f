"""transfer.csv of a run -> its figure: which labels hold in the other domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interp.records.transfer import CLASSES, HOLDS_ABOVE
from interp.run.transfer_file import read_transfer
from sae.core.errors import UserError, quote
from sae.evaluation.plots import plot_crossing

FILE = "transfer.png"


def draw_transfer(run_dir: Path) -> Path:
    """Write transfer.png beside transfer.csv. Raises `UserError` where that is missing."""
    found = list(read_transfer(run_dir).values())
    if not found:
        raise UserError(
            f"{run_dir} has no transfer.csv; run `interp transfer --run {quote(run_dir)}`"
        )
    groups = {}
    for kind in CLASSES:
        of_kind = [one for one in found if one.kind == kind]
        areas = [[one.cells[1].auroc, one.cells[2].auroc] for one in of_kind]
        groups[f"{kind} ({len(of_kind)})"] = np.array(areas, float).reshape(-1, 2)
    n_drawn = sum(int(np.isfinite(areas).all(1).sum()) for areas in groups.values())
    subtitle = f"{n_drawn} of {len(found)} latents; the others were active in one domain only"
    if n_drawn + sum(one.why == "rate" for one in found) < len(found):
        subtitle = f"{n_drawn} of {len(found)} latents, those with both scores"
    path = run_dir / FILE
    plot_crossing(path, groups, (found[0].domain_a, found[0].domain_b), HOLDS_ABOVE, subtitle)
    return path
