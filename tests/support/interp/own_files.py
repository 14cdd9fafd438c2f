"""Every kind of file that we write, small; and what reads each: for tests that damage them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from interp.bench.truth import read_truth
from interp.evidence.reader import EvidenceReader
from interp.llm.ledger import report
from interp.llm.ledger.ledger import Ledger
from interp.report.labels import read_labels
from interp.run.run import Run
from sae.core.files import read_config
from sae.data.store import EmbeddingStore
from sae.model.sae import SAE
from sae.training import checkpoint
from sae.training.config import TrainConfig
from sae.training.folder import read_log
from sae.training.jobs import already_trained
from sae.training.lr_search import LrChoice
from sae.world import write_world
from tests.support.commands import Walk, interp, sae
from tests.support.interp.ledgers import reply, request
from tests.support.sae import mutations

CPU = torch.device("cpu")
TOML = '[train]\nn_latents = 16\nk = 2\nlr = "1e-3"\nactivation = "topk"\n[world]\nn = 4\n'


def write_all(walk: Walk, folder: Path) -> None:
    """A copy of a walk, labelled and scored by the local model, and what else there is."""
    for name in Walk._fields:
        if name != "world":
            shutil.copytree(getattr(walk, name), folder / name)
    (folder / "world").mkdir()
    for name in ("world.json", "truth.parquet"):
        shutil.copy(walk.world / name, folder / "world")
    run = walk.run.with_name(f"own-{folder.name}")
    shutil.copytree(walk.run, run)
    for stage in ("explain", "score"):
        assert interp(stage, "--run", run, "--model", "local") == 0
    for path in run.glob("*.*"):
        shutil.copy(path, folder / "run")
    with Ledger(folder / "run" / "calls.sqlite") as ledger:
        for n in range(4):
            ledger.put(f"k{n}", request(), reply(), f"explain {n}", 100.0)
        ledger.risk("k9", "explain 9", 0.5)
    found = SAE.load(walk.sae)
    state = {"counts": torch.tensor([3, 300]), "silent_for": torch.zeros(found.n_latents)}
    at = folder / "going" / checkpoint.FOLDER / "000000003"
    found.save(at)
    checkpoint.write_tensors(at / checkpoint.STATE, state)
    (at / "checkpoint.json").write_text('{"step": 3, "n_steps": 9, "engine": "plain", "format": 1}')
    choice = {"lr": 0.1, "best": 0.1, "n_steps": 9, "n_trial_steps": 3, "n_trial_tokens": 30}
    (folder / "sae" / "lr.json").write_text(
        json.dumps(choice | {"lrs": [0.1, 0.2], "losses": [None, 0.5], "format": 1})
    )
    (folder / "settings.toml").write_text(TOML)


def _store(folder: Path) -> None:
    store = EmbeddingStore.open(folder / "store")
    assert len(store.images) == store.info.n_images
    store.read(np.arange(3))


def _trained(folder: Path) -> None:
    store = EmbeddingStore.open(folder / "store")
    config = TrainConfig(n_latents=16, k=2, epochs=20)
    already_trained({folder / "sae": config}, store, CPU)


def _run(folder: Path) -> None:
    run = Run.open(str(folder / "run"))
    assert run.info.name
    reader = EvidenceReader(folder / "run")
    for latent in range(reader.info.n_latents):
        reader.of(latent)
    for latent in reader.live():
        run.results.explanation(latent)
        run.results.score_with_verdicts(latent)
    list(run.results.scores_with_verdicts())


def _cards(folder: Path) -> None:
    _quietly(lambda: interp("cards", "--run", folder / "run"))


def _ledger(folder: Path) -> None:
    path = folder / "run" / "calls.sqlite"
    report.totals(path), report.overall(path), report.sum_unanswered(path), list(report.rows(path))
    with Ledger(path) as ledger:
        for n in range(4):
            ledger.get(f"k{n}")
        ledger.spent("explain"), ledger.billed("m", "explain"), ledger.note("x")


def _settings(folder: Path) -> None:
    words = ("--config", folder / "settings.toml", "--out", folder / "nothing")
    _quietly(lambda: sae("train", folder / "absent", *words))


class Bug(AssertionError):
    """A command line that ended as a bug, or said more than a line."""


def _quietly(command: Callable[[], int]) -> None:
    said = StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(said):
        code = command()
    if code not in (0, 2, 4):
        raise Bug(f"exit code {code}: {said.getvalue()}")


def _world(folder: Path) -> None:
    world = folder / "world"
    if (world / "world.json").exists():
        write_world(world, 300, workers=1)


READERS: dict[str, Callable[[Path], object]] = {
    "store/store.json": _store,
    "store/images.parquet": _store,
    "store/00000.safetensors": _store,
    "sae/config.json": lambda folder: SAE.load(folder / "sae"),
    "sae/sae.safetensors": lambda folder: SAE.load(folder / "sae"),
    "sae/train.json": _trained,
    "sae/train.jsonl": lambda folder: read_log(folder / "sae"),
    "sae/lr.json": lambda folder: read_config(folder / "sae/lr.json", LrChoice),
    "going/checkpoints/000000003/checkpoint.json": lambda f: checkpoint.newest(f / "going", CPU),
    "going/checkpoints/000000003/state.safetensors": lambda f: checkpoint.newest(f / "going", CPU),
    "world/world.json": _world,
    "world/truth.parquet": lambda folder: read_truth(folder / "world/truth.parquet"),
    "run/run.json": _run,
    "run/collect/collect.json": _run,
    "run/collect/latents.parquet": _run,
    "run/collect/examples.parquet": _run,
    "run/explanations.jsonl": _run,
    "run/scores.jsonl": _run,
    "run/labels.csv": lambda folder: read_labels(folder / "run"),
    "run/calls.sqlite": _ledger,
    "settings.toml": _settings,
}


def damage(name: str, data: bytes, rng: random.Random, scratch: Path) -> tuple[str, bytes]:
    """One way to damage a file of ours: what it was called, and the bytes."""
    ways: list[mutations.Mutation] = [
        mutations.flipped,
        mutations.flipped_head,
        mutations.flipped_tail,
        mutations.cut,
        mutations.inserted,
        mutations.doubled,
        zeroed,
    ]
    suffix = Path(name).suffix
    if suffix == ".json":
        ways += 3 * [mutations.odd_setting, mutations.no_setting, huge_number]
    if suffix == ".jsonl":
        ways += 3 * [odd_line, odd_line, torn_line]
    if suffix == ".safetensors":
        ways += 4 * [mutations.odd_header]
    if suffix == ".parquet":
        ways += 4 * [lambda data, rng: other_columns(data, rng, scratch)]
    if suffix == ".sqlite":
        ways += 3 * [lambda data, rng: other_database(data, rng, scratch)]
    if suffix == ".toml":
        ways += 4 * [odd_toml]
    way = rng.choice(ways)
    return getattr(way, "__name__", "?"), way(data, rng)


def zeroed(data: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(data))
    n = min(len(data) - first, rng.randint(1, 4096))
    return data[:first] + bytes(n) + data[first + n :]


def huge_number(data: bytes, rng: random.Random) -> bytes:
    values = json.loads(data)
    numbers = [name for name, value in values.items() if isinstance(value, int)]
    name = rng.choice(numbers)
    values[name] = rng.choice([10**9, 2**62, -(10**9), 10**3000])
    return json.dumps(values).encode()


def odd_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    way = rng.choice([mutations.odd_setting, mutations.no_setting])
    odd = (b"[]", b"3", b"[" * 10**5, b'{"latent": ' + b"9" * 6000 + b"}", b"null", b"")
    lines[at] = (rng.choice(odd) if rng.random() < 0.3 else way(lines[at], rng)) + b"\n"
    return b"".join(lines)


def torn_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = lines[at][: rng.randrange(len(lines[at]))] + rng.choice([b"", b"\n"])
    return b"".join(lines)


def other_columns(data: bytes, rng: random.Random, scratch: Path) -> bytes:
    """The table with a column less, more, of another name or type, shuffled, empty or cut."""
    table = pq.read_table(pa.BufferReader(data))
    name = rng.choice(table.column_names)
    at = table.column_names.index(name)
    n = len(table)
    match rng.randrange(8):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.append_column("more", pa.array(range(n)))
        case 2:
            table = table.rename_columns([f"{c}2" if c == name else c for c in table.column_names])
        case 3:
            other = rng.choice([pa.array(["x"] * n), pa.array([None] * n), pa.array([2.5] * n)])
            table = table.set_column(at, name, other)
        case 4:
            other = rng.choice([pa.array([-1] * n), pa.array([10**9] * n), pa.array([[1]] * n)])
            table = table.set_column(at, name, other)
        case 5:
            table = table.slice(0, rng.randrange(n))
        case 6:
            table = table.take(pa.array(rng.sample(range(n), n)))
        case _:
            table = pa.table({"x": [1]})
    pq.write_table(table, scratch)
    return scratch.read_bytes()


def other_database(data: bytes, rng: random.Random, scratch: Path) -> bytes:
    """The ledger with other tables, columns or values."""
    import sqlite3

    scratch.write_bytes(data)
    statement = rng.choice(
        [
            "DROP TABLE calls",
            "DROP TABLE notes",
            "ALTER TABLE calls RENAME COLUMN reply TO answer",
            "ALTER TABLE calls ADD COLUMN more TEXT",
            "CREATE TABLE other (a, b)",
            "UPDATE calls SET reply = '[]'",
            "UPDATE calls SET reply = '{'",
            "UPDATE calls SET reply = 7",
            "UPDATE calls SET reply = NULL",
            "UPDATE calls SET request = 'x'",
            "UPDATE calls SET created = 3",
            "UPDATE calls SET reply = json_set(reply, '$.usd', 'dear')",
            "UPDATE calls SET reply = json_set(reply, '$.usd', -4)",
            "UPDATE calls SET reply = json_set(reply, '$.prompt_tokens', 'many')",
            "UPDATE calls SET reply = json_set(reply, '$.text', json('[]'))",
            "UPDATE calls SET reply = json_remove(reply, '$.model')",
            "UPDATE risked SET usd = 'x'",
            "PRAGMA user_version = 0",
            "PRAGMA user_version = 7",
        ]
    )
    with sqlite3.connect(scratch) as calls:
        calls.execute(statement)
    calls.close()
    return scratch.read_bytes()


def odd_toml(data: bytes, rng: random.Random) -> bytes:
    odd = rng.choice(
        [
            "n_latents = [1]",
            "n_latents = {a = 1}",
            "n_latents = 1979-05-27",
            "n_latents = " + "9" * 6000,
            "n_latents = true",
            "n_latents = 1.5",
            "lr = nan",
            "lr = []",
            "k = -1",
            'activation = ["topk"]',
            "x = " + "[" * 3000 + "]" * 3000,
            "sweep = 3",
            "sweep = [3, [4]]",
            "overwrite = 'yes, please'",
            "config = 'settings.toml'",
            "out = 3",
            'debug = "x"',
            "json = 7",
        ]
    )
    return f"[train]\n{odd}\n".encode()
