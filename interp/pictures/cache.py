"""Examples -> their images: read once, held small, and left out when they can no longer be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from PIL import Image

from interp.pictures.grid import shrink
from interp.records.types import Evidence, Example
from sae.data.images import BadImage
from sae.data.view import Heat

CACHE_BYTES = 256_000_000
"""What one cache holds at most: about 320 decoded images, or 5,000 encoded single pictures."""

Images = Callable[[Example], Image.Image]
"""Gives an example's picture (`EvidenceReader.image`); raises `BadImage`."""
HeatOf = Callable[[Example], Heat | None]
"""Gives where a latent answers on an example (`EvidenceReader.heat`); None without patches."""

Value = TypeVar("Value")


class EvidenceSource(Protocol):
    """Where evidence comes from (`EvidenceReader`)."""

    def of(self, latent: int) -> Evidence: ...
    def image(self, example: Example) -> Image.Image: ...


def read_images(images: Images, examples: Iterable[Example]) -> dict[Example, Image.Image]:
    """The pictures in the order of `examples`; a file that went bad since is left out."""
    shown: dict[Example, Image.Image] = {}
    for example in examples:
        try:
            shown[example] = images(example)
        except BadImage:
            continue
    return shown


class PictureCache:
    """An `EvidenceSource` that decodes an image once for all the latents that show it.

    Images are known by their content, held as small as any page needs them (`grid.shrink`), and
    shared: nobody may draw on one. For many threads.
    """

    def __init__(self, source: EvidenceSource, most_bytes: int = CACHE_BYTES) -> None:
        self._source = source
        self._decoded: Lru[Image.Image] = Lru(most_bytes, memory_of)

    def of(self, latent: int) -> Evidence:
        """As the source has it."""
        return self._source.of(latent)

    def image(self, example: Example) -> Image.Image:
        """RGB, its longer side at most 512 px. Raises what the source raises."""
        return self._decoded.get(example.image_id, lambda: shrink(self._source.image(example)))


class Lru(Generic[Value]):
    """Values by key up to a number of bytes; those not asked for longest leave first.

    A value is made once, even when two threads ask for it at once; the second waits for the first.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.n_bytes = 0
        """Held now."""
        self._most = most_bytes
        self._size_of = size_of
        self._slots: OrderedDict[Hashable, _Slot[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made when it is not held. What `make` raises is raised, not held."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
        with slot.lock:
            if not slot.values:
                slot.values.append(make())
                self._weigh(key, slot)
            return slot.values[0]

    def _weigh(self, key: Hashable, slot: _Slot[Value]) -> None:
        n_bytes = self._size_of(slot.values[0])
        with self._lock:
            if self._slots.get(key) is not slot:  # pushed out while it was being made
                return
            slot.n_bytes = n_bytes
            self.n_bytes += n_bytes
            while self.n_bytes > self._most:
                _, oldest = self._slots.popitem(last=False)
                self.n_bytes -= oldest.n_bytes


@dataclass
class _Slot(Generic[Value]):
    """A place for one value, empty while it is being made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    values: list[Value] = field(default_factory=list)
    n_bytes: int = 0


def memory_of(image: Image.Image) -> int:
    """Bytes: Pillow keeps a pixel of any colour image in four, of a grey one in one."""
    return (1 if image.mode == "L" else 4) * image.width * image.height
