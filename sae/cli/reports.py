"""What a command has done -> what it prints, and the next command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae.cli import console
from sae.core.errors import quote

if TYPE_CHECKING:
    from sae.clip.embed import Meter
    from sae.data.sources.folders import ImageFile
    from sae.data.store_format import StoreInfo
    from sae.evaluation.report import EvalReport
    from sae.training.sweep.run import Sweep
    from sae.training.train import TrainResult


def report_embedding(
    stores: Mapping[Path, StoreInfo], files: Sequence[ImageFile], meter: Meter, json: Path | None
) -> None:
    """What was embedded, what was left out: the same in all `stores`; and how fast."""
    from sae.data.sources.folders import name_lost_classes
    from sae.data.store import EmbeddingStore
    from sae.data.store_format import read_skipped
    from sae.data.store_writer import DUPLICATE

    out, info = next(iter(stores.items()))
    skipped = read_skipped(out / "skipped.csv")
    n_twice = sum(line.reason.startswith(DUPLICATE) for line in skipped)
    kinds = f" ({n_twice} there twice, {len(skipped) - n_twice} unreadable)" if skipped else ""
    sizes = [f"{each.tokens_per_image} x {each.d}" for each in stores.values()]
    console.say(
        f"embedded {info.n_images} images ({', '.join(info.roots)}), {' and '.join(sizes)} each; "
        f"skipped {info.n_skipped}{kinds}"
    )
    if meter.n_images:
        console.say(
            f"  {meter.images_per_second:,.1f} images/s, model busy {meter.busy:.0%}: "
            f"{meter.n_images} images in {meter.seconds:.1f} s"
        )
    images = EmbeddingStore.open(out).images
    embedded = Counter(zip(images["domain"], images["label"], strict=True))
    for line in name_lost_classes(files, embedded):
        console.complain(line)
    console.write_figures(
        json,
        {
            "n_images": info.n_images,
            "n_skipped": info.n_skipped,
            "n_embedded_now": meter.n_images,
            "seconds": meter.seconds,
            "images_per_second": meter.images_per_second,
            "model_busy": meter.busy,
        },
    )
    wrote = {"store" if len(stores) == 1 else place.name: place for place in stores}
    console.finish(
        wrote | ({"skipped": out / "skipped.csv"} if info.n_skipped else {}),
        [
            f"sae train {quote(place)} --out {quote(_place_of_sae(place, len(stores) > 1))}"
            for place in stores
        ],
    )


def _place_of_sae(store: Path, is_one_of_several: bool) -> Path:
    """Beside the store, but not ./sae, which can hide the package of that name."""
    if is_one_of_several:
        return store.parent.with_name(f"sae-{store.name}")
    place = store.parent / "sae"
    return Path("work/sae") if place.resolve() == Path.cwd() / "sae" else place


def report_evaluation(
    report: EvalReport, folder: Path | None, plots: bool, json: Path | None
) -> dict[str, Path]:
    """Print the figures; comes back with what was written beside the SAE."""
    from sae.evaluation.report import plot_report

    console.print_table(*report.table())
    if report.variants_table()[0]:
        console.print_table(*report.variants_table())
    for remark in report.remarks():
        console.complain(remark)
    console.write_figures(json, report.flat())
    wrote = {"report": folder / "eval.json"} if folder else {}
    return wrote | (plot_report(report, folder) if folder and plots else {})


def report_training(result: TrainResult, following: Sequence[str], json: Path | None) -> None:
    """The figures of the last batch."""
    row, n_latents, k = result.last, result.model.n_latents, result.model.config.k
    state = "already trained with these settings"
    if result.trained:
        state = f"trained with the {result.engine} engine"
    if result.n_before:
        state += f" (from step {result.n_before} on)"
    if result.choice:
        console.say(result.choice.why())
    console.say(
        f"{state}: {n_latents} latents{f', k {k}' if k else ''}; on the last batch "
        f"FVU {row.fvu:.3f}, L0 {row.l0:.1f}, dead {row.dead:.1%}"
    )
    console.write_figures(json, row._asdict())
    console.finish({"SAE": result.out}, following)


def report_sweep(sweep: Sweep, following: Sequence[str], json: Path | None) -> None:
    """A line for each SAE."""
    n_there = len(sweep.rows) - sweep.n_trained - len(sweep.failures())
    there = f" ({n_there} were there already)" if n_there else ""
    console.say(f"{len(sweep.rows)} SAEs{there}, {sweep.measured_on()}; * no other beats in both")
    console.print_table(*sweep.table())
    for name, failure in sweep.failures().items():
        console.say(f"{name} was not trained: {failure}")
    console.write_figures(json, sweep.flat())
    console.finish(sweep.files(), following)
