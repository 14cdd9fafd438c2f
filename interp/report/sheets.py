"""One picture per latent, for a paper, a mail or a quick look: `interp show`."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.evidence.bad_images import report_bad_images
from interp.records.types import Evidence, Example, Explanation, Score, Verdict
from interp.records.wording import interpretation
from interp.report.canvas import (
    ACCENT,
    BACKGROUND,
    BAD,
    BAR,
    DPI,
    GOOD,
    LINE,
    MARGIN,
    SERIF,
    SOFT,
    WIDTH,
    Canvas,
    printable,
)
from interp.report.choice import spread
from interp.report.figures import act, fixed, percent, whole
from interp.run.run import Run
from sae.core.files import replacing
from sae.core.lock import LOCK, hold

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.evidence.reader import EvidenceReader

_GAP = 0.1
"""Inches between two images."""
_MOST_DOMAINS = 5
"""Lines that there is room for; of more domains the strongest are shown."""
_DOMAIN_COLOURS = ("#3d6ea8", "#c9772b", "#4d8c6a", "#8d5a9c", "#7b7f6d")


def write_sheets(
    run: Run, latents: Sequence[int], out: Path, per_side: int = 8, heat: bool = True
) -> list[Path]:
    """Write `out/latent-00017.png` for each latent and return the paths.

    `per_side` images stand in a row: the strongest of each domain, and of the held-out test the
    active and the silent ones; with `heat` red lies where a latent of patches answers. Equal inputs
    give equal bytes. Raises `UserError` when the run is
    not collected or has no such latent, and with exit code 4, the sheets written, when over 1% of
    the images are not as they were embedded.
    """
    paths = []
    with closing(hold(out / LOCK)):
        for latent in latents:
            path = out / f"latent-{latent:05d}.png"
            with replacing(path) as part:
                part.write_bytes(sheet_png(run, latent, per_side, heat))
            paths.append(path)
    report_bad_images(run.evidence, f"they are marked as missing in {out}")
    return paths


def write_pdf(
    run: Run, latents: Sequence[int], out: Path, per_side: int = 8, heat: bool = True
) -> Path:
    """Write one PDF with the same sheets, a page each, and return its path: complete or absent.
    Its letters and lines are drawn, not pixels. Errors as `write_sheets`."""
    from matplotlib.backends.backend_pdf import PdfPages

    nameless: Any = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    with replacing(out) as part, PdfPages(part, metadata=nameless) as pages:
        for latent in latents:
            has_heat = heat and bool(run.evidence.info.grid)
            pages.savefig(
                _figure(run.evidence, _sheet(run, latent), per_side, has_heat),
                facecolor=BACKGROUND,
            )
    report_bad_images(run.evidence, f"they are marked as missing in {out}")
    return out


def sheet_png(run: Run, latent: int, per_side: int = 8, heat: bool = True) -> bytes:
    """One latent's sheet as a PNG file's content; errors as `write_sheets`."""
    return _png(run.evidence, _sheet(run, latent), per_side, heat and bool(run.evidence.info.grid))


@dataclass(frozen=True)
class Sheet:
    """What one sheet tells."""

    evidence: Evidence
    explanation: Explanation | None
    score: Score | None
    domains: list[str]
    pool: str
    """How an image's activation comes of its tokens'; "" where it is that of one."""


def _sheet(run: Run, latent: int) -> Sheet:
    explanation, score = run.results.explanation(latent), None
    if run.results.score(latent) is not None:  # one of an earlier label is not drawn
        score = run.results.score_with_verdicts(latent)
    evidence, tokens = run.evidence, run.evidence.store.info.tokens
    pool = "" if "cls" in (tokens, evidence.info.pool) else evidence.info.pool
    return Sheet(evidence.of(latent), explanation, score, list(evidence.store.domains), pool)


def _png(reader: EvidenceReader, sheet: Sheet, per_side: int, heat: bool) -> bytes:
    """No date and no version go into the file."""
    buffer = io.BytesIO()
    figure = _figure(reader, sheet, per_side, heat)
    figure.savefig(buffer, format="png", facecolor=BACKGROUND, metadata={"Software": None})
    return buffer.getvalue()


def _figure(reader: EvidenceReader, sheet: Sheet, per_side: int, heat: bool) -> Figure:
    """The canvas is cut where the drawing ended."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    heat_of = reader.heat if heat else None
    canvas = Canvas(figure.add_axes((0.0, 0.0, 1.0, 1.0)), reader, heat_of)
    _draw(canvas, sheet, per_side)
    height = math.ceil((canvas.y + MARGIN - 0.15) * DPI) / DPI
    figure.set_size_inches(WIDTH, height)
    canvas.axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    canvas.axes.axis("off")
    return figure


def _draw(canvas: Canvas, sheet: Sheet, per_side: int) -> None:
    _title(canvas, sheet)
    _figures(canvas, sheet)
    if sheet.evidence.stats.status == "dead":
        return
    for domain in sheet.domains:
        _top_row(canvas, sheet.evidence, domain, per_side)
    _quantile_row(canvas, sheet.evidence)
    if sheet.score and sheet.score.verdicts:
        _test_rows(canvas, sheet.evidence, sheet.score, per_side)


def _title(canvas: Canvas, sheet: Sheet) -> None:
    said, stats = sheet.explanation, sheet.evidence.stats
    label = interpretation(said)
    canvas.text(MARGIN, canvas.y, f"latent {stats.latent}  ·  {stats.status}", 9, color=SOFT)
    canvas.y += 0.24
    style = {"family": SERIF} if label else {"family": SERIF, "style": "italic", "color": SOFT}
    words = label or _no_label(said, stats.status)
    for row in textwrap.wrap(printable(words), 52, max_lines=2, placeholder=" …") or [" "]:
        canvas.text(MARGIN, canvas.y, row, 20, **style)
        canvas.y += 0.36
    for row in textwrap.wrap(
        printable((said.description or said.provenance) if said else ""), 110, max_lines=3
    ):
        canvas.text(MARGIN, canvas.y + 0.04, row, 9.5, color=SOFT)
        canvas.y += 0.19
    canvas.y += 0.24


def _no_label(said: Explanation | None, status: str) -> str:
    if status == "dead":
        return "Never active"
    return f"No label: {_why(said)}" if said else "Not labelled yet"


def _why(record: Explanation | Score) -> str:
    """The kind of a failure and the server's words for it."""
    kind = (record.failure or "").replace("_", " ")
    return printable(f"{kind}: {record.reason}" if record.reason else kind)


def _figures(canvas: Canvas, sheet: Sheet) -> None:
    """Three columns: score, histogram, domains."""
    width = (WIDTH - 2 * MARGIN - 1.0) / 3
    columns = [MARGIN + i * (width + 0.5) for i in range(3)]
    _score_column(canvas, sheet.score, columns[0], width)
    if sheet.evidence.stats.status != "dead":
        _histogram_column(canvas, sheet, columns[1], width)
        _domain_column(canvas, sheet, columns[2], width)
    canvas.y += 1.62


def _score_column(canvas: Canvas, score: Score | None, x: float, width: float) -> None:
    y = canvas.y
    canvas.text(x, y, "Predicts unseen images", 9, weight="bold")
    if score is None or math.isnan(score.auroc):
        why = f"Not scored: {_why(score)}" if score else "Not scored."
        for row in textwrap.wrap(why, 34, max_lines=4, placeholder=" ..."):
            canvas.text(x, y + 0.27, row, 9, color=SOFT)
            y += 0.19
        return
    canvas.text(x, y + 0.25, fixed(score.auroc), 22, family=SERIF)
    interval = f"AUROC\n95%: {fixed(score.auroc_low)} to {fixed(score.auroc_high)}"
    canvas.text(x + 0.85, y + 0.28, interval, 8, color=SOFT, linespacing=1.35)
    track = y + 0.95
    canvas.line((x, x + width), (track, track))
    canvas.line((x + width / 2,) * 2, (track - 0.14, track + 0.14), color=SOFT, ls=(0, (2, 2)))
    ends = [x + width * value for value in (score.auroc_low, score.auroc_high)]
    canvas.line(ends, (track, track), color=ACCENT, lw=2.2, alpha=0.6)
    canvas.line([x + width * score.auroc], [track], color=ACCENT, marker="o", ms=8)
    for share, words, side in ((0.0, "0", "left"), (0.5, "chance", "center"), (1.0, "1", "right")):
        canvas.text(x + width * share, track + 0.2, words, 7, color=SOFT, ha=side)


def _histogram_column(canvas: Canvas, sheet: Sheet, x: float, width: float) -> None:
    from matplotlib.patches import Rectangle

    stats, y = sheet.evidence.stats, canvas.y
    pool = f", {sheet.pool} of an image's tokens" if sheet.pool else ""
    canvas.text(x, y, f"Activation{pool}", 9, weight="bold")
    heights = np.log1p(stats.hist) / np.log1p(max(*stats.hist, 1)) * 0.78  # (32,)
    base, bar = y + 1.08, width / len(heights)
    for i, height in enumerate(heights):
        corner = (x + i * bar, base - height)
        canvas.axes.add_patch(Rectangle(corner, 0.8 * bar, height, facecolor=BAR))
    canvas.line((x, x + width), (base, base))
    for share, side in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
        value = act(share * stats.max_act)
        canvas.text(x + width * share, base + 0.06, value, 7, color=SOFT, ha=side)
    is_known = sheet.pool and not math.isnan(stats.token_frequency)
    of_tokens = f", {percent(stats.token_frequency)} of tokens" if is_known else ""
    fact = f"{stats.n_active:,} active images ({percent(stats.frequency)}){of_tokens}; logarithmic"
    canvas.text(x, base + 0.22, fact, 7, color=SOFT)


def _domain_column(canvas: Canvas, sheet: Sheet, x: float, width: float) -> None:
    rates, y = sheet.evidence.stats.domain_rate, canvas.y
    canvas.text(x, y, "Share of images on which it is active", 9, weight="bold")
    most = max([*rates.values(), 1e-12])
    named = sheet.domains
    if len(named) > _MOST_DOMAINS:
        named = sorted(named, key=lambda domain: -rates[domain])[: _MOST_DOMAINS - 1]
        rest = max(rates[domain] for domain in sheet.domains if domain not in named)
        words = f"{len(sheet.domains) - len(named)} more domains: at most {percent(rest)} each"
        canvas.text(x, y + 0.38 + 0.22 * len(named), words, 8, color=SOFT, va="center")
    for i, domain in enumerate(named):
        row, colour = y + 0.38 + 0.22 * i, _DOMAIN_COLOURS[sheet.domains.index(domain) % 5]
        start, length = x + 0.95, width - 1.5
        canvas.text(x, row, textwrap.shorten(domain, 14) or domain[:14], 8, va="center")
        canvas.line((start, start + length), (row, row), lw=5, color="#ece8e1")
        canvas.line((start, start + length * rates[domain] / most), (row, row), lw=5, color=colour)
        share = percent(rates[domain])
        canvas.text(x + width, row, share, 8, color=SOFT, va="center", ha="right")


def _top_row(canvas: Canvas, evidence: Evidence, domain: str, per_side: int) -> None:
    examples = [e for e in evidence.of("explain", "top") if e.domain == domain][:per_side]
    where = "; red: where in the image" if canvas.heat_of else ""
    canvas.heading(f"Strongest: {domain}", f"activation below each image{where}")
    if not examples:
        canvas.text(MARGIN, canvas.y, "Active on none of them.", 9, color=SOFT)
        canvas.y += 0.4
        return
    _row(canvas, [(e, act(e.act), SOFT, LINE) for e in examples], per_side)


def _quantile_row(canvas: Canvas, evidence: Evidence) -> None:
    """Two images of every part of the sample, from the weakest to the strongest."""
    sample = evidence.of("explain", "quantile")
    strata = [[e for e in sample if e.stratum == s] for s in sorted({e.stratum for e in sample})]
    if not strata:
        return
    canvas.heading("Across its range", "images drawn at random, weakest to strongest")
    group = (WIDTH - 2 * MARGIN + 0.22) / len(strata)
    side = min((group - 0.22 - 0.06) / 2, 1.3)
    for i, part in enumerate(strata):
        for j, example in enumerate(part[:2]):
            canvas.image(example, MARGIN + i * group + j * (side + 0.06), side)
        acts = [e.act for e in part]
        words = f"{act(min(acts))} to {act(max(acts))}"
        canvas.text(MARGIN + i * group, canvas.y + side + 0.06, words, 8, color=SOFT)
    canvas.y += side + 0.42


def _test_rows(canvas: Canvas, evidence: Evidence, score: Score, per_side: int) -> None:
    held_out = {e.image_id: e for e in evidence.examples if e.side == "score"}
    weak = any(v.kind == "weak" for v in score.verdicts)
    silent = "Unseen, silent or weak" if weak else "Unseen, silent"
    for truth, name in ((True, "Unseen, active"), (False, silent)):
        verdicts = [v for v in score.verdicts if v.truth == truth and v.image_id in held_out]
        right = sum(_right(v) for v in verdicts)
        canvas.heading(name, f"judge's answer 0 to 100; {right} of {len(verdicts)} right")
        shown = sorted(verdicts, key=lambda v: (v.kind != "hard", -v.act, v.image_id))
        shown = spread(shown, per_side)
        _row(canvas, [(held_out[v.image_id], *_verdict(v)) for v in shown], per_side)


def _right(v: Verdict) -> bool:
    """As balanced accuracy counts: 50 fits, and no answer is wrong."""
    return v.score is not None and (v.score >= 50) == v.truth


def _verdict(v: Verdict) -> tuple[str, str, str]:
    """(words, their colour, the frame's colour)."""
    words = "no answer" if v.score is None else f"{'✓' if _right(v) else '✗'} {whole(v.score)}"
    kind = {"hard": "  look-alike", "weak": "  weak"}.get(v.kind, "")
    return words + kind, GOOD if _right(v) else BAD, LINE if _right(v) else BAD


def _row(canvas: Canvas, cells: Sequence[tuple[Example, str, str, str]], per_side: int) -> None:
    """Cells are (image, words below it, their colour, the frame's colour)."""
    side = min((WIDTH - 2 * MARGIN + _GAP) / per_side - _GAP, 1.6)
    for i, (example, words, colour, frame) in enumerate(cells):
        x = MARGIN + i * (side + _GAP)
        canvas.image(example, x, side, frame)
        style = {"color": colour, "ha": "center"}
        canvas.text(x + side / 2, canvas.y + side + 0.06, words, 8, **style)
    canvas.y += (side + 0.42) if cells else 0.2
