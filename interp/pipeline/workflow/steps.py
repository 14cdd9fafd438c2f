"""Settings -> a run, step by step: each goes on where it was, and says what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.llm.ledger.report import read_calls
from interp.pipeline.best_of.naming import Naming
from interp.pipeline.causal.stage import run_causal
from interp.pipeline.clip.words import find_words
from interp.pipeline.collect import run_collect
from interp.pipeline.judging.plan import Judging
from interp.pipeline.judging.specificity import measure_specificity
from interp.pipeline.score import ScoreStage
from interp.pipeline.transfer import TransferStage, choose_domains
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
from interp.pipeline.workflow.outcomes import (
    Carded,
    Collected,
    Crossed,
    Edited,
    Embedded,
    Evaluated,
    Explained,
    Imported,
    Scored,
    Tell,
    Trained,
)
from interp.pipeline.workflow.settings import Settings
from interp.pipeline.workflow.wording import in_words_of_run, say_for_run
from interp.report.gallery import build_gallery
from interp.report.labels import write_labels
from interp.report.transfer_figure import draw_transfer
from interp.run.latents import choose_latents
from interp.run.run import Run
from sae.core.errors import FAILURES, UserError
from sae.core.progress import bar
from sae.training.settings.size import choose_training

if TYPE_CHECKING:
    from sae.data.sources.folders import ImageFile
    from sae.data.store import EmbeddingStore
    from sae.evaluation.evaluate import NothingHeldOut
    from sae.evaluation.report import EvalReport


def run_steps(
    settings: Settings,
    tell: Tell,
    files: Sequence[ImageFile] | None = None,
    first: int = 1,
    n_more: int = 0,
    before: Mapping[str, Callable[[Run], None]] | None = None,
) -> Run:
    """Make all steps of a run; `tell` is given what each came to.

    `files`: the candidates, where they were listed before; `first` and `n_more` count steps that
    are made before and after these; `before` has what is done before a step. Raises `UserError` of
    the first step that cannot be made; what is done stays, and the next call goes on from there.
    """
    Run.begin(settings.out)
    walk = _Walk(settings, files)
    n_steps = first - 1 + len(settings.steps) + n_more
    for number, step in enumerate(settings.steps, first):
        if before and step in before:
            before[step](walk.run)
        with in_words_of_run(step, settings.store):
            tell(_STEPS[step](walk, f"{number}/{n_steps} {step}"))
    return walk.run


class _Walk:
    """The steps of one run."""

    def __init__(self, settings: Settings, files: Sequence[ImageFile] | None) -> None:
        self._settings = settings
        self._files = files

    @cached_property
    def run(self) -> Run:
        """Once it is collected."""
        return Run(self._settings.out)

    @property
    def _store(self) -> EmbeddingStore:
        from sae.data.store import EmbeddingStore

        return EmbeddingStore.open(self._settings.store)

    def embed(self, label: str) -> Embedded:
        from sae.clip.embed import embed
        from sae.clip.model import load_clip
        from sae.clip.vectors import name_store
        from sae.data.sources.folders import find_images, find_roots

        settings, source, folders = self._settings, self._settings.source, self._settings.folders
        files = self._files
        if files is None:
            files = find_images(settings.domains, folders)
        clip = load_clip(source.clip, settings.device, texts=False)
        with bar(label) as progress:
            [info] = embed(
                files,
                find_roots(settings.domains),
                {settings.store: name_store(clip, source)},
                clip,
                progress=progress,
                dtype=source.dtype,
                workers=source.n_workers,
                max_pixels=folders.max_pixels,
                allow_skipped=folders.allow_skipped,
                follow_links=folders.follow_links,
            )
        return Embedded(info, len(files))

    def train(self, label: str) -> Trained:
        from sae.clip.model import resolve_device
        from sae.training.train import TrainContext, train

        store, settings = self._store, self._settings
        info = store.info
        size = (info.n_images, info.tokens_per_image, info.d)
        config = choose_training(*size, settings.training)
        with bar(label, "steps") as progress:
            context = TrainContext(resolve_device(settings.device), progress)
            return Trained(train(store, settings.sae_dir, config, context))

    def import_sae(self, label: str) -> Imported:
        from interp.pipeline.workflow.bring import bring_sae

        with bar(label, "files") as progress:
            progress(0, 1)
            asked = self._settings
            places = (asked.sae, asked.sae_dir, self._store)
            origin = asked.looked.origin if asked.looked else None
            model, notes = bring_sae(*places, asked.registry, origin)
            progress(1, 1)
        return Imported(model.n_latents, notes)

    def evaluate(self, label: str) -> Evaluated:
        from sae.evaluation.evaluate import NothingHeldOut
        from sae.evaluation.report import plot_report

        store, settings, asked = self._store, self._settings, self._settings.evaluation
        figures = read_figures(settings.sae_dir, store)
        report = None
        if figures is None:
            try:
                with bar(label) as progress:
                    report = _measure(settings, store, progress)
            except NothingHeldOut as error:
                return _go_on(settings, error)
            figures = report.flat()
            if asked.plots:
                plot_report(report, settings.sae_dir)
        fvu = figures.get("fvu")
        if settings.sae and fvu is not None and fvu > 1 and not settings.allow_misfit:
            raise UserError(
                f"{settings.sae} rebuilds held-out images worse than their mean does (FVU "
                f"{fvu:.3g}): it was trained on another CLIP, layer or kind of tokens than "
                f"{store.info.clip}, layer {store.info.layer}, tokens {store.info.tokens}, or on "
                "embeddings of another length; name what it was trained on with --clip, --layer, "
                f"--tokens and another --out. Known of it: {_told(settings)}. "
                "Nothing was asked; --allow-misfit goes on",
                FAILURES,
            )
        return Evaluated(figures, report)

    def collect(self, label: str) -> Collected:
        settings = self._settings
        places = (settings.sae_dir, settings.store, settings.out)
        with bar(label) as progress:
            _, info = run_collect(
                *places, settings.collect, settings.device, progress, groups=settings.groups
            )
        if not info.n_live:
            raise UserError(
                f"no latent can be named: {info.n_dead} are never active, {info.n_dense} on more "
                f"than {info.dense_above:.0%} of the {info.dense_by}; take more images or another "
                "--n-latents or --k, with --from train"
            )
        return Collected(info)

    def explain(self, label: str) -> Explained:
        settings = self._settings
        latents = choose_latents(self.run.evidence, None)
        named = Naming(self.run, settings.naming, latents).run(label)
        return Explained(self.run, settings.explainer, named)

    def score(self, label: str) -> Scored:
        run, settings = self.run, self._settings
        plan = Judging(run, settings.judge, settings.judging, "", settings.work)
        summary = None
        if plan.detect is not None:
            summary = plan.score() if plan.canaries else plan.detect.run(label)
            if plan.detect.is_local:  # a paid model would be asked as much again
                measure_specificity(run, plan.detect)
                ScoreStage(run, settings.judge, control="shuffled").run(f"{label}, control")
        others = [stage.run(f"{label}, {stage.name}") for stage in (*plan.checks, *plan.tasks)]
        refusals = plan.stages[0].refusals()
        return Scored(run, plan, summary, others, refusals)

    def edit(self, label: str) -> Edited:
        with bar(label, "latents") as progress:
            return Edited(run_causal(self.run, self._settings.device, progress=progress))

    def cross(self, label: str) -> Crossed:
        run, settings = self.run, self._settings
        latents = choose_latents(run.evidence, None)
        domains = choose_domains(run, settings.pair)
        models = (settings.explainer, settings.judge)
        made = TransferStage(run, *models, domains, latents, settings.work).run(label)
        draw_transfer(run.path)
        return Crossed(run, made)

    def make_cards(self, label: str) -> Carded:
        labels = write_labels(self.run)
        with bar(label, "latents") as progress:
            calls = partial(read_calls, self.run.ledger)
            words = find_words(self.run, self._settings.device)
            return Carded(labels, build_gallery(self.run, progress, calls, words))


_STEPS: dict[str, Callable[[_Walk, str], Any]] = {
    EMBED: _Walk.embed,
    TRAIN: _Walk.train,
    IMPORT: _Walk.import_sae,
    EVAL: _Walk.evaluate,
    COLLECT: _Walk.collect,
    EXPLAIN: _Walk.explain,
    SCORE: _Walk.score,
    CAUSAL: _Walk.edit,
    TRANSFER: _Walk.cross,
    CARDS: _Walk.make_cards,
}


def _told(settings: Settings) -> str:
    """Where the SAE was trained, and who said so."""
    return settings.looked.origin.line() if settings.looked else "nothing"


def _measure(settings: Settings, store: EmbeddingStore, progress: Any) -> EvalReport:
    """Evaluate the SAE as `sae eval` does."""
    from sae.clip.model import resolve_device
    from sae.evaluation.evaluate import evaluate_run
    from sae.interchange.load import load

    asked, folder = settings.evaluation, settings.sae_dir
    against = load(asked.against) if asked.against else None
    device = resolve_device(settings.device)
    return evaluate_run(load(folder), store, folder, device, asked, against, progress)


def _go_on(settings: Settings, error: NothingHeldOut) -> Evaluated:
    """What is said in the place of figures. Raises `UserError` for an SAE from elsewhere: only the
    figures tell whether it is one of these embeddings.
    """
    what = f"{error.what}: how well the SAE rebuilds new images is not measured"
    if settings.sae and not settings.allow_misfit:
        raise UserError(
            f"{what}, nor whether it is one of these embeddings; take more images and another "
            "--out. Nothing was asked; --allow-misfit goes on",
            FAILURES,
        )
    remedy = "" if settings.sae else " or a larger --holdout"
    return Evaluated({}, None, say_for_run(f"{what}; it would be with more images{remedy}"))


def read_figures(sae_dir: Path, store: EmbeddingStore) -> dict[str, float | int | None] | None:
    """What eval.json says of the SAE on this store; None where it was not evaluated on it."""
    from sae.core.files import parse_object
    from sae.evaluation.evaluate import REPORT

    path = sae_dir / REPORT
    if not path.exists():
        return None
    figures = parse_object(path.read_bytes(), str(path))
    of_store = figures.pop("store", "")
    figures.pop("format", None)
    return figures if of_store == store.info.identity else None
