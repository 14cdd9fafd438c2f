"""`--from STEP`: what that step and later ones have made is thrown away; what was paid stays."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from interp.evidence.config import FOLDER
from interp.pipeline.clip.vectors import FOLDER as FOUND
from interp.pipeline.workflow.names import (
    CARDS,
    CAUSAL,
    COLLECT,
    EMBED,
    EVAL,
    EXPLAIN,
    IMPORT,
    ORDER,
    SCORE,
    TRAIN,
    TRANSFER,
)
from interp.report.changes.files import FOLDER as COMPARED
from interp.report.find import EXPLAINED
from interp.report.nulls.controls import FOLDER as CONTROLS
from interp.report.transfer_figure import FILE as FIGURE
from interp.run.results import CAUSAL as EFFECTS
from interp.run.results import EXPLANATIONS, SCORES, TASKS
from interp.run.run import CANDIDATES, DISAMBIGUATION, INFO, UNFINISHED, Run
from interp.run.run import TRANSFER as CROSSED
from interp.run.transfer_file import FILE as CROSSED_FILE
from sae.core.files import FORMAT, write_json
from sae.evaluation.evaluate import REPORT

LEDGER = "calls.sqlite"
OF_ONE_SAE = (CONTROLS, "classes")
"""What other commands have left there, which says nothing of another SAE."""
MADE: dict[str, tuple[str, ...]] = {
    EMBED: ("store",),
    TRAIN: ("sae-trained", *OF_ONE_SAE),
    IMPORT: ("sae-imported", *OF_ONE_SAE),
    EVAL: (f"sae-trained/{REPORT}", f"sae-imported/{REPORT}"),
    COLLECT: (INFO, "sae", FOLDER, EXPLAINED, COMPARED),
    EXPLAIN: (EXPLANATIONS, CANDIDATES, DISAMBIGUATION),
    SCORE: (SCORES, TASKS),
    CAUSAL: (EFFECTS,),
    TRANSFER: (CROSSED, CROSSED_FILE, FIGURE),
    CARDS: ("labels.csv", "gallery", FOUND),
}
"""What each step leaves in a run's folder. The ledger of paid answers is in none, nor is what a
person has said."""


def is_thrown_away(step: str, from_step: str) -> bool:
    """Whether `--from from_step` throws away what `step` has made."""
    return bool(from_step) and ORDER.index(step) >= _first(from_step)


def find_discarded(out: Path, from_step: str) -> list[Path]:
    """What `--from from_step` would throw away, in the order of the steps."""
    made = (out / name for step in ORDER if is_thrown_away(step, from_step) for name in MADE[step])
    return [path for path in dict.fromkeys(made) if path.exists()]


def discard(out: Path, from_step: str) -> list[Path]:
    """Throw it away, and return what that was.

    The last step's files go first: killed in between, what is left is a run whose first steps are
    done. Raises `UserError` while another process works on the run.
    """
    found = find_discarded(out, from_step)
    if not found:
        return found
    with closing(Run(out).hold()):
        if out / INFO in found:
            write_json(out / UNFINISHED, {"format": FORMAT})
        for path in reversed(found):
            if path.is_dir():
                _remove_folder(path)
            else:
                path.unlink(missing_ok=True)
    return found


def _first(from_step: str) -> int:
    """A run trains or imports: either word means that step."""
    return ORDER.index(TRAIN if from_step == IMPORT else from_step)


def _remove_folder(folder: Path) -> None:
    """The files that say that it is complete go first."""
    for name in ("store.json", "config.json", "collect.json"):
        (folder / name).unlink(missing_ok=True)
    ledgers = {path.parent for path in folder.rglob(LEDGER)}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_symlink() or not path.is_dir():
            if not path.name.startswith(LEDGER):
                path.unlink()
        elif not any(ledger.is_relative_to(path) for ledger in ledgers):
            path.rmdir()
    if not ledgers:
        folder.rmdir()
