"""The steps of `interp run` by name, in their order."""

from __future__ import annotations

EMBED, TRAIN, IMPORT, EVAL, COLLECT = "embed", "train", "import", "eval", "collect"
EXPLAIN, SCORE, CAUSAL, TRANSFER, CARDS = "explain", "score", "causal", "transfer", "cards"
ORDER = (EMBED, TRAIN, IMPORT, EVAL, COLLECT, EXPLAIN, SCORE, CAUSAL, TRANSFER, CARDS)
"""Of all steps; a run trains an SAE or imports one."""
TABLES = (EMBED, TRAIN, EVAL, COLLECT, EXPLAIN, SCORE)
"""Steps with a table `[run.STEP]` in a settings file: what is of that step alone."""
AUTO, NONE = "auto", "none"
