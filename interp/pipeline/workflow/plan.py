"""Settings of a run, and what is there of it -> what each step will do, write, ask and cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.evidence.config import FOLDER, INFO
from interp.llm.cost.estimate import Estimate
from interp.pipeline.best_of.naming import Naming
from interp.pipeline.workflow.discard import is_thrown_away
from interp.pipeline.workflow.forecast import Ahead, Cost, foresee
from interp.pipeline.workflow.names import (
    CARDS,
    CAUSAL,
    COLLECT,
    EMBED,
    EVAL,
    EXPLAIN,
    IMPORT,
    SCORE,
    TRAIN,
    TRANSFER,
)
from interp.pipeline.workflow.settings import Settings
from interp.run.run import Run
from sae.clip.ahead import Shape, shape_ahead
from sae.core.errors import UserError
from sae.data.sources.folders import ImageFile, find_images
from sae.evaluation.evaluate import REPORT
from sae.model.sae import SAEConfig
from sae.planning.sizes import weigh_sae
from sae.training.checkpoint import n_copies
from sae.training.config import AUTO_LR, TrainConfig
from sae.training.jobs import sae_shape
from sae.training.settings.size import choose_training

if TYPE_CHECKING:
    from sae.data.store_format import StoreInfo

BYTES_COLLECTED = 9_500
"""Of the evidence of a latent: 1.2 MB for 128 latents of the demo."""
BYTES_SCORED = 45_000
"""Of a latent's label and test: 5.7 MB for 121 latents of the demo."""
BYTES_CARD, BYTES_THUMB = 17_600, 1_800
"""Of a latent's card, and of one of its pictures: 2.2 MB for 128 cards, 11.5 MB for 6,447 pictures
of the demo."""
THUMBS_A_LATENT = 100


@dataclass(frozen=True)
class Todo:
    """What one step will do."""

    step: str
    what: str
    is_done: bool = False
    """Nothing is left of it to do."""
    n_bytes: float = 0.0
    """That it will write, about; NaN where that is not known yet."""
    cost: Cost | None = None
    """Of what it asks of paid models; None where it asks none."""
    is_unknown: bool = False
    """It will ask paid models, and nobody can tell yet how much."""


@dataclass(frozen=True)
class Plan:
    """Of a run: a `Todo` a step, in their order."""

    todos: tuple[Todo, ...]

    @property
    def n_bytes(self) -> float:
        """That all steps will write."""
        return math.fsum(todo.n_bytes for todo in self.todos)

    @property
    def costs(self) -> dict[str, Cost]:
        """By step, of those that ask paid models."""
        return {todo.step: todo.cost for todo in self.todos if todo.cost is not None}

    @property
    def estimates(self) -> list[Estimate]:
        return [cost.estimate for cost in self.costs.values()]

    def flat(self) -> dict[str, float | int | str | bool]:
        """One flat object: explain/usd, in_all/usd, embed/is_done, ..."""
        found: dict[str, Any] = {}
        for todo in self.todos:
            found |= {f"{todo.step}/is_done": todo.is_done, f"{todo.step}/n_bytes": todo.n_bytes}
            if todo.cost:
                found |= {f"{todo.step}/{k}": v for k, v in asdict(todo.cost.estimate).items()}
                found[f"{todo.step}/is_bound"] = todo.cost.is_bound
        names = ("n_requests", "usd", "usd_at_most")
        sums = {n: math.fsum(getattr(one, n) for one in self.estimates) for n in names}
        return {**found, **{f"in_all/{n}": value for n, value in sums.items()}}


class Planner:
    """Looks at the folder of a run; writes nothing, sends nothing and takes no lock."""

    def __init__(self, settings: Settings, from_step: str = "") -> None:
        """`from_step`: what it and later steps have made does not count."""
        self._settings, self._from = settings, from_step

    def plan(self) -> Plan:
        """Of all steps. Raises `UserError` for what would end the first of them."""
        return Plan(tuple(_TODOS[step](self) for step in self._settings.steps))

    @cached_property
    def files(self) -> list[ImageFile]:
        """The candidates. Raises `UserError` where folders cannot be read as images."""
        return find_images(self._settings.domains, self._settings.folders)

    def _has(self, step: str, path: Path) -> bool:
        return path.exists() and not is_thrown_away(step, self._from)

    @cached_property
    def _store(self) -> StoreInfo | None:
        """Of the finished store."""
        if not self._has(EMBED, self._settings.store / "store.json"):
            return None
        from sae.data.store import EmbeddingStore

        return EmbeddingStore.open(self._settings.store).info

    @cached_property
    def _images(self) -> dict[str, int]:
        """By domain; of a store that is there, those that could be read."""
        if self._store is None:
            return dict(Counter(file.domain for file in self.files))
        from sae.data.store import EmbeddingStore

        counts = EmbeddingStore.open(self._settings.store).images["domain"].value_counts()
        return {name: int(counts.get(name, 0)) for name in self._settings.domains}

    @cached_property
    def _shape(self) -> Shape | None:
        """Of the vectors of an image."""
        if self._store is None:
            return shape_ahead(self._settings.source)
        info = self._store
        grid = (info.grid[0], info.grid[1]) if info.grid else None
        return Shape(info.d, info.tokens_per_image, grid)

    @cached_property
    def _training(self) -> TrainConfig | None:
        """The settings of the training; None where the width is not known yet."""
        if self._shape is None:
            return None
        n = sum(self._images.values())
        return choose_training(n, self._shape.tokens, self._shape.d, self._settings.training)

    @cached_property
    def _n_latents(self) -> int | None:
        """Of the SAE; None where that is not known yet."""
        if not self._settings.sae:
            config, shape = self._training, self._shape
            return sae_shape(config, shape.d).n_latents if config and shape else None
        looked = self._settings.looked
        return looked.n_latents or None if looked else None

    def _embed(self) -> Todo:
        source = self._settings.source
        counts = [f"{name} {n:,}" for name, n in self._images.items()]
        n_images = sum(self._images.values())
        what = f"{n_images:,} images ({', '.join(counts)}) by {source.clip}, {source.layer}"
        if source.layer != "projected":
            what += f", {source.tokens} tokens"
        if self._store is not None:
            return Todo(EMBED, what, is_done=True)
        n_bytes = self._shape.n_bytes(source.dtype) * n_images if self._shape else math.nan
        return Todo(EMBED, what, n_bytes=n_bytes)

    def _train(self) -> Todo:
        is_done = self._has(TRAIN, self._settings.sae_dir / "config.json")
        config, shape, n = self._training, self._shape, self._n_latents
        if config is None or shape is None or n is None:
            return Todo(TRAIN, "as large as fits the images", n_bytes=math.nan)
        rate = "auto" if config.lr == AUTO_LR else f"{config.lr:g}"
        kept = f", k {config.k}" if config.has_k else f", {config.activation}"
        what = f"{n:,} latents of width {shape.d}{kept}, lr {rate}"
        n_bytes = n_copies(config) * weigh_sae(sae_shape(config, shape.d))
        return Todo(TRAIN, what, is_done, 0.0 if is_done else n_bytes)

    def _import(self) -> Todo:
        is_done = self._has(IMPORT, self._settings.sae_dir / "config.json")
        n, shape = self._n_latents, self._shape
        what = f"{self._settings.sae}, " + (f"{n:,} latents" if n else "fetched from the hub")
        size = weigh_sae(SAEConfig(d=shape.d, n_latents=n, k=1)) if n and shape else math.nan
        return Todo(IMPORT, what, is_done, 0.0 if is_done else size)

    def _eval(self) -> Todo:
        is_done = self._has(EVAL, self._settings.sae_dir / REPORT)
        return Todo(EVAL, "how well it rebuilds images that it has not seen", is_done)

    @property
    def _is_collected(self) -> bool:
        return self._has(COLLECT, self._settings.out / FOLDER / INFO)

    def _collect(self) -> Todo:
        what = "statistics and example images of every latent"
        if self._settings.naming.is_choice:
            what += ", some to choose names on"
            self._require_select()
        return Todo(COLLECT, what, self._is_collected, self._bytes(BYTES_COLLECTED, COLLECT))

    def _require_select(self) -> None:
        """Raise `UserError` where evidence is there without images to choose labels on."""
        out = self._settings.out
        if self._is_collected and not Run(out).evidence.info.select:
            raise UserError(
                f"{out} keeps no images to choose labels on; collect again with --from collect, or "
                "leave --best-of out"
            )

    def _bytes(self, of_a_latent: float, step: str) -> float:
        if step == COLLECT and self._is_collected:
            return 0.0
        return math.nan if self._n_latents is None else of_a_latent * self._n_latents

    def _explain(self) -> Todo:
        return self._ask(EXPLAIN, self._settings.naming.what, self._settings.explainer.model)

    def _score(self) -> Todo:
        what = "test names on held-out images, beside names that say nothing"
        return self._ask(SCORE, what, self._settings.judge.model)

    def _transfer(self) -> Todo:
        pair = self._settings.pair.replace(",", " and ")
        models = (self._settings.explainer.model, self._settings.judge.model)
        return self._ask(TRANSFER, f"names of {pair} on each other", " and ".join({*models}))

    def _ask(self, step: str, what: str, model: str) -> Todo:
        """A step that asks models; what is left of it, where evidence tells."""
        settings = self._settings
        n_bytes = self._bytes(BYTES_SCORED / 3, step)
        is_paid = {EXPLAIN: settings.naming.is_paid, SCORE: not settings.judge.is_local}
        if not is_paid.get(step, settings.is_paid):
            n_left = self._n_left(step)
            left = "" if n_left is None else f", {n_left:,} left"
            return Todo(step, f"{what}, by {model}{left}", n_left == 0, n_bytes * (n_left != 0))
        ahead = self._ahead
        if not self._is_collected and ahead is None:
            return Todo(step, f"{what}, by {model}", n_bytes=math.nan, is_unknown=True)
        keeps = not is_thrown_away(step, self._from)
        cost = foresee(settings, ahead, keeps, step)
        n = cost.n_pending if cost else 0
        left = f"at most {n:,} latents" if cost and cost.is_bound else f"{n:,} left"
        return Todo(step, f"{what}, by {model}, {left}", n == 0, n_bytes * (n > 0), cost)

    @property
    def _ahead(self) -> Ahead | None:
        """What stands in for evidence; None where evidence is there, or nothing is known of it."""
        if self._is_collected or self._n_latents is None:
            return None
        grid = self._shape.grid if self._shape else None
        return Ahead(self._n_latents, self._images, grid, self._settings.collect.select)

    def _n_left(self, step: str) -> int | None:
        """Latents that a free step has still to do; None where that is not known."""
        if is_thrown_away(step, self._from) or not self._is_collected:
            return None
        run = Run(self._settings.out)
        results = run.results
        live = run.evidence.live()
        said = results.newest_explanations()
        if step == EXPLAIN:
            return Naming(run, self._settings.naming, live).n_pending
        found = {SCORE: results.score, CAUSAL: results.effect}.get(step)
        if found is None:
            return None
        return sum(found(n) is None for n in live if n not in said or said[n].label)

    def _causal(self) -> Todo:
        n_left = self._n_left(CAUSAL)
        left = "" if n_left is None else f", {n_left:,} left"
        return Todo(CAUSAL, f"edit latents in their CLIP, on held-out images{left}", n_left == 0)

    def _cards(self) -> Todo:
        n, what = self._n_latents, "labels.csv and the gallery, made anew"
        if n is None:
            return Todo(CARDS, what, n_bytes=math.nan)
        n_thumbs = min(sum(self._images.values()), THUMBS_A_LATENT * n)
        return Todo(CARDS, what, n_bytes=BYTES_CARD * n + BYTES_THUMB * n_thumbs)


_TODOS: Mapping[str, Any] = {
    EMBED: Planner._embed,
    TRAIN: Planner._train,
    IMPORT: Planner._import,
    EVAL: Planner._eval,
    COLLECT: Planner._collect,
    EXPLAIN: Planner._explain,
    SCORE: Planner._score,
    CAUSAL: Planner._causal,
    TRANSFER: Planner._transfer,
    CARDS: Planner._cards,
}
