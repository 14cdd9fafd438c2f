"""An SAE and a store -> a refusal where they are not of the same embeddings."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from sae.core.clip_name import is_adapted_from, without_place
from sae.core.errors import Notice, UserError
from sae.model.sae import SAEConfig

if TYPE_CHECKING:
    from sae.data.store_format import StoreInfo


def require_match(config: SAEConfig, info: StoreInfo) -> None:
    """Raise `UserError` when the SAE does not fit the store: other width, CLIP, layer or length.

    The choice of tokens may differ: an SAE trained on all tokens may look at patches only. Only
    warned of is a CLIP that was adapted from the SAE's; and of an imported SAE, whose files or
    registry may be mistaken, all but the width.
    """
    for name in ("d", "clip", "layer"):
        ours, theirs = getattr(config, name), getattr(info, name)
        # An SAE that was published names a CLIP of a local folder without the folder's place.
        published = without_place(theirs) if name == "clip" else theirs
        if theirs != "" and ours not in ("", theirs, published):
            if name == "clip" and is_adapted_from(theirs, ours):
                warnings.warn(
                    f"the SAE was trained on clip {ours!r}, and sees what was made of it, "
                    f"{theirs!r}: its latents may mean something else there",
                    Notice,
                    stacklevel=2,
                )
                continue
            _refuse(
                config,
                name,
                f"the SAE was trained on {name} {ours!r}, but the store has {name} {theirs!r}; "
                "use the store that it was trained on, or embed again with those settings",
            )
    # Before `rows` was written down all rows were raw.
    rows = config.rows or ("raw" if config.store and config.clip else "")
    if "" not in (rows, info.rows) and rows != info.rows:
        how = "--normalise" if rows == "unit" else "no --normalise"
        _refuse(
            config,
            "rows",
            f"the SAE was trained on {rows} rows, but the store has {info.rows} ones; use the "
            f"store that it was trained on, or embed again with {how}",
        )


def _refuse(config: SAEConfig, name: str, why: str) -> None:
    """Raise, or warn where it is other people's word that stands against the store."""
    if config.source and name != "d":
        warnings.warn(f"{why}; its FVU tells whether that is so", Notice, stacklevel=3)
    else:
        raise UserError(why)
