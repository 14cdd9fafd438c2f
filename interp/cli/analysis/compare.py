"""`interp compare`: two runs side by side, or two domains of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.core.errors import UserError, quote
from sae.core.files import did_you_mean

if TYPE_CHECKING:
    from interp.report.changes.compare import Pairing
    from interp.report.changes.files import CompareInfo, Shown
    from interp.report.changes.match import Matched
    from interp.run.run import Run

N_PRINTED = 8


def compare(
    run: Annotated[str, typer.Argument(help="Name under results/, or a folder.")],
    other: Annotated[
        str | None, typer.Argument(help="The run to hold against it.", show_default=False)
    ] = None,
    domains: Annotated[
        str, typer.Option(help="Two domains of RUN, in place of OTHER: a,b.", show_default=False)
    ] = "",
    match: Annotated[
        bool, typer.Option("--match", help="Of two SAEs: which latents are the same.")
    ] = False,
    pair: Annotated[
        str, typer.Option(help="What makes two images the same: content, or path.")
    ] = "content",
    least: Annotated[
        float,
        typer.Option(
            help="A rise or fall is more than this share of the latent's mean activation, with its "
            "whole interval.",
            min=0,
        ),
    ] = 0.15,
    out: Annotated[
        Path | None, console.declare_out("Folder for what is written; default: compare/ in RUN.")
    ] = None,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Which latents rise and fall, class by class, from one run to another of the same SAE?

    The same images in two CLIPs, say a plain and an adapted one; or, with --domains, two domains of
    one run; or, with --match, two SAEs. Labels against controls: `interp score --control`.
    """
    from interp.report.changes.files import FOLDER
    from sae.clip.model import resolve_device

    pairing, on = _pairing(other, domains, match, pair), str(resolve_device(device))
    first, second = _open(run, on), _open(other, on) if other else None
    folder = out or first.path / FOLDER
    if second is not None and match:
        _match(first, second, pairing, folder, on, json)
        return
    info, figure = _compare(first, second, domains, pairing, least, folder, on)
    figures = {k: v for k, v in dataclasses.asdict(info).items() if k not in ("shown", "format")}
    console.write_figures(json, figures)
    following = [] if out else [f"interp cards --run {quote(first.path)}"]
    console.finish({"changes": folder / "compare.csv", "figure": figure}, following)


def _open(name: str, device: str) -> Run:
    """A run whose store has embeddings, also where it was collected on the fly."""
    from interp.run.run import Run
    from sae.clip.live_store import with_embeddings

    run = Run.open(name)
    run.evidence.store = with_embeddings(run.evidence.store, device)
    return run


def _pairing(other: str | None, domains: str, match: bool, pair: str) -> Pairing:
    """Raises `UserError` for options that do not go together, or are not known."""
    from interp.report.changes.compare import PAIRINGS

    if (other is None) == (not domains):
        raise UserError("name what to compare: another run, or --domains a,b of this one")
    if match and domains:
        raise UserError("--match is for two runs; leave --domains out")
    for known in PAIRINGS:
        if known == pair:
            return known
    near = did_you_mean(pair, PAIRINGS)
    raise UserError(f"--pair {pair!r} is none of {', '.join(PAIRINGS)}{near}")


def _compare(
    first: Run,
    second: Run | None,
    domains: str,
    pairing: Pairing,
    least: float,
    folder: Path,
    device: str,
) -> tuple[CompareInfo, Path]:
    from interp.report.changes.compare import compare_domains, compare_runs
    from interp.report.changes.figure import FILE, draw_changes
    from interp.report.changes.files import clearest, write_changes
    from sae.core.progress import bar

    with bar("compare") as progress:
        if second is not None:
            compared = compare_runs(first, second, pairing, least, device, progress)
        else:
            compared = compare_domains(first, domains, least, device, progress)
    info = write_changes(folder, first, second, compared, least)
    said = first.results.newest_explanations()
    labels = {n: one.label or "" for n, one in said.items()}
    rises, falls = clearest(compared, 1), clearest(compared, -1)
    _say(info, rises, falls, labels)
    note = f"from {info.before} to {info.after}; q below .05, {info.n_tested:,} {_tested(info)}"
    return info, draw_changes(folder / FILE, rises, falls, labels, note)


def _say(
    info: CompareInfo, rises: Sequence[Shown], falls: Sequence[Shown], labels: dict[int, str]
) -> None:
    images = f"{info.n_before:,} images"
    if not info.pairing:
        images = f"{info.n_before:,} and {info.n_after:,} images"
    left = f"; {info.n_left_out:,} are in one of them alone" if info.n_left_out else ""
    console.say(f"{info.before} -> {info.after}: {images}, {info.n_classes} classes{left}")
    console.say(
        f"  {info.n_tested:,} {_tested(info)} tested: {info.n_rise:,} rise "
        f"({info.latents_rise} latents), {info.n_fall:,} fall ({info.latents_fall} latents)"
        f" by more than {info.least:.0%} of their mean activation, q .05"
    )
    if not info.n_tested:
        console.say("  no latent differs on enough images for a test")
    rows = []
    for name, found in (("rises", rises), ("falls", falls)):
        for one in found[:N_PRINTED]:
            where = one.class_name or "all images"
            interval = f"{one.low:.3g} to {one.high:.3g}"
            what = f"{one.latent:>6}  {_cut(labels.get(one.latent, '') or '(no label)')}"
            rows.append(
                (what, name, _cut(where), f"{one.difference:+.3g}", interval, f"{one.q:.2g}")
            )
    if rows:
        heads = ("latent  label", "", "class", "difference", "95%", "q")
        console.print_table(rows, heads)


def _tested(info: CompareInfo) -> str:
    return "pairs of class and latent" if info.in_classes else "latents over all images"


def _match(
    first: Run, second: Run, pair: Pairing, folder: Path, device: str, json: Path | None
) -> None:
    from interp.report.changes.files import MATCHES, write_matches
    from interp.report.changes.match import match_saes
    from sae.core.progress import bar

    with bar("match") as progress:
        matched = match_saes(first, second, pair, device, progress)
    _say_matched(matched)
    console.write_figures(json, write_matches(folder, matched))
    console.finish({"matches": folder / MATCHES})


def _say_matched(matched: Matched) -> None:
    console.say(
        f"{matched.first} and {matched.second} on {matched.n_images:,} images: "
        f"{matched.count('matched')} latents are in both; "
        f"{matched.count('shared', 'first')} and {matched.count('shared', 'second')} more have one "
        f"that is alike; {matched.count('only first')} are in {matched.first} alone, "
        f"{matched.count('only second')} in {matched.second}"
    )
    pairs = sorted(
        (m for m in matched.matches if m.kind == "matched"), key=lambda m: -m.correlation
    )
    rows = [
        (
            f"{m.latent:>6}  {_cut(m.label)}",
            f"{m.other}  {_cut(m.other_label)}",
            f"{m.correlation:.2f}",
        )
        for m in pairs[:N_PRINTED]
    ]
    if rows:
        console.print_table(rows, (matched.first, matched.second, "correlation"))


def _cut(words: str) -> str:
    from interp.report.canvas import one_line

    return one_line(words, 32)
