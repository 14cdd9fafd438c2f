"""Changes of similarity that edits made -> the effect on a label's text, with its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Changes = NDArray[np.float64]

N_DRAWS = 2000


class Effect(NamedTuple):
    """What an edit of a latent does to its label's text alone, in standard deviations."""

    mean: float
    low: float
    high: float
    """Bounds of the 95% interval."""

    @property
    def is_shown(self) -> bool:
        """Whether it is above what other latents do, and above what happens to other texts."""
        return self.low > 0


def measure_effect(own: Changes, control: Changes, seed: int) -> Effect:
    """The change of the first text under the latent, less that under control latents, less the same
    of the other texts.

    `own` (n_images, n_texts) are changes by the latent, `control` (n_controls, n_images, n_texts)
    by control latents on the same images; a change as the label says is positive. The interval
    resamples images and draws one control latent and one other text each time: its lower bound is
    above 0 where the label's text beats about 97.5% of the other texts. A label that is no better
    than the others, however long one looks at it, shows an effect in about 2.5% of cases.
    """
    n_controls, n_images, n_texts = control.shape
    rng = np.random.default_rng([_DRAWS, seed])
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), N_DRAWS) / n_images
    which = rng.integers(n_controls, size=N_DRAWS)
    text = 1 + rng.integers(n_texts - 1, size=N_DRAWS)
    by_latent = images @ own  # (draws, texts)
    by_control = np.stack([images @ changes for changes in control])  # (controls, draws, texts)
    gain = by_latent - by_control[which, np.arange(N_DRAWS)]
    drawn = gain[:, 0] - np.take_along_axis(gain, text[:, None], 1)[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = (own - control.mean(0)).mean(0)  # (texts,)
    return Effect(float(mean[0] - mean[1:].mean()), float(low), float(high))


_DRAWS = 3
"""Name of the random stream."""
