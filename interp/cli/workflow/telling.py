"""What each step of a run came to -> lines for a person, figures, and the exit code."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.analysis.transfer import say_transfer, transfer_verdict
from interp.cli.ask import verdict
from interp.cli.judged import say_tasks
from interp.cli.said import (
    flatten,
    say_against_linear,
    say_apart,
    say_chosen,
    say_explained,
    say_newest,
    say_scored,
    say_shared,
    say_specific,
)
from interp.pipeline.settings import Work
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
    Trained,
)
from interp.records.circular import is_circular
from sae.cli import console
from sae.core.errors import OK, quote

if TYPE_CHECKING:
    from interp.pipeline.workflow.settings import Settings
    from interp.run.run import Run


class Telling:
    """Says what comes, step by step, and keeps the figures of it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.figures: dict[str, Any] = {}
        """One flat object of all that was told so far."""
        self.code = OK
        self._wrote: dict[str, Path] = {}

    def tell(self, outcome: Any) -> None:
        """Say what a step came to."""
        self._tell(outcome)

    @functools.singledispatchmethod
    def _tell(self, outcome: object) -> None:
        raise TypeError(f"nothing is known to say of {outcome!r}")

    @_tell.register
    def _(self, done: Embedded) -> None:
        info, skipped = done.info, ""
        if done.info.n_skipped:
            skipped = f"; {info.n_skipped:,} left out, see store/skipped.csv"
        console.say(f"{info.n_images:,} images embedded{skipped}")

    @_tell.register
    def _(self, done: Trained) -> None:
        result = done.result
        k = f", k {result.model.config.k}" if result.model.config.k else ""
        if result.choice:
            console.say(result.choice.why())
        console.say(
            f"{result.model.n_latents:,} latents{k}; on the last batch FVU {result.last.fvu:.3f}, "
            f"L0 {result.last.l0:.1f}, dead {result.last.dead:.1%}"
        )

    @_tell.register
    def _(self, done: Imported) -> None:
        console.say(f"{done.n_latents:,} latents brought here")
        for note in done.notes:
            console.say(f"  {note}")

    @_tell.register
    def _(self, done: Evaluated) -> None:
        self.figures |= done.figures
        if done.missing:
            console.complain(done.missing)
        if done.report is None:
            return
        console.print_table(*done.report.table())
        for remark in done.report.remarks():
            console.complain(remark)

    @_tell.register
    def _(self, done: Collected) -> None:
        info = done.info
        console.say(f"{info.n_live} live latents, {info.n_dead} dead, {info.n_dense} dense")
        console.say(f"  {info.describe(info.n_images)}")

    @_tell.register
    def _(self, done: Explained) -> None:
        named = done.named
        say_explained(named.summary, done.settings)
        self.figures |= _under("explain", flatten(named.summary._asdict()))
        if named.choice:
            self.figures |= say_chosen(named.choice, done.run.info.clip)
        for number, told in enumerate(named.rounds, 1):
            self.figures |= _under(f"apart/{number}", say_apart(told, done.settings))
        _say_refusals(named.refusals)
        if not named.rounds:
            say_shared(done.run.results.newest_explanations())
        for summary in (named.summary, *(told.summary for told in named.rounds)):
            self._judge(verdict(summary.n_unusable, summary.n_asked, self._work))

    @_tell.register
    def _(self, done: Scored) -> None:
        from interp.report.nulls.controls import flat, side_by_side, table
        from interp.report.nulls.specificity import specificities

        run, summary = done.run, done.summary
        counts: list[tuple[int, int]] = []
        if summary is not None:
            say_scored(summary, is_circular(summary.scorer, run.info.clip))
            self.figures |= _under("score", flatten(dataclasses.asdict(summary)))
            counts.append((summary.n_missing, summary.n_images))
        rows = side_by_side(run)
        if len(rows) > 1:
            console.print_table(table(rows))
        self.figures |= flat(rows) | say_tasks(done.plan, done.tasks, counts)
        for say in (say_newest, say_against_linear):
            self.figures |= say(run.results)
        self.figures |= say_specific(specificities(run.results))
        _say_refusals(done.refusals)
        n_missing, n_asked = (sum(pair[side] for pair in counts) for side in (0, 1))
        self._judge(verdict(n_missing, n_asked, self._work))

    @_tell.register
    def _(self, done: Edited) -> None:
        for line in done.summary.lines():
            console.say(line)

    @_tell.register
    def _(self, done: Crossed) -> None:
        say_transfer(done.made, done.run.info.clip)
        self.figures |= done.made.transfer.flat()
        self._judge(transfer_verdict(done.made, self._work))

    @_tell.register
    def _(self, done: Carded) -> None:
        self._wrote = {"labels": done.labels, "gallery": done.gallery}

    def finish(self, run: Run, settings: Settings, json: Path | None) -> int:
        """The summary, figures, and where to look; the exit code comes back."""
        from interp.pipeline.workflow.summary import summarise_run

        found = summarise_run(run)
        console.say()
        for line in found.lines(settings.explainer.max_cost):
            console.say(line)
        console.write_figures(json, {**self.figures, **_under("run", found.flat())})
        gallery = quote(self._wrote["gallery"])
        console.finish(self._wrote, [f"open {gallery} in a browser"])
        return self.code

    def _judge(self, code: int) -> None:
        self.code = max(self.code, code)


def _say_refusals(lines: Sequence[str]) -> None:
    for line in lines:
        console.say(f"  asked with {line}")


def _under(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}/{key}": value for key, value in figures.items()}
