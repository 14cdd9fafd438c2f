"""What `collect` wrote -> all that is known of one latent, quickly, in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from interp.evidence.config import EXAMPLES, FOLDER, LATENTS, read_info
from interp.records.types import Evidence, Example, LatentStats, Status
from sae.core.errors import UserError
from sae.data.images import BadImage, decode, read_known

if TYPE_CHECKING:
    import pandas as pd

    from sae.data.store import EmbeddingStore


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
        for name in (LATENTS, EXAMPLES):
            _open_table(self.run_dir / FOLDER / name).close()

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
        from sae.data.store import EmbeddingStore

        store = EmbeddingStore.open((self.run_dir / self.info.store).resolve())
        if store.info.identity != self.info.store_identity:
            raise UserError(
                f"{store.path} is no longer the store that {self.run_dir} was collected from; "
                "run `interp collect` again with --overwrite"
            )
        return store

    @cached_property
    def status(self) -> tuple[Status, ...]:
        """Of every latent, in their order."""
        return tuple(self._latents["status"].to_pylist())

    def live(self) -> list[int]:
        """Latents that are neither dead nor dense, ascending."""
        return [latent for latent, status in enumerate(self.status) if status == "live"]

    def of(self, latent: int) -> Evidence:
        """All that is known of one latent. Raises `UserError` when there is no such latent."""
        stats = self.stats(latent)
        part = slice(self._starts[latent], self._starts[latent + 1])
        columns = [values(part) for values in self._example_values]
        return Evidence(stats, tuple(map(Example, *columns)))

    def stats(self, latent: int) -> LatentStats:
        """What is counted of one latent. Raises `UserError` when there is no such latent."""
        if not 0 <= latent < self.info.n_latents:
            raise UserError(
                f"there is no latent {latent} in {self.run_dir}; "
                f"they are numbered 0 to {self.info.n_latents - 1}"
            )
        return _stats(self._latents.slice(latent, 1).to_pylist()[0])

    def image(self, example: Example) -> Image.Image:
        """The example's picture, upright RGB.

        Raises `UserError` when the store or its images have gone, `BadImage`, which is noted in
        `looked_at`, when the file is gone, unreadable or no longer what was embedded.
        """
        return self._noted(example, lambda: self._decode(example))

    def check_image(self, example: Example) -> None:
        """Read the file without decoding it. Raises what `image` does."""
        self._noted(example, lambda: self._content(example))

    def _decode(self, example: Example) -> Image.Image:
        return decode(self._content(example), self.store.info.max_pixels)

    def _content(self, example: Example) -> bytes:
        return read_known(self.store.image_path(example.row), example.image_id)

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
        return _read_table(self.run_dir / FOLDER / LATENTS)

    @cached_property
    def _examples(self) -> pa.Table:
        return _read_table(self.run_dir / FOLDER / EXAMPLES)

    @cached_property
    def _example_values(self) -> list[Values]:
        return [_column_reader(self._examples[field.name]) for field in dataclasses.fields(Example)]

    @cached_property
    def _starts(self) -> list[int]:
        """The line of each latent's first example, and at the end the number of lines."""
        owners = _numbers(self._examples["latent"].combine_chunks())
        latents = np.arange(self.info.n_latents + 1, dtype=owners.dtype)
        starts: list[int] = np.searchsorted(owners, latents).tolist()
        return starts


Read = TypeVar("Read")
Values = Callable[[slice], list[Any]]
"""The Python values in a part of a column."""


def _open_table(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise _damage_error(path, error) from None


def _read_table(path: Path) -> pa.Table:
    with _open_table(path) as file:
        try:
            table = file.read()
        except (OSError, pa.ArrowInvalid) as error:
            raise _damage_error(path, error) from None
    return table.unify_dictionaries().combine_chunks()


def _damage_error(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is missing or damaged ({error}); run `interp collect` again with --overwrite"
    )


def _column_reader(column: pa.ChunkedArray) -> Values:
    """How a column is read. By rows, through Arrow's own values, a latent costs 7 times as much."""
    if pa.types.is_binary(column.type):
        return _heats(column)
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        numbers = _numbers(whole)
        return lambda part: numbers[part].tolist()
    codes = _numbers(whole.indices)
    texts = np.array(whole.dictionary.to_pylist(), dtype=object)
    return lambda part: texts[codes[part]].tolist()


def _heats(column: pa.ChunkedArray) -> Values:
    if column.null_count == len(column):
        return lambda part: [None] * (part.stop - part.start)
    return lambda part: column[part].to_pylist()


def _numbers(values: pa.Array) -> NDArray[Any]:
    # Not `values.to_numpy()`: that imports pandas.
    numbers: NDArray[Any] = np.from_dlpack(values)
    return numbers


def _stats(fields: dict[str, Any]) -> LatentStats:
    """A row of latents.parquet as a record."""
    top_classes = tuple((c["label"], c["n"]) for c in fields["top_classes"])
    return LatentStats(**{**fields, "hist": tuple(fields["hist"]), "top_classes": top_classes})
