"""A store and an SAE -> statistics of every latent, and the images that show what it answers to.

The images are split by content hash BEFORE anything is ranked: what is kept on the side "explain"
may be shown to an explainer, what is kept on the side "score" tests its label. A second, bounded
look reads kept images again: to know which leave a latent at zero, and where on the image it fires.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from interp.evidence.config import (
    BEFORE,
    BY_DOMAIN,
    EXAMPLES,
    FOLDER,
    INFO,
    LATENTS,
    CollectConfig,
    CollectInfo,
    Grouping,
)
from interp.evidence.groups.find import find_groups
from interp.evidence.groups.groups import Groups
from interp.evidence.groups.named import Named, read_named, require_groups
from interp.evidence.stream.activations import (
    EncodedStore,
    Encoder,
    Look,
    Pairs,
)
from interp.evidence.stream.examples import (
    Picks,
    contains,
    pick_by_domain,
    pick_negatives,
    pick_quantiles,
    pick_top,
)
from interp.evidence.stream.first_pass import ImageIndex, Survey
from interp.evidence.stream.negatives import (
    Candidates,
    Chosen,
    choose_hard,
    choose_silent,
    choose_weak,
    each_domain,
    find_candidates,
    find_neighbours,
    share_by_domain,
)
from interp.evidence.stream.together import gather_survey, look_together, share_sides
from interp.evidence.stream.top_k import Ints, concatenate
from interp.evidence.tables import latent_table, write_examples, write_table
from interp.records.types import KINDS, Kind, Status
from sae.core.distributed import Ranks
from sae.core.errors import Notice, UserError
from sae.core.files import package_version, read_config, write_json
from sae.core.progress import Progress
from sae.data.store import EmbeddingStore
from sae.model.identity import sae_identity
from sae.model.match import require_match


def collect(
    store: EmbeddingStore,
    model: Encoder,
    run_dir: Path,
    config: CollectConfig | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    overwrite: bool = False,
    n_images: int | None = None,
    groups: Path | None = None,
    ranks: Ranks | None = None,
) -> CollectInfo:
    """Write run_dir/collect/{groups.parquet, latents.parquet, examples.parquet, collect.json}; the
    last comes last.

    Of several `ranks` each encodes a part of the batches; the first one writes the files, which are
    those that one process writes.

    `groups` is a CSV file (path, group) of images that belong together besides near-duplicates.
    `n_images` a batch changes speed and memory, not the result; by default it fits the SAE.
    A folder finished with the same settings is left alone. Raises `UserError` when it was made
    with others (and not `overwrite`), or when store and SAE do not fit.
    """
    config, ranks = config or CollectConfig(), ranks or Ranks()
    require_match(model.config, store.info)
    config.require_tokens(store.info.tokens, str(store.path))
    n_tokens = 1 if config.pool == "cls" else store.info.tokens_per_image
    named = _read_named(store, groups, config)
    expected = {
        **asdict(config),
        "groups_sha256": named.sha256,
        "dense_by": "images" if n_tokens == 1 else "tokens",
        "store_identity": store.info.identity,
        "sae_identity": sae_identity(model),
    }
    place = Path(os.path.relpath(store.path.resolve(), run_dir.resolve())).as_posix()
    folder = run_dir / FOLDER
    done = list[CollectInfo]()

    def begin() -> None:
        if not overwrite and (found := _read_finished(folder, expected)):
            done.append(_update_place(found, run_dir, place))
        else:
            (folder / INFO).unlink(missing_ok=True)

    ranks.do_first(begin)
    if ranks.any(bool(done)):
        return done[0] if done else read_config(folder / INFO, CollectInfo)
    encoded = EncodedStore.of(store, model, device, n_images, config.pool, ranks.part)
    survey, grouping = _survey(encoded, folder, config, named, progress, ranks)
    if ranks.is_first:
        choice = _choose_examples(encoded, survey, config, progress, ranks)
        expected["store"] = place
        _write(folder, store, survey, choice, n_tokens, config, {**asdict(grouping), **expected})
    else:
        look_together(encoded, ranks)
    ranks.wait()
    return read_config(folder / INFO, CollectInfo)


def _survey(
    encoded: EncodedStore,
    folder: Path,
    config: CollectConfig,
    named: Named,
    progress: Progress | None,
    ranks: Ranks,
) -> tuple[Survey, Grouping]:
    """The first pass; the first process has that of all, and the groups."""
    store, found = encoded.store, list[tuple[Groups, Grouping]]()
    ranks.do_first(lambda: found.append(find_groups(store, folder, config, named, progress)))
    grouped, grouping = found[0] if found else (None, Grouping())
    of_images = ImageIndex.of(store.images, tuple(store.domains), grouped, config.sides)
    index = share_sides(of_images, ranks)
    store.forget_images()

    def make() -> Survey:
        return Survey(index, encoded.model.n_latents, *config.sizes)

    survey = make()

    def see_own_part() -> None:
        for seen in encoded.batches(progress=progress):
            survey.update(seen)

    ranks.do_each(see_own_part)
    gather_survey(survey, make, ranks)
    return survey, grouping


def _write(
    folder: Path,
    store: EmbeddingStore,
    survey: Survey,
    choice: tuple[Picks, dict[str, Picks], Look],
    n_tokens: int,
    config: CollectConfig,
    settings: dict[str, Any],
) -> None:
    """All tables, and collect.json after them."""
    picks, by_domain, look = choice
    index, sample = survey.index, survey.sample.result()
    latents = latent_table(survey.tally, index, sample, n_tokens, config.dense_above)
    write_table(folder / LATENTS, latents)
    (folder / BY_DOMAIN).unlink(missing_ok=True)
    for name, some in {EXAMPLES: picks, **by_domain}.items():
        write_examples(folder / name, some, look.heat, look.peaks, store, index)
    info = CollectInfo(
        **settings,
        version=package_version(),
        domains=list(store.domains),
        grid=list(store.info.grid),
        n_images=store.info.n_images,
        **_count(latents["status"].to_pylist(), picks),
        exact_classes=survey.tally.classes is not None,
    )
    write_json(folder / INFO, info)


def _count(status: list[Status], picks: Picks) -> dict[str, Any]:
    """The numbers of collect.json."""
    weak = np.unique(picks.latents[picks.kinds == KINDS.index("weak")])
    return {
        "n_latents": len(status),
        **{f"n_{name}": status.count(name) for name in get_args(Status)},
        "n_weak": sum(status[latent] == "live" for latent in weak),
        "n_examples": len(picks.rows),
    }


def _read_named(store: EmbeddingStore, file: Path | None, config: CollectConfig) -> Named:
    """The groups that the user has named. Raises `UserError` where they are not to count."""
    if file is not None:
        require_groups(file, config.no_groups)
    if not config.no_groups:
        return read_named(store, file)
    nothing = np.zeros(0, np.int64)
    return Named(nothing, nothing, "")


def _read_finished(folder: Path, expected: dict[str, object]) -> CollectInfo | None:
    """The finished folder's info; None when there is none. Raises when it was made differently."""
    if not (folder / INFO).exists():
        return None
    info = read_config(folder / INFO, CollectInfo)
    for name, value in expected.items():
        if getattr(info, name) != value:
            raise UserError(
                f"{folder} was collected with {name} {getattr(info, name)!r}, not {value!r}; "
                "add --overwrite to collect again, or use another run"
            )
    return info


def _update_place(info: CollectInfo, run_dir: Path, place: str) -> CollectInfo:
    """The same info with the store where it lies now; written again only when it has moved."""
    if info.ungrouped == BEFORE:
        told = "its near-duplicates were not grouped before the split; --overwrite collects again"
        warnings.warn(f"{run_dir}: {told}", Notice, stacklevel=2)
    if info.store == place:
        return info
    info = replace(info, store=place)
    write_json(run_dir / FOLDER / INFO, info)
    return info


def _choose_examples(
    encoded: EncodedStore,
    survey: Survey,
    config: CollectConfig,
    progress: Progress | None,
    ranks: Ranks,
) -> tuple[Picks, dict[str, Picks], Look]:
    """All examples, by file those of each domain by itself, and the look that has the positives'
    heat maps; progress counts on from the first pass."""
    n_active = survey.tally.n_active  # (n_latents, n_sides, n_domains)
    _, n_sides, n_domains = n_active.shape
    top, reservoir = survey.top.result(), survey.reservoir.result()
    near = find_neighbours(encoded.model.W_dec, n_active.sum((1, 2)) > 0, config.n_neighbours)
    mixed = _Wanted.of(n_active, config.n_silent, config.n_hard, share_by_domain)
    wanted = [mixed]
    strata = pick_quantiles(survey.sample.result(), n_sides, config.n_strata)
    positives = [concatenate([pick_top(top, n_sides, n_domains), strata])]
    if survey.by_domain is not None:
        # Hard ones are half of a test's negatives, and silent ones make up for those that lack.
        n_silent, n_hard = config.n_by_domain, -(-config.n_by_domain // 2)
        wanted.append(_Wanted.of(n_active, n_silent, n_hard, each_domain))
        even = survey.by_domain.result()
        positives.append(pick_by_domain(even, n_sides, n_domains, config.n_strata))
    hard = find_candidates(top, near, np.maximum.reduce([each.hard for each in wanted]))
    heat = Pairs(*np.zeros((2, 0), np.int64))
    if encoded.store.info.grid:
        heat = concatenate([some.pairs() for some in positives])
        ends = np.cumsum([len(some.rows) for some in positives])
        spans = [(end - len(s.rows), end) for end, s in zip(ends, positives, strict=True)]
        maps = [np.arange(start, end, dtype=np.int32) for start, end in spans]
        positives = [s._replace(maps=m) for s, m in zip(positives, maps, strict=True)]
    n_before = encoded.store.info.n_images

    def count_on(done: int, total: int) -> None:
        if progress is not None:
            progress(n_before + done, n_before + total)

    drawn = reservoir.rows[reservoir.rows >= 0]
    look = look_together(encoded, ranks, hard.pairs(), heat, drawn, count_on)
    known = concatenate(positives).pairs()
    chosen = [
        concatenate([some, *_choose_negatives(survey, hard, known, look, each)]).sorted()
        for some, each in zip(positives, wanted, strict=True)
    ]
    return chosen[0], dict(zip((BY_DOMAIN,), chosen[1:], strict=False)), look


class _Wanted(NamedTuple):
    """How many negatives of each (latent, side, domain)."""

    silent: Ints
    hard: Ints

    @classmethod
    def of(
        cls, n_active: Ints, n_silent: int, n_hard: int, deal: Callable[[Ints, int], Ints]
    ) -> _Wanted:
        return cls(deal(n_active, n_silent), deal(n_active, n_hard))


def _choose_negatives(
    survey: Survey, found: Candidates, positive: Pairs, look: Look, wanted: _Wanted
) -> list[Picks]:
    # In another batch an activation at the edge of the k kept may round the other way: an image
    # that was active in the first pass must not become a negative in the second.
    silent = (look.acts == 0) & ~contains(found.pairs(), positive)
    hard = choose_hard(found, silent, wanted.hard)
    active = Pairs(look.active.rows, look.active.latents)
    taken = concatenate([active, positive, Pairs(hard.rows, hard.latents)])
    drawn = choose_silent(survey.reservoir.result(), taken, wanted.silent)
    lacking = wanted.silent.copy()
    np.subtract.at(lacking, (drawn.latents, drawn.sides, survey.index.domains[drawn.rows]), 1)
    weak = choose_weak(survey.reservoir.result(), look.active, lacking)
    kinds: dict[Kind, Chosen] = {"silent": drawn, "hard": hard, "weak": weak}
    return [pick_negatives(kind, chosen) for kind, chosen in kinds.items()]
