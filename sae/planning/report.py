"""Sizes and speeds -> the lines of a plan, its figures, and the commands of the cheaper road."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sae.core.disk import weigh
from sae.core.errors import quote
from sae.data.store_format import Vectors
from sae.planning.roads import ON_THE_FLY, SECONDS_A_KEPT, Road, choose, find_roads
from sae.planning.sizes import Sizes
from sae.planning.speeds import DEAD, PICTURE, Speeds
from sae.training.config import TrainConfig

_SAID = ("n_latents", "k", "epochs", "n_tokens", "batch_size", "holdout")
"""Settings of a training that a plan takes."""
_Rows = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Planned:
    """All that is known of a run that has not begun."""

    clip: str
    """As it was named; `vectors` are of the one that was timed."""
    vectors: Vectors
    training: TrainConfig
    """As it was given."""
    sizes: Sizes
    speeds: Speeds
    n_devices: int

    @cached_property
    def roads(self) -> tuple[Road, ...]:
        """On a store, and on the fly."""
        return find_roads(self.sizes, self.speeds, self.n_devices)

    @property
    def cheapest(self) -> Road | None:
        """Of the roads that have room; None where none has."""
        return choose(self.roads)

    def lines(self, out: Path) -> list[str]:
        """What a person reads. The store would lie in `out`."""
        n, vectors, shape = self.n_devices, self.vectors, self.sizes.shape
        head = [
            f"{self.sizes.n_images:,} images by {self.clip}, layer {vectors.layer}, "
            f"{vectors.tokens}: {shape.tokens:,} x {shape.d:,} each, {self.sizes.dtype}"
        ]
        if vectors.clip != self.clip:
            head.append(f"timed in its place: {vectors.clip}; its own weights are not needed")
        return [
            *head,
            *_table(self._size_rows()),
            f"measured on {self.speeds.device}, {self.speeds.n_cores} decoding processes:",
            *_table(self._speed_rows(out)),
            f"time with {n:,} such device{'s' if n > 1 else ''}:",
            *_table(self._road_rows()),
            f"assumed: {'; '.join(self._assumptions())}",
            f"cheapest: {self._verdict()}",
        ]

    def figures(self) -> dict[str, Any]:
        """One flat object: store/bytes, speed/clip, a_store/embed/hours, cheapest, ..."""
        sizes, best = self.sizes, self.cheapest
        found: dict[str, Any] = {
            "n_images": sizes.n_images,
            "n_train": sizes.n_train,
            "n_devices": self.n_devices,
            "store/bytes": sizes.store_bytes,
            "sae/bytes": sizes.sae_bytes,
            "sae/bytes_with_checkpoint": sizes.training_bytes,
            "training/steps": sizes.n_steps,
            "training/tokens": sizes.training.n_tokens,
            "training/batch_size": sizes.training.batch_size,
            "training/passes": sizes.n_passes,
            "timed": self.vectors.clip,
        }
        found |= {f"speed/{name}": value for name, value in asdict(self.speeds).items()}
        for road in self.roads:
            key = road.name.replace(" ", "_")
            found |= {f"{key}/{step.name}/hours": step.seconds / 3600 for step in road.steps}
            found[f"{key}/hours"] = road.seconds / 3600
            found[f"{key}/device_hours"] = road.device_seconds / 3600
            found |= {f"{key}/bytes": road.n_bytes, f"{key}/has_room": road.has_room}
        return {**found, "cheapest": best.name if best else None}

    def following(self) -> list[str]:
        """The commands of the cheapest road."""
        if self.cheapest is None:
            return []
        tag = (
            "" if "/" in self.clip or ":" in self.clip or self.clip == self.vectors.clip else "/TAG"
        )
        source = f"--clip {quote(self.clip + tag)} --layer {self.vectors.layer}"
        source += f" --tokens {self.vectors.tokens} --dtype {self.sizes.dtype}"
        given = {name: getattr(self.training, name) for name in _SAID}
        said = [
            f"--{name.replace('_', '-')} {value}"
            for name, value in given.items()
            if value != getattr(TrainConfig, name)
        ]
        if self.cheapest.name == ON_THE_FLY:
            return [" ".join(["sae train --domain photo=DIR", source, *said, "--out SAE"])]
        many = f"torchrun --nproc-per-node {self.n_devices} -m -- sae"
        program = many if self.n_devices > 1 else "sae"
        return [
            f"{program} embed photo=DIR {source} --out STORE",
            " ".join([f"{program} train STORE", *said, "--out SAE"]),
        ]

    def _size_rows(self) -> _Rows:
        sizes, training = self.sizes, self.sizes.training
        passes = f"{sizes.n_passes:,.4g} passes over {sizes.n_train:,} images"
        return [
            ("store", weigh(sizes.store_bytes), f"{sizes.store_bytes:,} bytes"),
            ("SAE", weigh(sizes.sae_bytes), f"{sizes.sae.n_latents:,} x {sizes.sae.d:,}"),
            ("", weigh(sizes.training_bytes), "with a checkpoint, while it trains"),
            (
                "training",
                f"{sizes.n_steps:,}",
                f"steps of {training.batch_size:,} tokens: {passes}",
            ),
        ]

    def _speed_rows(self, out: Path) -> _Rows:
        speeds, size = self.speeds, self.sizes.training.batch_size
        picture = f"{PICTURE[0]} x {PICTURE[1]}"
        rows = [
            ("CLIP", f"{speeds.clip:,.4g}", "images a second, in float32"),
            ("decoding", f"{speeds.decode:,.4g}", f"images a second, {picture}, by one process"),
            ("training", f"{speeds.steps_alone:,.4g}", f"steps a second, of {size:,} tokens"),
            ("latents", f"{speeds.encode:,.4g}", "tokens a second"),
            ("disk", weigh(speeds.write), f"a second written, {weigh(speeds.read)} read"),
            ("", weigh(speeds.free), f"free in {out}"),
        ]
        if self.n_devices > 1:
            part = f"steps a second, one of {self.n_devices:,} devices doing its part"
            rows.insert(3, ("", f"{speeds.steps:,.4g}", part))
        return rows

    def _road_rows(self) -> _Rows:
        rows = []
        for road in self.roads:
            parts = ", ".join(f"{step.name} {_lasts(step.seconds)}" for step in road.steps)
            room = "" if road.has_room else f"; no room for {weigh(road.n_bytes)}"
            rows.append((road.name, _lasts(road.seconds), f"{parts}{room}"))
        return rows

    def _assumptions(self) -> list[str]:
        found = [
            f"{DEAD:.0%} of the latents are dead",
            f"interp collect needs {1e6 * SECONDS_A_KEPT:g} µs more for each latent of a token",
            "images are read as quickly as they are decoded",
        ]
        if self.n_devices == 1:
            return found
        return [
            f"{self.n_devices:,} devices, each with as many decoding processes, lose nothing to "
            "each other and share one disk",
            "a run on the fly takes one of them",
            *found,
        ]

    def _verdict(self) -> str:
        best = self.cheapest
        if best is None:
            return "none, for neither road has room: name another --out, or fewer images"
        if all(road.has_room for road in self.roads):
            return f"{best.name}, for it takes less time"
        [other] = [road for road in self.roads if road is not best]
        told = f"{best.name}, for there is no room for the other"
        return told + (
            f", which takes {_lasts(other.seconds)}" if other.seconds < best.seconds else ""
        )


def _table(rows: _Rows) -> list[str]:
    return [f"  {name:<11}{value:>12}  {more}" for name, value, more in rows]


def _lasts(seconds: float) -> str:
    """As it is best read: "3.4 h"."""
    for least, size, unit in ((172_800, 86_400, "days"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= least:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
