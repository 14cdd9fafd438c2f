"""A run's labels.csv and scores.jsonl -> the same as parquet tables, and what a card says of them.

Both are texts that a model wrote: on a card they stand as words, never as Markdown or HTML.
"""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sae.core.csv_cells import UNCLEAR
from sae.core.files import parse_object, read_jsonl
from sae.core.label_table import read_label_table
from sae.interchange.hub.scrub import cut_places, require_no_key

if TYPE_CHECKING:
    import pandas as pd

LABELS_TABLE, SCORES_TABLE, SCORES = "labels.parquet", "scores.parquet", "scores.jsonl"
WHOSE = ("latent", "model", "explainer", "control", "domain")
"""Fields of a score of which the last line counts."""
ASIDE = ("server", "usd")
"""Fields that are of this machine's owner alone."""
N_SHOWN, MOST_LETTERS = 12, 80
_MARKS = re.compile(r"[\\`*_{}\[\]#!|~$:@.]")
"""What Markdown could take for more than a letter, and what makes an address of words."""


class LabelFigures(NamedTuple):
    """What a run says of the labels as a whole."""

    n_images: int
    """Images that were looked at; 0: not known."""
    explainers: tuple[str, ...]
    judges: tuple[str, ...]
    n_tested: int
    auroc: float
    """Mean over the tested labels; NaN without one."""
    n_better: int
    """Tested labels whose whole 95% interval is above chance."""
    n_supported: int | None
    """Of those held against other labels; None where none were."""
    best: tuple[tuple[int, str, float], ...]
    """Latent, label and AUROC of the labels that were tested best."""


def labels_table(labels: bytes) -> bytes:
    """labels.csv -> labels.parquet: the labels as they were written, numbers as numbers."""
    return _parquet(read_label_table(labels, "labels.csv"))


def scores_table(run: Path) -> bytes | None:
    """scores.jsonl of a run -> scores.parquet: the figures of each score that counts, controls too.

    None where nothing was scored. Raises `UserError` where a key stands in it.
    """
    import pandas as pd

    path = run / SCORES
    if not path.exists():
        return None
    newest: dict[tuple[object, ...], dict[str, Any]] = {}
    for line in read_jsonl(path):
        plain = {k: v for k, v in line.items() if isinstance(v, str | int | float | None)}
        for name in ASIDE:
            plain.pop(name, None)
        newest[tuple(line.get(name, "") for name in WHOSE)] = plain
    text = json.dumps(list(newest.values()))
    require_no_key(text, SCORES)
    rows = json.loads(cut_places(text).text)
    return _parquet(pd.DataFrame(rows)) if rows else None


def figures_of(labels: bytes, run: Path) -> LabelFigures:
    """What a card says of the labels, from labels.csv as it goes up, and the run's run.json."""
    table = read_label_table(labels, "labels.csv")
    named = table[(table["interpretation"] != "") & (_text(table, "verdict") != UNCLEAR)]
    tested = named[_number(named, "auroc").notna()]
    info = run / "run.json"
    n_images = parse_object(info.read_bytes(), str(info)).get("n_images") if info.exists() else 0
    supported = _text(table, "supported")
    best = tested.assign(auroc=_number(tested, "auroc")).nlargest(N_SHOWN, "auroc")
    return LabelFigures(
        n_images=n_images if isinstance(n_images, int) else 0,
        explainers=_words(named, "explainer"),
        judges=_words(tested, "scorer"),
        n_tested=len(tested),
        auroc=float(_number(tested, "auroc").mean()),
        n_better=int((_number(tested, "auroc_low") > 0.5).sum()),
        n_supported=int((supported == "supported").sum()) if supported.any() else None,
        best=tuple(
            (int(latent), str(label), float(auroc))
            for latent, label, auroc in zip(
                best["latent_id"], best["interpretation"], best["auroc"], strict=True
            )
        ),
    )


def describe(found: LabelFigures, repo: str, has_scores: bool) -> str:
    """Markdown: how the labels were made and tested, the best of them, and how to read them all."""
    seen = f" on {found.n_images:,} images" if found.n_images else ""
    lines = [f"Named by {_listed(found.explainers)}{seen}."]
    if found.n_tested:
        lines[0] += (
            f" {found.n_tested:,} labels were tested by {_listed(found.judges)} on images that the "
            f"namer never saw: mean AUROC {found.auroc:.3f} (0.5 is chance); the whole 95% "
            f"interval of {found.n_better:,} of them is above chance."
        )
    if found.n_supported is not None:
        lines[0] += (
            f" {found.n_supported:,} are supported: better than labels that say nothing of the "
            "latent, on the same images."
        )
    if found.best:
        rows = [f"| {n} | {as_words(label)} | {auroc:.3f} |" for n, label, auroc in found.best]
        lines.append("\n".join(["| latent | label | AUROC |", "|---|---|---|", *rows]))
    also = f'scores = pd.read_parquet("hf://{repo}/{SCORES_TABLE}")\n' if has_scores else ""
    lines.append(
        "All of them, in Python (pandas with huggingface_hub):\n\n"
        "```python\nimport pandas as pd\n\n"
        f'labels = pd.read_parquet("hf://{repo}/{LABELS_TABLE}")\n{also}```'
    )
    return "\n\n".join(lines)


def as_words(text: str) -> str:
    """A text as it may stand in a cell of a Markdown table: no mark-up, HTML, address or line end.

    A long one is cut.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 3]}..."
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", html.escape(line))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(as_words, names[:4])) or "nobody"


def _text(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    return table[name] if name in table else table["interpretation"].map(lambda _: "")


def _number(table: pd.DataFrame, name: str) -> pd.Series[Any]:
    return table[name] if name in table else table["latent_id"].map(lambda _: float("nan"))


def _words(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    return tuple(sorted({word for word in _text(table, name) if word}))


def _parquet(table: pd.DataFrame) -> bytes:
    held = io.BytesIO()
    table.to_parquet(held, engine="pyarrow", index=False)
    return held.getvalue()
