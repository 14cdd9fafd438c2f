"""What `collect` wrote -> all that is known of one latent, quickly, in any order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from interp.evidence.config import BY_DOMAIN, EXAMPLES, FOLDER, GROUPS, LATENTS, read_info
from interp.evidence.rows import ExampleRows, LatentRows, numbers
from interp.records.split import split_of
from interp.records.types import (
    KINDS,
    N_BINS,
    SIDES_WITH_SELECT,
    Evidence,
    Example,
    HeldOut,
    LatentStats,
    Status,
)
from sae.core.errors import UserError
from sae.core.files import did_you_mean
from sae.data.images import BadImage, check_known, decode, read_known
from sae.data.table import Kind, read_table, require_table
from sae.data.view import Heat

if TYPE_CHECKING:
    import pandas as pd

    from sae.data.store import EmbeddingStore

Read = TypeVar("Read")


class EvidenceReader:
    """One run's evidence. A table is read when it is first asked for and held in Arrow's compact
    form, seen through numpy; a latent costs a slice.
    """

    def __init__(self, run_dir: Path | str) -> None:
        """Raises `UserError` when the run's `collect` has not finished."""
        self.run_dir = Path(run_dir)
        self.info = read_info(self.run_dir)
        self.looked_at: dict[str, str] = {}
        """Ids of the images that were read -> path and reason of those that could not be, or ""."""
        require_table(self.run_dir / FOLDER / LATENTS, LATENT_COLUMNS, REMEDY, ADDED)
        require_table(self.run_dir / FOLDER / EXAMPLES, EXAMPLE_COLUMNS, REMEDY, ADDED)
        if (self.run_dir / FOLDER / BY_DOMAIN).exists():
            require_table(self.run_dir / FOLDER / BY_DOMAIN, EXAMPLE_COLUMNS, REMEDY, ADDED)

    @cached_property
    def latents(self) -> pd.DataFrame:
        """One line per latent, fields as in `LatentStats`; index = latent."""
        frame: pd.DataFrame = self._latents.to_pandas()
        return frame

    @cached_property
    def examples(self) -> pd.DataFrame:
        """One line per example, fields as in `Example`; by latent, side, kind and rank."""
        frame: pd.DataFrame = self.example_rows.table.to_pandas()
        return frame

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store that was collected from. Raises `UserError` when it has gone or has changed."""
        from sae.data.store import EmbeddingStore

        store = EmbeddingStore.open((self.run_dir / self.info.store).resolve())
        if store.info.identity != self.info.store_identity:
            raise UserError(
                f"{store.path} is no longer the store that {self.run_dir} was collected from; "
                "run `interp collect` again with --overwrite"
            )
        return store

    @cached_property
    def groups(self) -> dict[str, str]:
        """image_id -> `Example.group`, of all images of the store that are in a group."""
        path = self.run_dir / FOLDER / GROUPS
        if not path.exists():  # evidence of before images were grouped
            return {}
        table = read_table(path, GROUP_COLUMNS, REMEDY)
        return dict(zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True))

    def were_shown_rightly(self, image_ids: Iterable[str], chosen_on: Iterable[str] = ()) -> bool:
        """Whether an explainer may have seen all of these, and a label be chosen on the others:
        evidence that is collected anew may test labels on images that were used before."""
        group, select = self.groups.get, self.info.select
        shown = all(split_of(group(one, one), select) == "explain" for one in image_ids)
        return shown and all(split_of(group(one, one)) != "score" for one in chosen_on)

    @cached_property
    def status(self) -> tuple[Status, ...]:
        """Of every latent, in their order."""
        return tuple(self._latents["status"].to_pylist())

    def live(self) -> list[int]:
        """Latents that are neither dead nor dense, ascending."""
        return [latent for latent, status in enumerate(self.status) if status == "live"]

    def of(self, latent: int) -> Evidence:
        """All that is known of one latent. Raises `UserError` when there is no such latent."""
        return Evidence(self.stats(latent), self.example_rows.of(latent))

    def strongest(self) -> NDArray[np.int64]:
        """(n, 2) latent and row of every example of the kind "top", of all sides."""
        kinds, words = self.example_rows.texts("kind")
        is_top = kinds == (words.index("top") if "top" in words else -1)
        columns = [self.example_rows.numbers(name) for name in ("latent", "row")]
        return np.stack([column[is_top].astype(np.int64) for column in columns], 1)

    def in_domain(self, domain: str) -> OneDomain:
        """The same evidence with the images of one domain alone.

        Raises `UserError` when the store has no such domain.
        """
        if domain not in self.info.domains:
            known = ", ".join(self.info.domains)
            hint = did_you_mean(domain, self.info.domains)
            raise UserError(
                f"there is no domain {domain!r} in {self.run_dir}; it has {known}{hint}"
            )
        return OneDomain(self, domain)

    def stats(self, latent: int) -> LatentStats:
        """What is counted of one latent. Raises `UserError` when there is no such latent."""
        if not 0 <= latent < self.info.n_latents:
            raise UserError(
                f"there is no latent {latent} in {self.run_dir}; "
                f"they are numbered 0 to {self.info.n_latents - 1}"
            )
        return self._latent_rows.of(latent)

    def image(self, example: Example, longest: int = 0) -> Image.Image:
        """The example's picture, upright RGB; where its longest side need not be longer than
        `longest`, it may be a smaller one of it.

        Raises `UserError` when the store or its images have gone, `BadImage`, which is noted in
        `looked_at`, when the file is gone, unreadable or no longer what was embedded.
        """
        return self._noted(example, lambda: self._decode(example, longest))

    def heat(self, example: Example) -> Heat | None:
        """Where on the example's image the latent answers; None without patches."""
        if example.heat is None:
            return None
        return Heat.of(example.heat, self.store.view, tuple(self.info.grid))

    def size(self, example: Example) -> tuple[int, int]:
        """(w, h) of the example's upright image, in pixels. Raises what `image` does where the
        store does not tell."""
        width, height = map(int, self._sizes[example.row])
        return (width, height) if width and height else self.image(example).size

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """(n_images, 2) as the store has them: width, height; 0 where they are not known."""
        return self.store.images[["width", "height"]].to_numpy(np.int64)

    def check_image(self, example: Example) -> None:
        """Look at the file without decoding it. Raises what `image` does."""
        path = self.store.image_path(example.row)
        self._noted(example, lambda: check_known(path, example.image_id))

    def _decode(self, example: Example, longest: int) -> Image.Image:
        data = read_known(self.store.image_path(example.row), example.image_id)
        return decode(data, self.store.info.max_pixels, longest)

    def _noted(self, example: Example, read: Callable[[], Read]) -> Read:
        self.looked_at[example.image_id] = ""
        try:
            return read()
        except BadImage as error:
            place = f"{example.domain}/{example.path}"
            self.looked_at[example.image_id] = f"{place} ({error.reason})"
            raise

    @cached_property
    def _latents(self) -> pa.Table:
        path, n = self.run_dir / FOLDER / LATENTS, self.info.n_latents
        table = read_table(path, LATENT_COLUMNS, REMEDY, added=ADDED)
        _require(len(table) == n, path, f"{len(table)} lines of {n} latents")
        latents = numbers(table["latent"].combine_chunks())
        _require(bool((latents == np.arange(n)).all()), path, "latents out of order")
        classes = table.schema.field("top_classes").type.value_type
        holds = pa.types.is_struct(classes) and classes.names == ["label", "n"]
        _require(holds, path, "top_classes of another kind")
        rates = table["domain_rate"].combine_chunks()
        _require(rates.type.names == self.info.domains, path, "other domains")
        parts = [*rates.flatten(), table["hist"].combine_chunks().flatten()]
        parts += table["top_classes"].combine_chunks().flatten().flatten()
        _require(not sum(part.null_count for part in parts), path, "empty cells")
        _require(len(parts[len(rates.type.names)]) == n * N_BINS, path, "other bins")
        holds = pa.types.is_string(parts[-2].type) and pa.types.is_integer(parts[-1].type)
        _require(holds, path, "top_classes of another kind")
        for name in ("frequency", "token_frequency"):
            share = numbers(table[name].combine_chunks())
            share = share if name == "frequency" else np.nan_to_num(share)
            holds = bool(((share >= 0) & (share <= 1)).all())
            _require(holds, path, f"{name} beyond 0..1")
        held_out = table["held_out"].combine_chunks()
        if len(held_out.flatten()):
            holds = held_out.type.value_type.names == list(HeldOut._fields)
            _require(holds, path, "held_out of another kind")
            counted = held_out.flatten().flatten()
            _require(not sum(part.null_count for part in counted), path, "empty cells")
            low = min(int(pc.min(part).as_py()) for part in counted[1:])
            _require(low >= 0, path, "held_out below 0")
        known = set(table["status"].to_pylist()) <= {*get_args(Status)}
        _require(known, path, "a status that is not known")
        return table

    @cached_property
    def _latent_rows(self) -> LatentRows:
        return LatentRows(self._latents)

    @cached_property
    def example_rows(self) -> ExampleRows:
        """The table of examples."""
        return ExampleRows(self._read_examples(self.run_dir / FOLDER / EXAMPLES))

    @cached_property
    def drawn_by_domain(self) -> ExampleRows | None:
        """What was drawn from each domain by itself; None in evidence of before, or of one."""
        path = self.run_dir / FOLDER / BY_DOMAIN
        return ExampleRows(self._read_examples(path)) if path.exists() else None

    def _read_examples(self, path: Path) -> pa.Table:
        table = read_table(path, EXAMPLE_COLUMNS, REMEDY, ("heat",), ADDED)
        ends = {"latent": (0, self.info.n_latents), "row": (0, self.info.n_images)}
        ends["peak"] = (-1, math.prod(self.info.grid) if self.info.grid else 0)
        for name, (first, end) in ends.items():
            found = numbers(table[name].combine_chunks())
            holds = not len(found) or (found.min() >= first and found.max() < end)
            _require(bool(holds), path, f"{name} beyond {first}..{end - 1}")
        owners = numbers(table["latent"].combine_chunks())
        _require(bool((np.diff(owners) >= 0).all()), path, "latents out of order")
        for name, words in (("side", SIDES_WITH_SELECT), ("kind", KINDS)):
            known = set(table[name].unique().to_pylist()) <= {*words}
            _require(known, path, f"a {name} that is not known")
        sizes = set(pc.unique(pc.binary_length(table["heat"])).to_pylist()) - {None}
        n_patches = math.prod(self.info.grid) if self.info.grid else -1
        _require(sizes <= {n_patches}, path, "heat of another grid")
        acts = numbers(table["act"].combine_chunks())
        _require(bool(((acts >= 0) & (acts < np.inf)).all()), path, "act is no activation")
        for name in (name for name, kind in EXAMPLE_COLUMNS.items() if kind == "text"):
            if not pa.types.is_dictionary(table[name].type):
                at = table.column_names.index(name)
                table = table.set_column(at, name, table[name].dictionary_encode())
        return table


class OneDomain:
    """An `EvidenceSource` of one domain: its strongest images, and what was drawn from it alone."""

    def __init__(self, reader: EvidenceReader, domain: str) -> None:
        self._reader, self.domain = reader, domain
        self.image, self.check_image = reader.image, reader.check_image

    def of(self, latent: int) -> Evidence:
        """As the reader has it; the statistics are of all domains."""
        evidence, drawn = self._reader.of(latent), self._reader.drawn_by_domain
        examples = evidence.examples  # where nothing was drawn: what the mix of domains gives
        if drawn is not None:
            examples = tuple(e for e in examples if e.kind == "top") + drawn.of(latent)
        here = tuple(e for e in examples if e.domain == self.domain)
        return dataclasses.replace(evidence, examples=here)


REMEDY = "run `interp collect` again with --overwrite"
LATENT_COLUMNS: dict[str, Kind] = {
    **dict.fromkeys(("latent", "n_active"), "whole"),
    **dict.fromkeys(("frequency", "token_frequency", "mean_act"), "number"),
    **dict.fromkeys(("max_act", "sketch_share", "class_entropy"), "number"),
    "status": "text",
    "hist": "list",
    "domain_rate": "struct",
    "top_classes": "list",
    "held_out": "list",
}
EXAMPLE_COLUMNS: dict[str, Kind] = {
    **dict.fromkeys(("latent", "rank", "stratum", "row", "peak"), "whole"),
    **dict.fromkeys(("side", "kind", "image_id", "domain", "label", "path", "group"), "text"),
    "act": "number",
    "heat": "bytes",
}
GROUP_COLUMNS: dict[str, Kind] = dict.fromkeys(("image_id", "domain", "path", "group"), "text")
ADDED: dict[str, Any] = {"token_frequency": math.nan, "held_out": [], "peak": -1, "group": ""}
"""Columns that older tables lack, and what stands in them there."""


def _require(holds: bool, path: Path, what: str) -> None:
    if not holds:
        raise UserError(f"{path} is damaged ({what}); {REMEDY}")
