"""A path or a place on the hub -> an SAE folder of ours, and what should be known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sae.core.errors import UserError

if TYPE_CHECKING:
    from interp.pipeline.workflow.settings import Settings
    from sae.data.store import EmbeddingStore
    from sae.interchange.origin import Origin
    from sae.model.sae import SAE


def bring_sae(
    source: str,
    out: Path,
    store: EmbeddingStore,
    registry: Path | None = None,
    origin: Origin | None = None,
) -> tuple[SAE, tuple[str, ...]]:
    """The SAE in `out`, brought there from `source` where it is not there yet.

    Ours is copied or pulled; another lab's is read as data, and `store` gives what its file lacks.
    `origin`: where it was trained, as far as that is known; its own config.json then tells that.
    Raises `UserError` where another SAE is in `out`, or the source is none.
    """
    from sae.interchange import import_sae
    from sae.interchange.export import replacing_sae
    from sae.interchange.hub.push_pull import pull
    from sae.interchange.locate import find, hub_place
    from sae.interchange.origin import NAMES
    from sae.model.identity import sae_identity
    from sae.model.sae import SAE, is_ours

    place = hub_place(source)
    if is_ours(out):
        model = SAE.load(out)
        is_other = place is None and is_ours(Path(source))
        if is_other and sae_identity(SAE.load(source)) != sae_identity(model):
            raise UserError(f"{out} is another SAE than {source}; add --overwrite to take it")
        return model, ()
    here = find(source)
    if not is_ours(here):
        named = {} if origin is None else {name: origin[name] for name in NAMES}
        if named.get("layer", "").startswith("-"):  # the store's model knows which block that is
            named["layer"] = store.info.layer
        imported = import_sae(here, out, store.path, registry=registry, named=named)
        fvu = "" if imported.fvu is None else f"; FVU {imported.fvu:.3f} on {store.path}"
        maths = f"{imported.format}: {imported.maths.line()}{fvu}"
        return imported.model, (maths, *imported.notes)
    if place is not None:
        return pull(place.repo, out, place.revision).model, ()
    model = SAE.load(here)
    with replacing_sae(out) as part:
        model.save(part)
    return model, ()


def find_misfit(settings: Settings) -> str:
    """Why the SAE cannot be for the embeddings that would be made; "" where it may be.

    Their width is known before any image is embedded.
    """
    from sae.clip.ahead import shape_ahead

    d, source = settings.looked.d if settings.looked else 0, settings.source
    shape = shape_ahead(source) if d else None
    if shape is None or shape.d == d:
        return ""
    return (
        f"{settings.sae} is for embeddings of width {d}, and layer {source.layer} of "
        f"{source.clip} has {shape.d}: it was trained on another CLIP or layer; name them with "
        "--clip and --layer"
    )
