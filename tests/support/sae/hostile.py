"""Files that ask for far more than they hold: bombs, lies about sizes, endless repetition."""

from __future__ import annotations

import gzip
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

MEGA = 1 << 20
PROTOCOL = b"\x80\x04"
LATIN1 = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
STUB = b"csae_training.config\nConfig\n)R"


class Hostile(NamedTuple):
    """A file, and the words with which it is refused."""

    name: str
    match: str
    write: Callable[[Path], None]


def hostile() -> dict[str, Hostile]:
    """By what they do. None unpacks to more than 64 MB here."""
    noise = random.Random(0).randbytes(2000)
    text, config = _text(bytes(MEGA)), _dict(30_000)
    return {
        "gzip bomb": Hostile("a.pkl.gz", "twice its size", _bytes(gzip.compress(bytes(64 * MEGA)))),
        "zip bomb": Hostile("b.pt", "twice its size", _zip({"a/data.pkl": bytes(64 * MEGA)})),
        "zip bomb that tells 1 kB": Hostile("c.pt", "CRC|damaged", _lying_zip),
        "zip in lzma": Hostile(
            "d.pt", "compression", _zip({"a/data.pkl": noise}, zipfile.ZIP_LZMA)
        ),
        "long table of contents": Hostile("e.pt", "more than any checkpoint", _long_contents),
        "millions of codes": Hostile("f.pkl", "steps", _bytes(PROTOCOL + b"]" * 5 * MEGA + b".")),
        "a text, many times": Hostile("g.pkl", "repeats", _bytes(_repeated(text, LATIN1, 20_000))),
        "a dict, many times": Hostile(
            "h.pkl", "repeats", _bytes(_repeated(config, STUB + b"h\x00b", 10_000))
        ),
        "a list, 2^60 times": Hostile(
            "i.pkl", "nested too deeply", _bytes(PROTOCOL + _text(b"a") + _twice(60) + b".")
        ),
        "a text, 2^15 times": Hostile(
            "j.pkl",
            "more than 4194304 values",
            _bytes(PROTOCOL + _text(b"a" * 999) + _twice(15) + b"."),
        ),
        "deep tuples": Hostile(
            "k.pkl", "deeply", _bytes(PROTOCOL + b"N" + b"\x85" * 100_000 + b".")
        ),
        "bytes that are not there": Hostile(
            "l.pkl", "damaged", _bytes(PROTOCOL + b"\x8e" + struct.pack("<Q", 1 << 40) + b"abc")
        ),
        "a storage of 4 TB": Hostile("m.pt", "beyond the end", _huge_storage),
        "40 axes": Hostile("n.pt", "40 axes", _tensor(torch.zeros(1)[(None,) * 39])),
        "stride 0": Hostile(
            "o.pt", "more values than the 1 stored", _tensor(torch.zeros(1).expand(MEGA, MEGA))
        ),
        "huge safetensors header": Hostile(
            "p/sae.safetensors", "header tells", _safetensors(b'{"a":' + b"[" * 8 * MEGA)
        ),
        "overlapping tensors": Hostile(
            "q/sae.safetensors", "damaged", _safetensors(_overlapping())
        ),
        "huge settings": Hostile("r/cfg.json", "too many", _bytes(b"[" + b"[]," * MEGA + b"0]")),
        "deep settings": Hostile("s/cfg.json", "not valid JSON", _bytes(b"[" * 500_000)),
    }


def write_hostile(file: Hostile, folder: Path) -> Path:
    """Write the file, and beside it what makes it look like a checkpoint."""
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "sae.safetensors":
        (path.parent / "cfg.json").write_text('{"d_in": 4, "num_latents": 4, "k": 2}')
    if path.name == "cfg.json":
        (path.parent / "sae.safetensors").write_bytes(b"not looked at before the settings are")
    file.write(path)
    return path


def _bytes(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _text(value: bytes) -> bytes:
    """The code that makes it, and memo 0."""
    return b"X" + struct.pack("<I", len(value)) + value + b"q\x00"


def _dict(n: int) -> bytes:
    items = (b"J" + struct.pack("<i", number) + b"N" for number in range(n))
    return b"}(" + b"".join(items) + b"uq\x00"


def _repeated(first: bytes, again: bytes, n: int) -> bytes:
    """A pickle of a list: `first` makes memo 0, `again` something of it, `n` times."""
    return PROTOCOL + first + b"](" + n * again + b"e."


def _twice(n: int) -> bytes:
    """The code that puts what is on the stack into a list twice, that into another twice, ..."""
    return b"".join(b"q\x01](h\x01h\x01e" for _ in range(n))


def _zip(entries: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", how) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return write


def _lying_zip(path: Path) -> None:
    _zip({"a/data.pkl": bytes(64 * MEGA)})(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)


def _long_contents(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30_000):
            archive.writestr(f"{number}", b"")


def _huge_storage(path: Path) -> None:
    torch.save({"x": torch.arange(12345.0)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(struct.pack("<q", 12345))
    path.write_bytes(data[:at] + struct.pack("<q", 1 << 40) + data[at + 8 :])


def _tensor(value: torch.Tensor) -> Callable[[Path], None]:
    return lambda path: torch.save({"x": value}, path)


def _safetensors(header: bytes) -> Callable[[Path], None]:
    return _bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def _overlapping() -> bytes:
    entry = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
    return json.dumps({"encoder.weight": entry, "W_dec": entry}).encode()
