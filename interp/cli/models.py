"""The table of `interp models`: which models can look at pictures, and what a latent costs."""

from __future__ import annotations

from interp.llm.cost.image_tokens import family_of
from interp.llm.cost.model_list import Listing, ModelInfo
from interp.llm.cost.price import MILLION
from interp.llm.cost.tokens import EXPLAIN_ANSWER, LETTER_ANSWER, picture_tokens
from sae.cli import console

_EXPLAIN = (896, 672)
"""Pixels of the explainer's grids; two of them, with the silent images."""
_JUDGE = (1120, 448)
"""Of a judge's grid of ten images; four of them."""
_EXPLAIN_TEXT, _JUDGE_TEXT = 1200, 420
"""Tokens with the schema, as measured on our prompts by o200k_base (1,182 and 394) and a little
more for other tokenizers."""


def choose_models(
    listing: Listing, contains: str = "", all_models: bool = False
) -> list[ModelInfo]:
    """Whose id or name holds `contains`, cheapest latent first, those without a price last.

    Models that are known to see no images are left out, unless `all_models`.
    """
    wanted = contains.lower()
    found = [
        info
        for info in listing.models
        if (all_models or info.sees_images is not False)
        and wanted in f"{info.id}\n{info.name}".lower()
    ]
    return sorted(found, key=_rank)


def latent_usd(info: ModelInfo) -> float | None:
    """What one latent costs, explained and judged on 40 images, without reasoning; None without a
    price."""
    if info.price is None:
        return None
    always = family_of(info.id).per_call
    explain = always + _EXPLAIN_TEXT + 2 * picture_tokens(info.id, _EXPLAIN)
    judge = always + _JUDGE_TEXT + picture_tokens(info.id, _JUDGE)
    explained = info.price.of(explain, EXPLAIN_ANSWER, 2)
    return explained + 4 * info.price.of(judge, 10 * LETTER_ANSWER, 1)


def print_models(listing: Listing, contains: str = "", all_models: bool = False) -> None:
    """The table, and how old it is."""
    found = choose_models(listing, contains, all_models)
    kind = "models" if all_models else "models that see images"
    if not found:
        about = f" with {contains!r} in their name" if contains else ""
        console.say(f"no {kind}{about} among {len(listing.models)}; --all lists the others too")
        return
    header = ("model", "$ in/M", "$ out/M", "$ per 1,000 latents", "context", "JSON", "images")
    console.print_table([_row(info) for info in found], header)
    console.say(f"{len(found)} of {len(listing.models)} models; listed {listing.fetched:%F %R} UTC")


def figures(
    listing: Listing, contains: str = "", all_models: bool = False
) -> dict[str, float | int | str | bool | None]:
    """What the table holds as one flat object, keyed ID/FIELD; null for what is not known."""
    found: dict[str, float | int | str | bool | None] = {"fetched": listing.fetched.isoformat()}
    for info in choose_models(listing, contains, all_models):
        price = info.price
        found |= {
            f"{info.id}/usd_per_million_in": None if price is None else price.prompt * MILLION,
            f"{info.id}/usd_per_million_out": None if price is None else price.completion * MILLION,
            f"{info.id}/usd_per_latent": latent_usd(info),
            f"{info.id}/context": info.context,
            f"{info.id}/structured": info.structured,
            f"{info.id}/sees_images": info.sees_images,
        }
    return found


def _rank(info: ModelInfo) -> tuple[bool, float, str]:
    usd = latent_usd(info)
    return usd is None, usd or 0.0, info.id


def _row(info: ModelInfo) -> tuple[str, ...]:
    usd = latent_usd(info)
    return (
        info.id,
        "?" if info.price is None else f"{info.price.prompt * MILLION:.2f}",
        "?" if info.price is None else f"{info.price.completion * MILLION:.2f}",
        "?" if usd is None else f"{1000 * usd:.2f}",
        "?" if info.context is None else f"{info.context:,}",
        info.structured or "?",
        {True: "yes", False: "no", None: "?"}[info.sees_images],
    )
