"""Reads back what `collect` wrote: all that is known of one latent, quickly, in any order."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from interp.collect import EXAMPLES, FOLDER, LATENTS, read_info
from interp.records import Evidence, Example, LatentStats
from sae.errors import UserError
from sae.images import read_image
from sae.store import EmbeddingStore

if TYPE_CHECKING:
    import pandas as pd


class EvidenceReader:
    """One run's evidence. Both tables are held in Arrow's compact form; a latent costs a slice."""

    def __init__(self, run_dir: Path | str) -> None:
        """Raises `UserError` when the run's `collect` has not finished."""
        self.run_dir = Path(run_dir)
        self.info = read_info(self.run_dir)
        self._latents = _read(self.run_dir / FOLDER / LATENTS)
        self._examples = _read(self.run_dir / FOLDER / EXAMPLES)
        owners = self._examples["latent"].to_numpy()
        self._starts = np.searchsorted(owners, np.arange(self.info.n_latents + 1))

    @cached_property
    def latents(self) -> pd.DataFrame:
        """One line per latent, fields as in `LatentStats`; index = latent."""
        frame: pd.DataFrame = self._latents.to_pandas()
        return frame

    @cached_property
    def examples(self) -> pd.DataFrame:
        """One line per example, fields as in `Example`; by latent, side, kind and rank."""
        frame: pd.DataFrame = self._examples.to_pandas()
        return frame

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store that was collected from. Raises `UserError` when it has gone or has changed."""
        store = EmbeddingStore.open((self.run_dir / self.info.store).resolve())
        if store.info.identity != self.info.store_identity:
            raise UserError(
                f"{store.path} is no longer the store that {self.run_dir} was collected from; "
                "run `interp collect` again with --overwrite"
            )
        return store

    def live(self) -> list[int]:
        """Latents that are neither dead nor dense, ascending."""
        status = self._latents["status"].to_pylist()
        return [latent for latent, s in enumerate(status) if s == "live"]

    def of(self, latent: int) -> Evidence:
        """All that is known of one latent. Raises `UserError` when there is no such latent."""
        if not 0 <= latent < self.info.n_latents:
            raise UserError(
                f"there is no latent {latent} in {self.run_dir}; "
                f"they are numbered 0 to {self.info.n_latents - 1}"
            )
        first, last = self._starts[latent], self._starts[latent + 1]
        examples = self._examples.slice(first, last - first).to_pylist()
        stats = self._latents.slice(latent, 1).to_pylist()[0]
        return Evidence(_stats(stats), tuple(Example(**fields) for fields in examples))

    def image(self, example: Example) -> Image.Image:
        """The example's picture, upright RGB.

        Raises `UserError` when the store or its images have gone, `BadImage` when the file is no
        longer an image.
        """
        return read_image(self.store.image_path(example.row))[1]


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{path} is missing or damaged ({error}); run `interp collect` again with --overwrite"
        ) from None
    return table.unify_dictionaries().combine_chunks()


def _stats(fields: dict[str, Any]) -> LatentStats:
    """A row of latents.parquet as a record."""
    top_classes = tuple((c["label"], c["n"]) for c in fields["top_classes"])
    return LatentStats(**{**fields, "hist": tuple(fields["hist"]), "top_classes": top_classes})
