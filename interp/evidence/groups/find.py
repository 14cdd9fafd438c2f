"""A store, its images and what the user says -> the groups of images that stay on one side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from interp.evidence.config import GROUPS, CollectConfig, Grouping
from interp.evidence.groups.groups import Groups
from interp.evidence.groups.hashes import read_hashes
from interp.evidence.groups.named import Named
from interp.evidence.groups.twins import Components, find_twins
from interp.evidence.tables import write_table
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore

UNREADABLE = "no image of the store can be read here"


def find_groups(
    store: EmbeddingStore,
    folder: Path,
    config: CollectConfig,
    named: Named,
    progress: Progress | None = None,
) -> tuple[Groups, Grouping]:
    """The groups, which are also listed in folder/groups.parquet, and what is said of them.

    `named` groups and near-duplicates of their images are joined. With `config.no_groups` each
    image is alone. Images that cannot be read are joined by `named` alone.
    """
    n_images = store.info.n_images
    if config.no_groups:
        groups, found = Groups.none(n_images), Grouping(ungrouped="--no-groups")
    else:
        hashes = read_hashes(store, folder, progress)
        joined, n_hashed = Components(n_images), int(hashes.known.sum())
        found = Grouping(ungrouped="" if n_hashed else UNREADABLE, n_hashed=n_hashed)
        if n_hashed:
            twins = find_twins(store, hashes)
            joined.join(np.arange(n_images), twins.labels)
            found = replace(
                found,
                hash_alone=twins.rule.hash_alone,
                hash_within=twins.rule.hash_within,
                cosine_above=twins.rule.cosine_above,
                random_pairs=twins.n_pairs,
                random_twins=twins.n_joined,
            )
        joined.join(named.first, named.second)
        groups = Groups.of(joined.labels, store.images["image_id"].tolist())
    _write(folder / GROUPS, groups, store.images)
    return groups, found.counted(groups.sizes(), n_images)


def _write(path: Path, groups: Groups, images: pd.DataFrame) -> None:
    """A line for each image that is in a group."""
    rows = np.flatnonzero(groups.labels >= 0)
    rows = rows[np.argsort(groups.labels[rows], kind="stable")]
    columns = {name: images[name].to_numpy(object)[rows] for name in ("image_id", "domain", "path")}
    columns["group"] = np.array([groups.name(row) for row in rows.tolist()], object)
    texts = {name: pa.array(column.tolist(), pa.string()) for name, column in columns.items()}
    write_table(path, pa.table(texts))
