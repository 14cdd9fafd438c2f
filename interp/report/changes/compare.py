"""Two runs of one SAE, or two domains of a run -> which latents rise and fall, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interp.evidence.compare.activations import Sparse, read_activations
from interp.evidence.compare.changes import Changes, find_changes, find_contrasts
from interp.run.run import Run
from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.core.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

Pairing = Literal["content", "path"]
PAIRINGS: tuple[Pairing, ...] = ("content", "path")
"""What makes two images of two stores the same one: their bytes, or domain and path."""


class Compared(NamedTuple):
    """What was compared, and what came out."""

    before: str
    after: str
    """Names of the two sides: runs, or domains."""
    pairing: str
    """`content` or `path`; "" of two domains, whose images are no pairs."""
    clips: tuple[str, str]
    n_before: int
    n_after: int
    """Images that were compared: of runs as many on either side."""
    n_left_out: int
    """Images of either run that the other one lacks."""
    classes: list[str]
    changes: Changes
    least: NDArray[np.float64]  # (n_latents,)
    """What the interval of a rise or fall is beyond, on its side of 0."""

    @property
    def signs(self) -> NDArray[np.int64]:
        """(n,) of each pair that was tested: 1 rises, -1 falls, 0 neither."""
        return self.changes.signs(self.least)

    @property
    def is_counted(self) -> NDArray[np.bool_]:
        """(n,) the pairs that are counted: those of classes; where no class has enough images, the
        latents over all images."""
        by_class = self.changes.classes >= 0
        return by_class if by_class.any() else ~by_class


def compare_runs(
    first: Run,
    second: Run,
    pairing: Pairing,
    least: float,
    device: str,
    progress: Progress | None = None,
) -> Compared:
    """The same images in two runs of one SAE, in the order of the first. `least`: the share of a
    latent's mean activation, the larger of both runs, that a rise or fall is beyond.

    Raises `UserError` for two SAEs, other settings of `--pool`, and where no image is in both.
    """
    if first.info.sae_identity != second.info.sae_identity:
        raise UserError(
            f"{first.path} and {second.path} are of two SAEs: their latents share no numbers; "
            "add --match to find which latents are the same"
        )
    rows = pair_images(first, second, pairing)
    before, after = read_sides((first, second), rows, device, progress)
    names, classes = _classes(first.evidence.store.images["label"].iloc[rows[0]])
    stores = [run.evidence.store.info for run in (first, second)]
    return Compared(
        *_names(first, second),
        pairing,
        (without_place(stores[0].clip), without_place(stores[1].clip)),
        len(rows[0]),
        len(rows[0]),
        sum(info.n_images - len(rows[0]) for info in stores),
        names,
        find_changes(before, after, classes, len(names)),
        least * np.fmax(_mean_activation(first), _mean_activation(second)),
    )


def compare_domains(
    run: Run, domains: str, least: float, device: str, progress: Progress | None = None
) -> Compared:
    """As `compare_runs`, of the images of one domain against those of another.

    Raises `UserError` for other than two.
    """
    before, after = _two_domains(run, domains)
    images = run.evidence.store.images
    rows = [np.flatnonzero(images["domain"] == name) for name in (before, after)]
    sides = read_sides((run, run), rows, device, progress)
    names, classes = _classes(images["label"])
    clip = without_place(run.evidence.store.info.clip)
    of = [classes[part] for part in rows]
    found = find_contrasts(sides[0], sides[1], of[0], of[1], len(names))
    n = (len(rows[0]), len(rows[1]))
    scale = least * _mean_activation(run)
    return Compared(before, after, "", (clip, clip), *n, 0, names, found, scale)


def pair_images(first: Run, second: Run, pairing: Pairing) -> list[NDArray[np.int64]]:
    """Rows of the images that both stores have, in the order of the first one's.

    Raises `UserError` where there is none.
    """
    keys = [_keys(run.evidence.store.images, pairing) for run in (first, second)]
    places = {key: row for row, key in enumerate(keys[1])}
    pairs = [(row, places[key]) for row, key in enumerate(keys[0]) if key in places]
    if not pairs:
        by = "the same content" if pairing == "content" else "the same domain and path"
        hint = "; --pair path pairs images by domain and path" if pairing == "content" else ""
        raise UserError(f"no image of {first.path} has {by} as one of {second.path}{hint}")
    return [np.array(column, np.int64) for column in zip(*pairs, strict=True)]


def read_sides(
    runs: Sequence[Run],
    rows: Sequence[NDArray[np.int64]],
    device: str,
    progress: Progress | None = None,
) -> list[Sparse]:
    """Activations of both sides. Raises `UserError` where they are pooled in two ways."""
    pools = [run.evidence.info.pool for run in runs]
    if pools[0] != pools[1]:
        raise UserError(
            f"{runs[0].path} was collected with --pool {pools[0]}, {runs[1].path} with --pool "
            f"{pools[1]}; collect one of them again as the other"
        )
    total, sides, before = sum(map(len, rows)), [], 0
    for run, of in zip(runs, rows, strict=True):

        def count_on(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        place = (run.sae, run.evidence.store, of, pools[0], device)
        sides.append(read_activations(*place, progress=count_on))
        before += len(of)
    return sides


def _keys(images: pd.DataFrame, pairing: Pairing) -> list[str]:
    if pairing == "content":
        ids: list[str] = images["image_id"].tolist()
        return ids
    return [f"{d}/{p}" for d, p in zip(images["domain"], images["path"], strict=True)]


def _classes(labels: pd.Series[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The classes in order, and the place of each image's among them; -1 without one."""
    names = sorted({str(label) for label in labels} - {""})
    place = {name: at for at, name in enumerate(names)}
    return names, np.array([place.get(str(label), -1) for label in labels], np.int64)


def _mean_activation(run: Run) -> NDArray[np.float64]:
    """(n_latents,) over the images on which each is active; 0 for dead ones."""
    means: NDArray[np.float64] = run.evidence.latents["mean_act"].to_numpy(np.float64)
    return np.nan_to_num(means)


def _names(first: Run, second: Run) -> tuple[str, str]:
    names = [run.path.resolve().name for run in (first, second)]
    if names[0] == names[1]:
        names = [
            f"{run.path.resolve().parent.name}/{run.path.resolve().name}" for run in (first, second)
        ]
    return names[0], names[1]


def _two_domains(run: Run, domains: str) -> tuple[str, str]:
    known = list(run.evidence.store.domains)
    named = [name.strip() for name in domains.split(",")]
    for name in named:
        run.evidence.in_domain(name)
    if len(named) != 2 or named[0] == named[1]:
        raise UserError(f"--domains {domains}: name two of {', '.join(known)}: a,b")
    return named[0], named[1]
