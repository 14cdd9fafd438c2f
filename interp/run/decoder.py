"""The run's own copy of its SAE -> the direction that each latent writes; numpy, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sae.core.errors import UserError, quote

if TYPE_CHECKING:
    from interp.run.run import Run

WEIGHTS, DECODER = "sae.safetensors", "W_dec"


def read_decoder(run: Run) -> NDArray[np.float32] | None:
    """(n_latents, d), a row a latent; None where the run has no SAE of ours beside its evidence.

    Raises `UserError` where the file is damaged or of another number of latents.
    """
    from safetensors import SafetensorError, safe_open

    path, n_latents = run.sae / WEIGHTS, run.evidence.info.n_latents
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            if DECODER not in file.keys():  # noqa: SIM118 (no mapping: it has no __contains__)
                return None
            rows = np.asarray(file.get_tensor(DECODER), np.float32)
    except (SafetensorError, OSError, TypeError) as error:
        raise _damaged(path, str(error)) from None
    if rows.ndim != 2 or len(rows) != n_latents:
        raise _damaged(path, f"{DECODER} has shape {rows.shape}, the run {n_latents} latents")
    if not np.isfinite(rows).all():
        raise _damaged(path, f"{DECODER} has values that are no numbers")
    return rows


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged ({why}); copy the SAE that was collected there again, "
        f"or remove {quote(path)}: the gallery then has neither map nor decoder cosines"
    )
