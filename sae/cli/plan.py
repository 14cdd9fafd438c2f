"""The sub-command that says, before a large run, how large it is and how long it takes."""

from __future__ import annotations

from dataclasses import replace

from sae.cli import console
from sae.cli.console import ConfigOption, DeviceOption, JsonOption
from sae.cli.options import spread
from sae.core.progress import bar
from sae.planning.config import PlanConfig


@spread
def plan(
    asked: PlanConfig,
    device: DeviceOption = "auto",
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Say how large a run would be and how long it would take, before it is begun.

    Bytes and steps are those that sae embed and sae train come to. Hours follow from a short
    measurement on this machine, for a store and for a run on the fly. Nothing is fetched: models of
    open_clip's list are timed with random weights, which take as long.
    """
    from sae.clip.ahead import Shape
    from sae.clip.model import load_clip
    from sae.clip.vectors import name_store, vectors_of
    from sae.planning.report import Planned
    from sae.planning.roads import require_share
    from sae.planning.sizes import size_up
    from sae.planning.speeds import measure, name_timed

    source, training = replace(asked.source, clip=name_timed(asked.clip)), asked.training
    model = load_clip(source.clip, device, texts=False)
    vectors = vectors_of(model, name_store(model, source), source.dtype)
    shape = Shape(vectors.d, vectors.tokens_per_image, None)
    sizes = size_up(asked.images, shape, source.dtype, training)
    require_share(sizes, asked.gpus)
    with bar("measure", unit="parts") as progress:
        speeds = measure(model, vectors, sizes, asked.out, asked.gpus, asked.seconds, progress)
    planned = Planned(asked.clip, vectors, training, sizes, speeds, asked.gpus)
    for line in planned.lines(asked.out):
        console.say(line)
    console.write_figures(json, planned.figures())
    console.finish({}, planned.following())
