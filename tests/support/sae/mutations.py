"""Checkpoints with something wrong: bytes, sizes, codes of pickles, settings, offsets."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    7,
    2.5,
    1e308,
    10**30,
    2**63,
    "",
    "x",
    "a\nb\x1b[31m",
    [],
    {},
    [[["deep"]]],
    {"k": {"k": 1}},
    float("nan"),
    float("inf"),
)
STORES = ("clipsae_latents", "saev_store_v21", "ttt_chunks")
PICKLE_CODES = bytes(range(0x28, 0x96))
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "BOOL", "F8_E4M3", "X")


class Checkpoint(NamedTuple):
    """A checkpoint as its files."""

    name: str
    path: str
    """What is imported, relative to the folder; "" for the folder itself."""
    files: dict[str, bytes]


class Mutated(NamedTuple):
    """A damaged checkpoint, and what was done."""

    what: str
    path: str
    files: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder / self.path if self.path else folder


Mutation = Callable[[bytes, random.Random], bytes]


def checkpoints(data: Path) -> list[Checkpoint]:
    """The fixtures under a folder, and further kinds that are made here."""
    names = [f.name for f in sorted(data.iterdir()) if f.name not in (*STORES, "evil")]
    return [*(_fixture(data / name) for name in names), *_made()]


def stores(data: Path) -> list[Checkpoint]:
    """The fixtures that hold embeddings or latents of images."""
    return [_fixture(data / name) for name in STORES]


def mutated(checkpoint: Checkpoint, rng: random.Random) -> Mutated:
    """The checkpoint with one of its files damaged in one of the ways that its kind has."""
    # Settings are small and weights are large, but both are read.
    name = rng.choice(sorted(checkpoint.files))
    data = checkpoint.files[name]
    way = rng.choice(_ways(name, data))
    files = checkpoint.files | {name: way(data, rng)}
    return Mutated(f"{checkpoint.name}: {name} {way.__name__}", checkpoint.path, files)


def _fixture(folder: Path) -> Checkpoint:
    inside = folder / "checkpoint"
    root = inside if inside.is_dir() else folder
    paths = [p for p in sorted(root.rglob("*")) if p.is_file()]
    paths = [p for p in paths if p.name not in ("expected.safetensors", "about.json")]
    single = "" if inside.is_dir() or len(paths) != 1 else paths[0].name
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}
    return Checkpoint(folder.name, single, files)


def _made() -> list[Checkpoint]:
    """Kinds of file that no fixture has."""
    torch.manual_seed(0)
    shapes = {"W_enc": (8, 24), "b_enc": (24,), "W_dec": (24, 8), "b_dec": (8,)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    held = {"cfg": {"d_in": 8, "d_sae": 24}, "state_dict": state}
    old = io.BytesIO()
    torch.save(held, old, _use_new_zipfile_serialization=False)
    pickled = pickle.dumps(held)
    return [
        Checkpoint("old torch", "sae.pt", {"sae.pt": old.getvalue()}),
        Checkpoint("pickle", "sae.pkl", {"sae.pkl": pickled}),
        Checkpoint("gzipped pickle", "sae.pkl.gz", {"sae.pkl.gz": gzip.compress(pickled)}),
    ]


def _ways(name: str, data: bytes) -> list[Mutation]:
    ways: list[Mutation] = [flipped, flipped_head, flipped_tail, cut, inserted, doubled]
    if name.endswith(".json"):
        return [*ways, odd_setting, odd_setting, odd_setting, no_setting]
    if name.endswith(".safetensors"):
        return [*ways, odd_header, odd_header, odd_header]
    if name.endswith(".npy"):
        return [*ways, odd_npy_header, odd_npy_header, odd_npy_header]
    if data.startswith(b"{"):  # a line of settings before the zip
        return [*ways, odd_first_line, odd_first_line, other_code, lying_sizes]
    if data.startswith(b"PK"):
        return [*ways, other_code, other_code, other_code, lying_sizes, lying_sizes]
    if data.startswith(b"\x1f\x8b"):
        return [*ways, other_code_in_gzip, other_code_in_gzip]
    return [*ways, other_code_in_pickle, other_code_in_pickle]


def flipped(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, 0, len(data))


def flipped_head(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, 0, min(len(data), 1500))


def flipped_tail(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, max(0, len(data) - 900), len(data))


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def inserted(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(min(len(data), 2000))
    return data[:place] + rng.randbytes(rng.randint(1, 40)) + data[place:]


def doubled(data: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(data))
    part = data[first : first + rng.randint(1, 200)]
    return data[:first] + part + data[first:]


def odd_setting(data: bytes, rng: random.Random) -> bytes:
    """JSON with a value of another type."""
    values = json.loads(data)
    _make_odd(values, rng)
    return json.dumps(values).encode()


def no_setting(data: bytes, rng: random.Random) -> bytes:
    """JSON without one of its keys, or another value than an object."""
    values = json.loads(data)
    if not isinstance(values, dict) or rng.random() < 0.2:
        return json.dumps(rng.choice(ODD)).encode()
    del values[rng.choice(sorted(values))]
    return json.dumps(values).encode()


def odd_first_line(data: bytes, rng: random.Random) -> bytes:
    line, _, rest = data.partition(b"\n")
    return odd_setting(line, rng) + b"\n" + rest


def odd_header(data: bytes, rng: random.Random) -> bytes:
    """safetensors whose header tells other shapes, types, places or lengths."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match rng.randrange(6):
        case 0:
            entry["dtype"] = rng.choice(DTYPES)
        case 1:
            entry["shape"] = rng.choice([[1 << 62, 4], [-1], [0], entry["shape"][::-1], [1], [[2]]])
        case 2:
            first, last = entry["data_offsets"]
            huge = rng.choice([1 << 40, (1 << 64) - 1, -8, 4])
            entry["data_offsets"] = [first + huge, last + huge]
        case 3:
            other = header[rng.choice([n for n in header if n != "__metadata__"])]
            entry["data_offsets"] = other["data_offsets"]
        case 4:
            header[rng.choice(["W_dec", "x" * 300, name + "2"])] = header.pop(name)
        case _:
            length = rng.choice([0, 1, len(data), 1 << 62, (1 << 64) - 1])
            return struct.pack("<Q", length) + data[8:]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def odd_npy_header(data: bytes, rng: random.Random) -> bytes:
    """numpy's own file whose header tells another shape, type or length."""
    (length,) = struct.unpack("<H", data[8:10])
    header = data[10 : 10 + length].decode()
    shapes = ("(1, 1)", "(99999999999, 99999999999)", "(-1, 4)", "()", "(2**70,)", "[3]")
    types = ("'|O'", "'<f8'", "'<U9'", "'|V4'", "[('a', '<f4')]", "'<c8'", "3")
    match rng.randrange(4):
        case 0:
            header = re.sub(r"\(\d+, \d+\)", rng.choice(shapes), header)
        case 1:
            header = re.sub(r"'[<|>]\w+'", rng.choice(types), header)
        case 2:
            header = rng.choice(["[" * 400 + "]" * 400, "{}", "0", header * 30])
        case _:
            length = rng.choice([0, 1, 65535])
            return data[:8] + struct.pack("<H", length) + data[10:]
    return data[:8] + struct.pack("<H", len(header)) + header.encode() + data[10 + length :]


def other_code(data: bytes, rng: random.Random) -> bytes:
    """A zip of torch.save whose pickle has other codes, with the checksum that fits them."""
    first = data.index(b"PK\x03\x04")
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = other_code_in_pickle(content, rng)
            new.writestr(entry.filename, content)
    return data[:first] + out.getvalue()


def other_code_in_pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle with other codes, or letters of its texts, near its start."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(min(len(data), 3000))] = rng.choice(PICKLE_CODES)
    return bytes(changed)


def other_code_in_gzip(data: bytes, rng: random.Random) -> bytes:
    return gzip.compress(other_code_in_pickle(gzip.decompress(data), rng), compresslevel=1)


def lying_sizes(data: bytes, rng: random.Random) -> bytes:
    """A zip whose table of contents tells other sizes, places or kinds of compression."""
    changed = bytearray(data)
    places = []
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        places.append(at)
        at = data.find(b"PK\x01\x02", at + 4)
    at = rng.choice(places)
    field, form = rng.choice(
        [(20, "<I"), (24, "<I"), (42, "<I"), (10, "<H"), (8, "<H"), (28, "<H")]
    )
    size = struct.calcsize(form)
    (old,) = struct.unpack(form, data[at + field : at + field + size])
    top = (1 << 8 * size) - 1
    value = rng.choice([0, 1, top, top // 2, (old + 1) & top, (old * 2) & top, 8, 12, 14])
    changed[at + field : at + field + size] = struct.pack(form, value)
    return bytes(changed)


def _flipped(data: bytes, rng: random.Random, first: int, end: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(first, end)] = rng.randrange(256)
    return bytes(changed)


def _make_odd(values: Any, rng: random.Random) -> None:
    """Replace one value, at any depth."""
    places: list[tuple[Any, Any]] = []
    waiting = [values]
    while waiting:
        part = waiting.pop()
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        places += [(part, key) for key in keys]
        waiting += [part[key] for key in keys if isinstance(part[key], dict | list)]
    if places:
        part, key = rng.choice(places)
        part[key] = rng.choice(ODD)
