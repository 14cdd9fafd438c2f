"""An SAE, its store and what a user said -> the network that it belongs into, checked."""

from __future__ import annotations

from collections.abc import Sequence

from sae.clip.model import Clip, load_clip
from sae.clip.store_images import require_same_weights
from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.data.classes.names import class_names
from sae.data.store import EmbeddingStore
from sae.evaluation.zeroshot import TEMPLATES
from sae.model.match import require_match
from sae.model.sae import SAE, SAEConfig
from sae.steering.edit.config import EditConfig
from sae.steering.edit.run import Setting
from sae.steering.probe import load_probe, require_fits


def make_setting(
    model: SAE,
    store: EmbeddingStore | None,
    said: EditConfig,
    device: str,
) -> Setting:
    """The network and the heads.

    Raises `UserError` where SAE, store and words contradict each other or leave something open, for
    fewer than two classes, and for a probe of another CLIP.
    """
    if store is not None:
        require_match(model.config, store.info)
    names: Sequence[str] = said.classes
    clip = load_clip(_find("clip", model.config, store, said.clip), device)
    layer = _find_layer(model.config, store, said.layer, clip)
    tokens = said.tokens or model.config.tokens or (store.info.tokens if store else "")
    if not tokens:
        raise _open_question("tokens")
    if store is not None:
        require_same_weights(clip, store)
        names = names or class_names(store.images["label"].unique())
    clip.tokens_per_image(layer, tokens)
    if clip.width(layer) != model.d:
        raise UserError(
            f"the SAE has width {model.d}, but {clip.name} has {clip.width(layer)} at layer {layer}"
        )
    head = load_probe(said.probe, names) if said.probe else None
    if head is not None and said.probe is not None:
        require_fits(head, clip, said.probe)
        names = names or (head.classes if head.info else ())
        if layer == "projected":
            raise UserError(
                "--probe reads what CLIP pools before the projection, which an edit of the layer "
                "'projected' comes after; leave it out"
            )
    if len(set(names)) < 2:
        raise UserError(
            f"zero-shot needs two classes or more, not {len(set(names))}; give --store STORE, of "
            "images in folders named after their classes, or --names cat,dog"
        )
    unique = tuple(dict.fromkeys(names))
    templates = tuple(said.template or TEMPLATES["1"])
    return Setting(model, clip, layer, tokens, unique, templates, head)


def _find(name: str, config: SAEConfig, store: EmbeddingStore | None, said: str) -> str:
    """What the user, the store or the SAE says, in this order."""
    ours: str = getattr(config, name)
    found: str = said or (getattr(store.info, name) if store else "") or ours
    if not found:
        raise _open_question(name)
    if ours not in ("", found, without_place(found)):
        raise UserError(f"the SAE was trained on {name} {ours!r}, not on {found!r}")
    return found


def _find_layer(config: SAEConfig, store: EmbeddingStore | None, said: str, clip: Clip) -> str:
    return _find("layer", config, store, clip.resolve_layer(said) if said else "")


def _open_question(name: str) -> UserError:
    return UserError(
        f"the SAE does not say of which {name} it is; give --{name}, or --store, the store that it "
        "was trained on"
    )
