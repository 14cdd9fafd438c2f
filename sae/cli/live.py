"""Images named in place of a store -> a store whose embeddings are computed when asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.clip.config import SourceConfig
from sae.core.errors import UserError
from sae.core.progress import bar
from sae.data.sources.folders import FolderConfig
from sae.training.config import TrainConfig

if TYPE_CHECKING:
    from sae.clip.live_store import LiveStore
    from sae.data.store import EmbeddingStore
    from sae.model.sae import SAEConfig

_PANEL = "On the fly"


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """Images by domain in place of a store: they go through CLIP, and no embedding is kept."""

    domain: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR in place of a store: images go through CLIP, and no embedding is kept. "
            "More may follow: sketch=DIR photo=DIR.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    clip: Annotated[
        str,
        typer.Option(help="As for sae embed; default: the SAE's, or tiny.", rich_help_panel=_PANEL),
    ] = ""
    layer: Annotated[
        str,
        typer.Option(
            help="A block or projected; default: the SAE's, or projected.", rich_help_panel=_PANEL
        ),
    ] = ""
    tokens: Annotated[
        str,
        typer.Option(help="cls, patch or all; default: the SAE's, or cls.", rich_help_panel=_PANEL),
    ] = ""
    normalise: Annotated[
        bool,
        typer.Option(
            "--normalise",
            help="Bring each embedding to length 1; default: as the SAE was trained.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    dtype: Annotated[
        str,
        typer.Option(
            help="What embeddings are rounded to: float16 (default) or float32.",
            rich_help_panel=_PANEL,
        ),
    ] = ""
    workers: Annotated[
        int,
        typer.Option(
            help="Decoding processes; -1: up to 8, 0: none.", min=-1, rich_help_panel=_PANEL
        ),
    ] = -1

    def source(self, trained: SAEConfig | None) -> SourceConfig:
        """What was not said is that of the SAE, else `SourceConfig`'s default."""
        names = ("clip", "layer", "tokens", "dtype")
        said = {n: getattr(self, n) or getattr(trained, n, "") for n in names}
        unit = self.normalise or getattr(trained, "rows", "") == "unit"
        return SourceConfig(
            normalise=unit, workers=self.workers, **{n: v for n, v in said.items() if v}
        )

    def require_unused(self) -> None:
        """Raise `UserError` for a setting that a store has decided already."""
        for name in ("clip", "layer", "tokens", "normalise", "dtype"):
            if getattr(self, name):
                raise UserError(f"--{name} goes with --domain; a store has its own {name}")


@dataclass(frozen=True, kw_only=True)
class RingConfig(LiveConfig):
    """The same for a training, which holds some tokens to mix them."""

    buffer_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens in memory: half of them are mixed with one another while the other half "
            "is filled.",
            min=2,
            rich_help_panel=_PANEL,
        ),
    ] = 262144


StoreArgument = Annotated[
    Path | None,
    typer.Argument(help="EmbeddingStore; or --domain in its place.", show_default=False),
]


DomainArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=DIR]...", help="Further words of --domain.", show_default=False),
]


def sort_words(
    store: Path | None,
    more: Sequence[str],
    domain: Sequence[str] | None,
    sweep: Sequence[str] | None = None,
) -> tuple[Path | None, list[str], list[str]]:
    """The store, the words of `--domain` and those of `--sweep`, of what stands on the line.

    Further words of both stand where a store would, and behind it. Raises `UserError` for one that
    belongs to neither, and where both a store and images are named.
    """
    words, settings = list(more), {field.name for field in fields(TrainConfig)}
    if domain and store is not None:
        words.insert(0, str(store))
        store = None
    variants = [w for w in words if sweep and (not domain or w.partition("=")[0] in settings)]
    domains = [word for word in words if domain and word not in variants]
    for word in words if not (domain or sweep) else [w for w in domains if "=" not in w]:
        raise UserError(
            f"{word} is a store, and --domain stands in its place: take one of them"
            if domain
            else f"unexpected argument {word!r}; such words follow --domain or --sweep"
        )
    return store, [*(domain or []), *domains], [*(sweep or []), *variants]


@contextmanager
def open_embeddings(
    store: Path | None,
    domains: Sequence[str],
    live: LiveConfig,
    folders: FolderConfig,
    device: str,
    trained: SAEConfig | None = None,
    keep_at: Path | None = None,
) -> Iterator[EmbeddingStore]:
    """The store that was named, or, of images in `domains`, one that computes its embeddings.

    What `live` leaves open is as the SAE was trained. The list of images goes to `keep_at`, for
    commands that show them later, or is thrown away at the end.
    """
    from sae.clip.live_store import with_embeddings
    from sae.data.store import EmbeddingStore

    if not domains:
        live.require_unused()
        if store is None:
            raise UserError("name a store, or images in its place: --domain photo=DIR")
        opened = with_embeddings(EmbeddingStore.open(store), device)
        yield opened
        opened.report()
        return
    from sae.data.roots import remember

    with ExitStack() as held:
        place = keep_at or Path(held.enter_context(tempfile.TemporaryDirectory()))
        opened = _list_images(place, domains, live.source(trained), folders, device)
        if keep_at is not None:
            remember(opened.info, folders.follow_links)
        yield opened
        opened.report()


def _list_images(
    place: Path, words: Sequence[str], source: SourceConfig, folders: FolderConfig, device: str
) -> LiveStore:
    """Read all images' headers once, for which they are; the rest is computed when asked for."""
    from sae.clip.embed import embed
    from sae.clip.live_store import LiveStore
    from sae.clip.model import load_clip
    from sae.clip.vectors import name_store
    from sae.data.sources.folders import find_images, find_roots, parse_domains
    from sae.data.store import EmbeddingStore

    places = parse_domains(words)
    files, roots = find_images(places, folders), find_roots(places)
    clip = load_clip(source.clip, device, texts=False)
    with bar("list") as progress:
        embed(
            files,
            roots,
            {place: name_store(clip, source)},
            clip,
            dtype=source.dtype,
            workers=source.n_workers,
            allow_skipped=folders.allow_skipped,
            follow_links=folders.follow_links,
            max_pixels=folders.max_pixels,
            progress=progress,
            keep=False,
        )
    listed = EmbeddingStore.open(place)
    return LiveStore(
        listed, clip, roots, source.n_workers, folders.follow_links, folders.allow_skipped
    )
