"""The sizes of a small pass over a synthetic store."""

from __future__ import annotations

from interp.evidence.config import CollectConfig

N = 900
SMALL = CollectConfig(n_top=5, n_sample=15, n_silent=8, n_hard=6, n_neighbours=4, reservoir=120)
