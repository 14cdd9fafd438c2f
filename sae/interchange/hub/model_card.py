"""README.md of an SAE on the hub: what it is, where it looks, how to load it, how good it is."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sae.clip.names import BUILT_IN, RANDOM, resolve_name
from sae.core.clip_name import FILE, is_private, split_adapter
from sae.core.errors import UserError
from sae.interchange.hub.labels import SCORES_TABLE, describe
from sae.interchange.hub.parcel import CARD, LABELS, Parcel
from sae.interchange.hub.scrub import cut_places, require_no_key
from sae.model.sae import SAEConfig

TAGS = ("sparse-autoencoder", "clip", "open_clip", "interpretability")
LIBRARY = "sae-interp"

_FIGURES = {
    "fvu": "Fraction of variance unexplained (0 is perfect, 1 is the mean)",
    "r2": "1 - FVU",
    "cosine": "Cosine of embedding and reconstruction",
    "l0": "Active latents per token",
    "dead": "Share of latents that fire on no token",
    "almost_dead": "Share of latents that fire on at most 1 in 10,000 tokens",
    "dense": "Share of latents that fire on over a tenth of the tokens",
    "zeroshot_raw_top1": "Zero-shot accuracy of CLIP alone",
    "zeroshot_sae_top1": "Zero-shot accuracy with the SAE's reconstruction",
    "n_images": "Held-out images",
}
_IN_INDEX = ("fvu", "l0", "dead", "zeroshot_raw_top1", "zeroshot_sae_top1")
_RULES = {
    "topk": "TopK: the {k} largest pre-activations of a token, as far as they are positive",
    "signed_topk": "signed TopK: the {k} largest pre-activations of a token, whatever their sign",
    "batch_topk": "BatchTopK: {k} latents per token on average, by one learned threshold",
    "jumprelu": "JumpReLU: every latent above its own learned threshold",
    "relu": "ReLU: every latent above 0",
    "abs_topk": "AbsTopK: the {k} pre-activations of largest size of a token, with their signs",
    "group_max": "GroupMax: the largest positive pre-activation of each of {k} groups of latents",
    "dense_gelu": "GELU: every latent",
    "dense_softplus": "softplus: every latent",
}
_TOKENS = {
    "cls": "the class token",
    "patch": "the patch tokens, each one by itself",
    "all": "the class token and the patch tokens, each one by itself",
}
_INPUT_NORMS = {
    "layer_norm": "each embedding is freed of its own mean and divided by its own deviation",
    "constant_norm": "each embedding is brought to the length sqrt(d)",
    "centred_layer_norm": "after mean and scale, each embedding is freed of its own mean and "
    "divided by its own deviation",
}


@dataclass(frozen=True)
class CardSettings:
    """What the files cannot tell."""

    repo: str
    """owner/name"""
    license: str = ""
    """Identifier of the hub's list: "mit", "cc-by-4.0"; "": none is given."""
    datasets: tuple[str, ...] = ()
    """Ids of the hub's datasets that the images are from."""


def model_card(parcel: Parcel, settings: CardSettings) -> str:
    """The whole of README.md: YAML front matter, then Markdown.

    Raises `UserError` when a name in it holds an access key.
    """
    text = f"---\n{_front_matter(parcel, settings)}\n---\n\n{_body(parcel, settings)}"
    require_no_key(text, CARD)
    return cut_places(text).text  # a domain of eval.json may be named after a folder


def base_model(clip: str) -> str:
    """The hub's id of a CLIP by our name for it; "" for one that is not on the hub."""
    clip, _ = split_adapter(clip)
    kind, _, place = clip.partition(":")
    if FILE in clip:
        return ""
    if kind in ("hf-hub", "local-dir"):
        return "/".join(place.split("@")[0].split("/")[:2]) if kind == "hf-hub" else ""
    if clip in ("", *BUILT_IN):
        return ""
    try:
        request = resolve_name(clip)
    except UserError:  # named by another library
        return ""
    if request.tag in (None, RANDOM):
        return ""
    known: dict[str, Any] = importlib.import_module("open_clip").get_pretrained_cfg(
        request.model, request.tag
    )
    owner_and_name = str(known.get("hf_hub", "")).split("/")[:2]
    return "/".join(owner_and_name) if len(owner_and_name) == 2 else ""


def _front_matter(parcel: Parcel, settings: CardSettings) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Reconstruction of CLIP embeddings",
            dataset_type=settings.datasets[0] if settings.datasets else "imagefolder",
            dataset_name=f"held-out images ({domain})" if domain else "held-out images",
            dataset_config=domain or None,  # by which, not by its name, results are grouped
            metric_type=name,
            metric_name=_FIGURES[name],
            metric_value=_rounded(parcel.figures[key]),
        )
        for domain in ("", *_domains(parcel))
        for name in _IN_INDEX
        if (key := _key(domain, name)) in parcel.figures
    ]
    data = ModelCardData(
        license=settings.license or None,
        library_name=LIBRARY,
        tags=list(TAGS),
        base_model=base_model(parcel.config.clip) or None,
        datasets=list(settings.datasets) or None,
        model_name=settings.repo.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    text: str = data.to_yaml()
    return text.strip()


def _body(parcel: Parcel, settings: CardSettings) -> str:
    c = parcel.config
    parts = [
        f"# {settings.repo.rpartition('/')[2]}",
        f"A sparse autoencoder (SAE) on CLIP embeddings: {c.n_latents:,} latents over {c.d} "
        f"dimensions. Each latent is a direction of the embedding space that is meant to stand for "
        "one thing in the images.",
        "## What it looks at\n\n" + _bullets(_origin(parcel)),
        "## How to load it\n\n" + _loading(parcel, settings.repo),
        "## How good it is\n\n" + _figures(parcel),
    ]
    if parcel.n_labels is not None:
        parts.append("## What the latents mean\n\n" + _labels(parcel, settings.repo))
    licence = settings.license or "None was given: ask the owner of this repository before use."
    parts.append(f"## Licence\n\n{licence}")
    return "\n\n".join(parts) + "\n"


def _origin(parcel: Parcel) -> list[str]:
    c = parcel.config
    hook = {"projected": "the projected image embedding", "": "not known"}.get(
        c.layer, f"the output of transformer block {c.layer} (the first is 0)"
    )
    lines = [
        f"CLIP: {_clip(c.clip)}",
        f"Hook point: {hook}",
        f"Tokens: {_tokens(c)}",
        "Preprocessing: the CLIP's own transform; embeddings go in "
        + ("at length 1" if c.rows == "unit" else "raw, neither of unit length nor centred"),
        f"Mean and scale: {_centring(parcel)}",
        f"Rule: {_RULES[c.activation].format(k=c.k)}",
    ]
    if c.input_norm:
        lines.append(f"Normalisation of the input: {_INPUT_NORMS.get(c.input_norm, c.input_norm)}")
    if c.soft_cap:
        lines.append(f"Soft cap: activations a become {c.soft_cap:g} tanh(a / {c.soft_cap:g})")
    if c.prefixes:
        lines.append(f"Matryoshka: the first {', '.join(map(str, c.prefixes))} are SAEs themselves")
    if c.source:
        lines.append(f"Imported from: {c.source}")
    else:
        lines.append(f"Held out from training: {c.holdout:.0%} of the images; seed {c.seed}")
    return lines


def _clip(name: str) -> str:
    if not name:
        return "not known"
    place = "built into sae-interp" if name in BUILT_IN else "by its name in open_clip"
    return f"`{name}`, " + ("of its owner's own" if is_private(name) else place)


def _tokens(c: SAEConfig) -> str:
    if c.layer == "projected":
        return "one embedding per image"
    return _TOKENS.get(c.tokens, "not known")


def _centring(parcel: Parcel) -> str:
    if parcel.scale is None:
        return "none: the SAE takes embeddings as they are"
    return (
        f"inside the SAE (buffers `mean` and `scale` = {parcel.scale:.6g} of sae.safetensors), "
        "taken out of what goes in and put back into what comes out"
    )


def _loading(parcel: Parcel, repo: str) -> str:
    return (
        f"```bash\nsae pull {repo} --out DIR\n```\n\n"
        "```python\n"
        "import sae\n\n"
        'model = sae.load("DIR")\n'
        f"codes = model.encode(x)                  # x (n, {parcel.config.d}): raw embeddings\n"
        f"dense = codes.dense(model.n_latents)     # (n, {parcel.config.n_latents})\n"
        "x_hat = model(x).x_hat                   # in the scale of x\n"
        "```\n\n"
        "`config.json` holds the settings, `sae.safetensors` the weights: `W_enc` and `W_dec` "
        "(n_latents, d), `b_enc`, `b_dec`, `mean` and `scale`."
    )


def _figures(parcel: Parcel) -> str:
    rows = [name for name in _FIGURES if name in parcel.figures]
    if not rows:
        return "Not measured: `sae eval DIR STORE` does it."
    domains = _domains(parcel)
    lines = [f"| | all | {' | '.join(domains)} |".replace(" |  |", " |")]
    lines.append("|---|" + "---|" * (1 + len(domains)))
    for name in rows:
        cells = [_cell(parcel.figures.get(_key(domain, name))) for domain in ("", *domains)]
        lines.append(f"| {_FIGURES[name]} | {' | '.join(cells)} |")
    return "On images that training has not seen:\n\n" + "\n".join(lines)


def _labels(parcel: Parcel, repo: str) -> str:
    text = f"`{LABELS}` names {parcel.n_labels:,} of the {parcel.config.n_latents:,} latents"
    text += ", with a score on unseen images where there is one."
    if any(item.name == "gallery/index.html" for item in parcel.items):
        text += " `gallery/index.html` shows them; download the folder and open it in a browser."
    if parcel.labels is not None:
        has_scores = any(item.name == SCORES_TABLE for item in parcel.items)
        text += f"\n\n{describe(parcel.labels, repo, has_scores)}"
    return text


def _domains(parcel: Parcel) -> list[str]:
    """In the order of the report: "sketch/fvu" tells of a domain "sketch"."""
    named = [key.rpartition("/")[0] for key in parcel.figures if key.endswith("/fvu")]
    return list(dict.fromkeys(named))


def _key(domain: str, name: str) -> str:
    return f"{domain}/{name}" if domain else name


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}." for line in lines)
