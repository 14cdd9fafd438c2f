"""A dict of a foreign file -> the same, with a memory of which of its keys a reader has asked for.

What nobody has asked for may change the maths, so it is an error, never a default.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from sae.untrusted.pickle_names import Stub


def words(text: str) -> frozenset[str]:
    """Names of keys, written with spaces between."""
    return frozenset(text.split())


TRAINING = words(
    "adam autocast batch batches beta1 beta2 buffer checkpoint checkpoints coeff coefficient "
    "commit compile context dataloader dataset dead decay device dtype entity epoch epochs eval "
    "frequency ghost grad grads image images init initialization interval label learning lib log "
    "logging logger loss lr metadata metrics optimizer path penalty project reinit resample "
    "resampling sampling scheduler seed step steps store timestamp tokens train training "
    "validation verbose version wandb warmup workers"
)
"""Words of keys that tell how an SAE was trained, on what and where, in the files of all peers."""
NAMES = words("hook_name lm_name model_class_name model_name module_name run_name")
"""Keys that name things."""


class Used(dict[Any, Any]):
    """A dict, and the dicts in it, that remember what was asked for by name.

    Going through all of its keys, or copying it, is not asking.
    """

    def __init__(self, values: dict[Any, Any], asked: set[Any] | None = None) -> None:
        super().__init__(values)
        self.asked: set[Any] = set() if asked is None else asked

    def __getitem__(self, name: Any) -> Any:
        self.asked.add(name)
        value = super().__getitem__(name)
        if isinstance(value, Stub):
            value.settings = track_use(value.settings)
        elif isinstance(value, dict):
            value = track_use(value)
            self[name] = value
        return value

    def get(self, name: Any, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]

    def rename(self, new_name: Callable[[Any], Any]) -> None:
        """Give keys their name of today, in place; nothing is asked for by that."""
        for name in list(self):
            if (new := new_name(name)) != name:
                self[new] = super().pop(name)

    def changed(self, values: dict[Any, Any]) -> Used:
        """With other values: what is asked of that is asked of this."""
        return Used({**dict(self.items()), **values}, self.asked)

    def forget(self) -> None:
        """Nothing was asked for, here and in the dicts within."""
        self.asked.clear()
        for _, within in self._within():
            within.forget()

    def unused(self, aside: Collection[str]) -> list[str]:
        """Names of what was not asked for, "cfg.top_k"; not of training, and none of `aside`."""

        def matters(name: object) -> bool:
            if super(Used, self).__getitem__(name) is None:
                return False  # nothing is told
            return not is_of_training(str(name)) and name not in aside

        names = [str(name) for name in self if name not in self.asked and matters(name)]
        for name, within in self._within():
            if name in self.asked and matters(name):
                names += [f"{name}.{key}" for key in within.unused(aside)]
        return names

    def _within(self) -> Iterator[tuple[Any, Used]]:
        for name, value in self.items():
            value = value.settings if isinstance(value, Stub) else value
            if isinstance(value, Used):
                yield name, value


def track_use(values: dict[Any, Any]) -> Used:
    """A dict that remembers what was asked of it; the same where it is one."""
    return values if isinstance(values, Used) else Used(values)


def is_of_training(name: str) -> bool:
    """Whether a key speaks of the training alone: "l1_coefficient", "wandb_project", "lr"."""
    return name in NAMES or not TRAINING.isdisjoint(name.strip("_").lower().split("_"))
