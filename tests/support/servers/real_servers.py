"""Real OpenAI-compatible servers, each in a process of its own, for the tests marked `server`.

What is slow to make (the fitted model, an npm package) stays in the folder that the environment
variable SAE_INTERP_TEST_CACHE names, or is made once per test session.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

CACHE = "SAE_INTERP_TEST_CACHE"
"""Environment variable: folder that outlives a test session."""
AIMOCK = "@copilotkit/aimock@1.43.0"
"""MIT licence, no dependencies; a mock of OpenRouter that can inject faults."""

_SCRIPT = Path(__file__).with_name("tiny_vlm.py")
_START = 120.0
"""Seconds that a server may take until it says that it is healthy."""

Kind = Literal["fitted", "random", "text_only"]
_OPTIONS: dict[Kind, list[str]] = {
    "fitted": ["--fit"],
    "random": [],
    "text_only": ["--text-only"],
}


class Served(NamedTuple):
    """A running server and a model that it serves."""

    base_url: str
    model: str


def tiny_model(kind: Kind, folder: Path) -> Path:
    """The folder of a tiny model, made when it is not there; the fitted one takes two minutes."""
    version = hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()[:8]
    out = _cache(folder) / f"tiny-{kind}-{version}"
    if not out.exists():
        part = out.with_suffix(f".{os.getpid()}.part")
        command = [sys.executable, str(_SCRIPT), str(part), *_OPTIONS[kind]]
        subprocess.run(command, check=True, env=_quiet({}), stdout=subprocess.DEVNULL)
        part.replace(out)
    return out


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """Base URL of `transformers serve`, which loads any model folder that a request names."""
    if not all(find_spec(name) for name in ("transformers", "fastapi", "uvicorn")):
        pytest.skip("transformers serve is not installed: pip install 'sae-interp[server]'")
    home = folder / "hub-home"
    home.mkdir(parents=True, exist_ok=True)  # without "hub" in it the list of models is a 500
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", *where]
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with _running(command, f"http://127.0.0.1:{port}/health", folder / "serve.log", offline):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def aimock(
    folder: Path,
    fixtures: Sequence[Mapping[str, Any]],
    *words: str,
    keys: str = "",
) -> Iterator[str]:
    """Base URL of an OpenRouter mock that answers by `fixtures`; `words` as on its command line.

    `keys`: those that it takes, with commas; any without.
    """
    program = _aimock_program(folder)
    told = folder / "fixtures"
    told.mkdir(parents=True)
    (told / "all.json").write_text(json.dumps({"fixtures": list(fixtures)}))
    port = free_port()
    command = ["node", str(program), "-p", str(port), "-f", str(told), "--strict", *words]
    known = {"AIMOCK_API_KEYS": keys} if keys else {}
    with _running(command, f"http://127.0.0.1:{port}/health", folder / "aimock.log", known):
        yield f"http://127.0.0.1:{port}/api/v1"


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cache(folder: Path) -> Path:
    cache = Path(os.environ.get(CACHE) or folder / "cache")
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _aimock_program(folder: Path) -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("aimock needs node and npm")
    home = _cache(folder.parent) / f"aimock-{AIMOCK.rpartition('@')[2]}"
    program = home / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
    if not program.exists():
        install = ["npm", "install", "--ignore-scripts", "--no-audit", "--prefix", str(home)]
        done = subprocess.run([*install, AIMOCK], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm cannot install {AIMOCK}: {done.stderr.strip()[-200:]}")
    return program


@contextmanager
def _running(
    command: Sequence[str], health: str, log: Path, changes: Mapping[str, str]
) -> Iterator[None]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, env=_quiet(changes)
        )
    try:
        _wait(process, health, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    """Until it is healthy; a server that ends or never answers fails the test with its log."""
    end = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    tail = log.read_text(errors="replace")[-2000:]
    pytest.fail(f"{log.stem} did not start:\n{tail}")


def _quiet(changes: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **changes}
