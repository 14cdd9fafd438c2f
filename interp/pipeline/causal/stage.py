"""Labels, an SAE in its CLIP -> causal.jsonl: what editing a latent does to its label's text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.pictures.cache import read_images
from interp.pipeline.causal.effect import N_DRAWS, Effect, measure_effect
from interp.pipeline.clip.model import background_examples
from interp.pipeline.score import newest_explanations
from interp.records.codec import to_json
from interp.records.effect import CausalEffect, no_effect
from interp.records.types import TOO_FEW, UNREADABLE, Example
from interp.run.run import Run
from interp.score.nulls.shuffle import shuffle_labels
from interp.score.sampling import SampleConfig, draw_sample
from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.core.files import append_jsonl, repair_jsonl, sha256_hex
from sae.core.progress import Progress

if TYPE_CHECKING:
    from interp.pipeline.causal.edits import Network
    from sae.clip.model import Halfway

N_CONTROLS = 8
"""Control latents: those whose mean activation is nearest to the latent's, with another label."""
N_TEXTS = 200
"""Control texts at most."""
FEW_TEXTS = 40
"""With fewer labels in the run, words of the local namer are control texts too."""
N_SPREAD = 256
"""Images over which the spread of a text's similarity is taken."""
NO_CONTROLS = "no_controls"
"""Failure: no other latent is live and has another label."""
SHUFFLED = "shuffled"
METHOD = sha256_hex(f"{N_CONTROLS} {N_TEXTS} {FEW_TEXTS} {N_SPREAD} {N_DRAWS}".encode())


@dataclass(frozen=True)
class CausalSummary:
    """Over the latents that were asked for and have a label."""

    control: str
    n_measured: int
    n_both: int
    """Latents of which both edits show an effect on the label."""
    n_one: int
    """Latents of which one edit does."""
    n_none: int
    n_failed: int
    n_unmoved: int
    """Latents whose edits changed no embedding at all."""

    def lines(self) -> list[str]:
        """For people."""
        if self.n_measured + self.n_failed == 0:
            return ["nothing to check: none of these latents has a label"]
        what = "labels of other latents (control)" if self.control else "labels"
        failed = f"; {self.n_failed} could not be checked" if self.n_failed else ""
        lines = [
            f"{self.n_measured} {what} checked by edits: {self.n_both} show an effect where the "
            f"latent is taken out and where it is put in, {self.n_one} one of both, "
            f"{self.n_none} none{failed}"
        ]
        if self.n_unmoved:
            lines.append(
                f"  of {self.n_unmoved} no edit changed any embedding: nothing behind this layer "
                "reads the tokens of the SAE"
            )
        return lines


def run_causal(
    run: Run,
    device: str,
    latents: Iterable[int] | None = None,
    control: str = "",
    progress: Progress | None = None,
) -> CausalSummary:
    """Measure the newest label of each latent, or of `latents`; what is measured already stays.

    With the control "shuffled" the labels are dealt to other latents. Raises `UserError` for
    another control, when nothing was explained, there is no SAE to edit, or its CLIP has gone.
    """
    if control not in ("", SHUFFLED):
        raise UserError(f"--control {control!r} is not known; choose one of: {SHUFFLED}")
    explained = [e for e in newest_explanations(run).values() if e.label is not None]
    if control:
        status = dict(enumerate(run.evidence.status))
        explained = shuffle_labels(explained, {e.latent: status[e.latent] for e in explained})
    labels = {e.latent: e.label for e in explained if e.label is not None}
    wanted = sorted(set(labels if latents is None else latents) & set(labels))
    with closing(run.hold()):
        repair_jsonl(run.causal)
        run.results.forget_outdated()
        known = _last(run, labels, control)
        pending = [n for n in wanted if n not in known or known[n].failure == UNREADABLE]
        bench = _Bench(run, labels, control, device)
        for number, latent in enumerate(pending):
            append_jsonl(run.causal, [to_json(bench.measure(latent))])
            if progress is not None:
                progress(number + 1, len(pending))
    run.results.forget_outdated()
    known = _last(run, labels, control)
    found = [known[n] for n in wanted]
    shown = [effect.shown_by for effect in found]
    return CausalSummary(
        control=control,
        n_measured=sum(effect.failure is None for effect in found),
        n_both=shown.count("both"),
        n_one=shown.count("ablation") + shown.count("boost"),
        n_none=shown.count("none"),
        n_failed=sum(effect.failure is not None for effect in found),
        n_unmoved=sum(effect.changes_nothing for effect in found),
    )


def _last(run: Run, labels: Mapping[int, str], control: str) -> dict[int, CausalEffect]:
    """By latent: what was measured last of its label, as it is measured now."""
    return {
        effect.latent: effect
        for effect in run.results.effects
        if (effect.label, effect.control) == (labels.get(effect.latent), control)
        and effect.method == METHOD
    }


class _Bench:
    """One run's SAE in its CLIP, and the texts of its labels; loaded when first asked for."""

    def __init__(self, run: Run, labels: Mapping[int, str], control: str, device: str) -> None:
        self._run, self._reader, self._device = run, run.evidence, device
        self._labels, self._control = labels, control

    def measure(self, latent: int) -> CausalEffect:
        """Take the latent out of held-out images that have it, and put it into some without."""
        from interp.pipeline.causal.edits import pair_rows

        config = SampleConfig()
        sample, n_least = draw_sample(self._reader.of(latent), config), config.n_least
        silent = [example for example in sample.negatives if example.act == 0]
        if min(len(sample.positives), len(silent)) < n_least:
            return self._failed(latent, TOO_FEW)
        with_it, without_it = self._stop(sample.positives), self._stop(silent)
        if min(_count(with_it), _count(without_it)) < n_least:
            return self._failed(latent, UNREADABLE)
        assert with_it is not None
        assert without_it is not None
        label, edited = self._labels[latent], [latent, *self._controls(latent)]
        if len(edited) == 1:
            return self._failed(latent, NO_CONTROLS)
        texts = [self._texts.index(label), *self._control_texts(label)]
        amounts = self._network.activations(with_it, latent)  # (b, t)
        put = pair_rows(amounts, _count(without_it))
        taken_out = -self._network.change(with_it, edited, -amounts)[:, :, texts]
        put_in = self._network.change(without_it, edited, put)[:, :, texts]
        return CausalEffect(
            latent=latent,
            label=label,
            clip=self._clip_name,
            method=METHOD,
            n_active=_count(with_it),
            n_silent=_count(without_it),
            n_controls=len(edited) - 1,
            n_texts=len(texts) - 1,
            **_figures("ablate", measure_effect(taken_out[0], taken_out[1:], latent)),
            **_figures("boost", measure_effect(put_in[0], put_in[1:], latent)),
            failure=None,
            control=self._control,
        )

    def _failed(self, latent: int, why: str) -> CausalEffect:
        label, clip = self._labels[latent], self._clip_name
        return no_effect(latent, label, clip, METHOD, why, self._control)

    @cached_property
    def _clip_name(self) -> str:
        return without_place(self._bare.clip.name)

    @cached_property
    def _bare(self) -> Network:
        from interp.pipeline.causal.edits import Network

        return Network.open(self._run.sae, self._reader.store, self._device)

    @cached_property
    def _network(self) -> Network:
        from interp.local.clip_encoder import embed_terms
        from interp.local.vocabulary import texts_of

        clip = self._bare.clip
        rows = embed_terms(clip, [texts_of(text, clip.name) for text in self._texts])
        usual = background_examples(self._reader)[:N_SPREAD]
        parts = (self._stop(usual[at : at + 32]) for at in range(0, len(usual), 32))
        stopped = [part for part in parts if part is not None]
        if sum(map(_count, stopped)) < 2:
            raise UserError(f"of the images of {self._reader.store.path} too few can be read")
        return self._bare.with_texts(rows, stopped)

    @cached_property
    def _texts(self) -> list[str]:
        """Every label of the run once, and words where these are few."""
        from interp.local.vocabulary import load_vocabulary

        labels = sorted(set(self._labels.values()))
        if len(labels) > FEW_TEXTS:
            return labels
        words = [term.name for term in load_vocabulary("auto", self._bare.clip.name)]
        return list(dict.fromkeys([*labels, *words[:: max(1, len(words) // FEW_TEXTS)]]))

    def _control_texts(self, label: str) -> list[int]:
        """Places of the others in `_texts`, at most `N_TEXTS` of them, alike for all labels."""
        order = np.random.default_rng(0).permutation(len(self._texts)).tolist()
        others = [place for place in order if self._texts[place] != label]
        return others[:N_TEXTS]

    def _controls(self, latent: int) -> list[int]:
        """Live latents with other labels whose mean activation is nearest to this one's."""
        acts = self._reader.latents["mean_act"].to_numpy()
        others = [n for n in self._reader.live() if self._labels.get(n) != self._labels[latent]]
        return sorted(others, key=lambda n: (abs(math.log(acts[n] / acts[latent])), n))[:N_CONTROLS]

    def _stop(self, examples: Sequence[Example]) -> Halfway | None:
        """The network stopped at the SAE's layer, for those images that can be read."""
        from sae.clip.store_images import run_to_layer

        store, clip = self._reader.store, self._bare.clip
        if store.info.layer == "projected":  # nothing of the network is behind it
            return run_to_layer(clip, store, np.array([e.row for e in examples]))
        shown = list(read_images(self._reader.image, examples).values())
        return self._bare.stop(shown, store.info.layer) if shown else None


def _count(halfway: Halfway | None) -> int:
    return 0 if halfway is None else len(halfway.row)


def _figures(name: str, effect: Effect) -> dict[str, float]:
    return {name: effect.mean, f"{name}_low": effect.low, f"{name}_high": effect.high}
