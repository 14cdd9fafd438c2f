"""What an evaluation found -> one flat object, tables, figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sae.evaluation.dictionary import Coherence, Stability
from sae.evaluation.reconstruction import DENSE_RATE, Fit
from sae.evaluation.zeroshot import ZeroShot

MAX_DRIFT = 0.1
"""Share of k by which L0 may differ from it before that is said."""


@dataclass(frozen=True)
class EvalReport:
    """Everything that `sae eval` prints and writes."""

    overall: Fit
    domains: dict[str, Fit]
    """Domains without an image among the rows are left out."""
    at_k: dict[int, Fit] = field(default_factory=dict)
    """The same SAE with other k, on the same tokens, all domains together."""
    at_prefix: dict[int, Fit] = field(default_factory=dict)
    """The same for the prefixes of a Matryoshka SAE, by their latents, as training has them: later
    latents compete for the k places, and what they win is left out."""
    at_own_prefix: dict[int, Fit] = field(default_factory=dict)
    """The same prefixes as dictionaries by themselves: each token keeps the k largest of their own.
    Empty for the rules that have no k."""
    k: int = 0
    """What a BatchTopK should keep per token, on average; 0 for the other rules."""
    coherence: Coherence | None = None
    """Of the latents that fire on these tokens."""
    stability: Stability | None = None
    """Against another SAE; None when there was none."""
    zeroshot: dict[str, dict[str, ZeroShot]] = field(default_factory=dict)
    """By templates ("1", "80", "sketch", "own"), then domain, "" for all; empty when it was not
    asked for or there are no classes."""
    frequency: dict[str, NDArray[np.float64]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """By domain, "" for all: (n_latents,) share of the tokens on which each latent fires."""

    def flat(self) -> dict[str, float | int | None]:
        """One flat object: "fvu", "zeroshot_sae_top1", "sketch/fvu", "sketch/zeroshot80_sae_top1",
        "fvu_at_k16", "fvu_at_prefix256", "fvu_at_prefix256_own", "l0_over_k", "mean_max_cosine",
        "stability_matched_cosine".

        What is not a number (the fvu of a single token) is None.
        """
        flat: dict[str, float | int] = {}
        for domain, fit in {"": self.overall, **self.domains}.items():
            flat |= _named(asdict(fit), domain)
        for name, fit in self._variants().items():
            flat |= {f"fvu_at_{name}": fit.fvu, f"l0_at_{name}": fit.l0}
        if self.k:
            flat["l0_over_k"] = self.overall.l0 / self.k
        if self.coherence is not None:
            flat |= asdict(self.coherence)
        if self.stability is not None:
            flat |= _named(asdict(self.stability), prefix="stability_")
        for templates, results in self.zeroshot.items():
            for domain, result in results.items():
                flat |= _named(asdict(result), domain, _prefix(templates))
        return {name: None if math.isnan(value) else value for name, value in flat.items()}

    def table(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """Rows and header to print: a line per figure, a column per domain."""
        flat = self.flat()
        columns = ["", *self.domains]
        names = list(dict.fromkeys(k.rpartition("/")[2] for k in flat if "_at_" not in k))
        # What the SAE keeps of chance says nothing, and there is no delta.
        for key in self._untold():
            flat.pop(key, None)
        names = [n for n in names if any(_key(c, n) in flat for c in columns)]
        rows = [(name, *(_cell(flat.get(_key(c, name))) for c in columns)) for name in names]
        return rows, ("", "all", *self.domains)

    def variants_table(self) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
        """The same of the other k and of the Matryoshka's prefixes: a line each; [] without any."""
        rows: list[tuple[str, ...]] = [
            (name, _cell(fit.fvu), _cell(fit.l0), _cell(fit.dead))
            for name, fit in self._variants().items()
        ]
        return rows, ("", "fvu", "l0", "dead")

    def remarks(self) -> list[str]:
        """What to say of an L0 that is not k, and of zero-shot figures that tell of no loss."""
        return self._drift() + [
            f"{_key(domain, _prefix(templates)[:-1])}: {result.raw_top1:.1%} of {result.n_images} "
            f"images are named right without the SAE, not above chance (1 in {result.n_classes}): "
            "no loss can be told; are the classes words that CLIP knows? `sae embed --classes FILE`"
            for templates, domain, result in self._at_chance()
            if not domain or not self._is_at_chance(templates)
        ]

    def _drift(self) -> list[str]:
        """What is to be said where a BatchTopK's L0 is far from its k on these images."""
        if not self.k or abs(self.overall.l0 / self.k - 1) <= MAX_DRIFT:
            return []
        off = self.overall.l0 / self.k - 1
        return [
            f"L0 on these images is {self.overall.l0:.1f}, {abs(off):.0%} "
            f"{'above' if off > 0 else 'below'} the k {self.k} of its training: the threshold does "
            "not fit images that it was not learned on, and the FVU is that of another L0; "
            "`sae eval ... --calibrate` sets it on half of the held-out images"
        ]

    def _is_at_chance(self, templates: str) -> bool:
        """Whether that is said of all domains together already."""
        overall = self.zeroshot[templates].get("")
        return overall is not None and math.isnan(overall.delta_top1)

    def _at_chance(self) -> Iterator[tuple[str, str, ZeroShot]]:
        for templates, results in self.zeroshot.items():
            for domain, result in results.items():
                if math.isnan(result.delta_top1):
                    yield templates, domain, result

    def _untold(self) -> list[str]:
        return [
            _key(domain, _prefix(templates) + name)
            for templates, domain, result in self._at_chance()
            for name in asdict(result)
            if name.startswith(("sae_", "kept_", "delta_"))
        ]

    def _variants(self) -> dict[str, Fit]:
        found = {f"k{k}": fit for k, fit in self.at_k.items()}
        found |= {f"prefix{size}": fit for size, fit in self.at_prefix.items()}
        return found | {f"prefix{size}_own": fit for size, fit in self.at_own_prefix.items()}


def plot_report(report: EvalReport, folder: Path) -> dict[str, Path]:
    """Draw what there is to draw, beside eval.json; comes back by what each file shows.

    The latents' frequency; FVU against L0 where several k were tried; with two domains or more,
    which of them the latents prefer.
    """
    from sae.evaluation.plots import Curve, plot_frequency, plot_share, plot_tradeoff

    files = {"frequency": folder / "eval-frequency.png"}
    n_tokens = report.overall.n_tokens
    plot_frequency(files["frequency"], report.frequency[""], DENSE_RATE, n_tokens)
    if report.at_k:
        files["tradeoff"] = folder / "eval-tradeoff.png"
        fits = report.at_k.values()
        notes = [f"k {k}" for k in report.at_k]
        curve = Curve("", [fit.l0 for fit in fits], [fit.fvu for fit in fits], notes)
        plot_tradeoff(files["tradeoff"], [curve])
    if len(report.domains) > 1:
        files["share"] = folder / "eval-share.png"
        plot_share(files["share"], domain_shares(report.frequency))
    return files


def domain_shares(
    frequency: Mapping[str, NDArray[np.float64]],
) -> dict[str, NDArray[np.float64]]:
    """By domain, "sketch" first: of each live latent that domain's part of the sum of its rates.

    With n domains 1 / n is no preference, whatever their sizes.
    """
    names = sorted(filter(None, frequency), key=lambda name: name != "sketch")
    total = np.sum([frequency[name] for name in names], axis=0)
    live = total > 0
    return {name: frequency[name][live] / total[live] for name in names}


def _named(figures: Mapping[str, float], domain: str = "", prefix: str = "") -> dict[str, float]:
    return {_key(domain, prefix + name): value for name, value in figures.items()}


def _prefix(templates: str) -> str:
    """ "zeroshot_", "zeroshot80_", "zeroshot_sketch_"."""
    name = "" if templates == "1" else templates if templates.isdecimal() else f"_{templates}"
    return f"zeroshot{name}_"


def _key(domain: str, name: str) -> str:
    return f"{domain}/{name}" if domain else name


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
