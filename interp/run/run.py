"""A run: the folder `results/<name>/` that holds everything about one SAE on one store."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.run.results import CAUSAL, EXPLANATIONS, SCORES, TASKS, VERDICTS, Results
from sae.core.clip_name import without_place
from sae.core.errors import UserError
from sae.core.files import FORMAT, read_config, replacing, write_json
from sae.core.lock import Lock, hold
from sae.core.output import require_name, require_own
from sae.core.places import kind_of, refuse_place

if TYPE_CHECKING:
    from interp.evidence.reader import EvidenceReader
    from interp.evidence.stream.activations import Encoder
    from sae.data.store import EmbeddingStore

RESULTS = Path("results")
"""Where runs lie, from the folder in which a command is typed."""
NAMED = ".named"
"""In results/: the name of the run that was named last."""
FRESH = 3600.0
"""Seconds: runs that were worked on so soon after each other are not told apart by their age."""
TRANSFER = "transfer"
"""Folder of the journal that `interp transfer` keeps."""
CANDIDATES = "candidates"
"""Folder of the journal that `interp explain --best-of` keeps."""
EDITED = "edited"
"""Folder of the journal that `interp score --only edited` keeps."""
DISAMBIGUATION = "disambiguation"
"""Folder of the journal that `interp explain --disambiguate` keeps."""
INFO, UNFINISHED = "run.json", "run.unfinished.json"
VERSIONED = ("sae-interp", "torch", "open_clip_torch", "pillow", "numpy", "openai", "jinja2")


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """run.json: what the run is about and how each stage was set. No absolute path, no key."""

    format: int = FORMAT
    name: str
    store: str
    """The EmbeddingStore's folder, relative to the run's."""
    store_identity: str
    clip: str
    """Its name; of a `local-dir:` only the folder's own name."""
    clip_sha: str
    layer: str
    tokens: str
    n_images: int
    n_latents: int
    k: int
    sae_identity: str
    """sha256 over the SAE's rule and numbers."""
    versions: dict[str, str]
    git_commit: str
    """Of this project where it is a checkout; else ""."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage (collect, explain, score): the settings that it last ran with."""


class Run:
    """Paths of one run, and its run.json."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, name: str | None = None) -> Run:
        """The run called `name` (a folder, or a name under results/); without one, the newest.

        Where several are of one hour it is the one that was named last in this folder. Raises
        `UserError` when there is none, or when it is not clear which one is meant.
        """
        if name is None:
            return cls._meant()
        for path in (RESULTS / name, Path(name)):
            if (path / INFO).exists():
                _note_named(path)
                return cls(path)
        if kind_of(Path(name)) not in ("missing", "run"):
            raise refuse_place(Path(name), "run")
        known = ", ".join(sorted(p.parent.name for p in RESULTS.glob("*/run.json"))) or "none yet"
        raise UserError(f"--run {name}: no run.json in {RESULTS / name}; runs here: {known}")

    @classmethod
    def _meant(cls) -> Run:
        times = {path.parent: path.stat().st_mtime for path in RESULTS.glob("*/run.json")}
        if not times:
            raise UserError(
                f"no run in {RESULTS}/; make one with `interp collect SAE STORE` or `interp demo`"
            )
        newest = max(times, key=lambda path: times[path])
        fresh = sorted(path.name for path in times if times[path] > times[newest] - FRESH)
        if len(fresh) > 1:
            with suppress(OSError, ValueError):
                named = RESULTS / (RESULTS / NAMED).read_text(encoding="utf-8").strip()
                if named.parent == RESULTS and named in times:
                    return cls(named)
            raise UserError(
                f"{len(fresh)} runs in {RESULTS}/ are of one hour ({', '.join(fresh[:6])}); "
                "say which with --run; what was named once is meant from then on"
            )
        return cls(newest)

    @classmethod
    def create(cls, path: Path, sae_dir: Path, model: Encoder, store: EmbeddingStore) -> Run:
        """Make the folder, or take the one that is there for the same SAE and store.

        Raises `UserError` when the folder is the run of another SAE or store.
        """
        from sae.model.identity import sae_identity
        from sae.model.sae import SAE, is_ours

        info = RunInfo(
            name=path.resolve().name,
            store=Path(os.path.relpath(store.path.resolve(), path.resolve())).as_posix(),
            store_identity=store.info.identity,
            clip=without_place(store.info.clip),
            clip_sha=store.info.clip_sha,
            layer=store.info.layer,
            tokens=store.info.tokens,
            n_images=store.info.n_images,
            n_latents=model.n_latents,
            k=model.config.k,
            sae_identity=sae_identity(model),
            versions=_versions(),
            git_commit=_git_commit(),
        )
        run = cls.begin(path)
        _note_named(path)
        if (path / INFO).exists():
            run._require_same(info)
            (path / UNFINISHED).unlink(missing_ok=True)
            return run
        if isinstance(model, SAE) and not is_ours(sae_dir):
            model.save(run.sae)
        else:
            _copy_sae(sae_dir, run.sae)
        write_json(path / INFO, info)
        (path / UNFINISHED).unlink(missing_ok=True)
        return run

    @classmethod
    def begin(cls, path: Path) -> Run:
        """The folder of a run that is to be, marked as such before anything else is in it.

        Raises `UserError` as `is_begun` does.
        """
        if not cls.is_begun(path):
            write_json(path / UNFINISHED, {"format": FORMAT})
        return cls(path)

    @staticmethod
    def is_begun(path: Path) -> bool:
        """Whether a run is there, perhaps without evidence; False where the folder is new.

        Raises `UserError` when it holds anything else.
        """
        is_own = any((path / name).exists() for name in (INFO, UNFINISHED))
        require_own(path, "run", is_own, "--run")
        return is_own

    @property
    def info(self) -> RunInfo:
        """run.json as it stands."""
        return read_config(self.path / INFO, RunInfo, "run `interp collect` again")

    @property
    def store(self) -> Path:
        """The EmbeddingStore's folder."""
        return Path(os.path.normpath(self.path.resolve() / self.info.store))

    @cached_property
    def evidence(self) -> EvidenceReader:
        """What `interp collect` found, opened once. Raises `UserError` when it is not there."""
        from interp.evidence.reader import EvidenceReader

        return EvidenceReader(self.path)

    @cached_property
    def results(self) -> Results:
        """What was said and measured so far; each file is read once."""
        return Results(self.path)

    @cached_property
    def transfer(self) -> Results:
        """The same of labels that were explained and scored on one domain: a journal of its own."""
        return Results(self.path / TRANSFER)

    @cached_property
    def candidates(self) -> Results:
        """The same of all labels that labels were chosen among, each scored on the side select."""
        return Results(self.path / CANDIDATES)

    @cached_property
    def disambiguation(self) -> Results:
        """What was said of latents that shared a label, also where it was the same again."""
        return Results(self.path / DISAMBIGUATION)

    @cached_property
    def edited(self) -> Results:
        """Scores of the labels that people wrote in place of the run's own."""
        return Results(self.path / EDITED)

    @property
    def sae(self) -> Path:
        """The run's own copy of the SAE."""
        return self.path / "sae"

    @property
    def ledger(self) -> Path:
        """Every reply that was paid for."""
        return self.path / "calls.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on the run; a `Ledger` holds it too."""
        return self.ledger.with_suffix(".lock")

    @property
    def explanations(self) -> Path:
        return self.path / EXPLANATIONS

    @property
    def scores(self) -> Path:
        return self.path / SCORES

    @property
    def causal(self) -> Path:
        return self.path / CAUSAL

    @property
    def tasks(self) -> Path:
        return self.path / TASKS

    @property
    def verdicts(self) -> Path:
        return self.path / VERDICTS

    @property
    def labels(self) -> Path:
        return self.path / "labels.csv"

    @property
    def gallery(self) -> Path:
        return self.path / "gallery" / "index.html"

    def hold(self) -> Lock:
        """Hold the run for this process. Raises `UserError` while another one works on it."""
        return hold(*self.lock_told)

    @property
    def lock_told(self) -> tuple[Path, str]:
        """Its lock, and what is told to another process of what it is."""
        return self.lock, f"the run {self.path}"

    def remember(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Write down the resolved settings of a stage."""
        info = self.info
        merged = {**info.settings, stage: dict(settings)}
        if merged != info.settings:
            write_json(self.path / INFO, dataclasses.replace(info, settings=merged))

    def _require_same(self, new: RunInfo) -> None:
        old = self.info
        for name in ("sae_identity", "store_identity"):
            if getattr(old, name) != getattr(new, name):
                what = "SAE" if name == "sae_identity" else "store"
                raise UserError(
                    f"{self.path} is the run of another {what}; choose another name with --run"
                )


def _note_named(path: Path) -> None:
    """Of several runs in results/ the one that was named last is meant where none is named."""
    if path.parent == RESULTS:
        with suppress(OSError, UserError), replacing(RESULTS / NAMED) as part:
            part.write_text(path.name, encoding="utf-8")


def run_folder(name: str) -> Path:
    """The folder of a run: a plain name lies under results/, anything else is a path.

    Raises `UserError` for what is no name of a folder.
    """
    require_name(name, "--run")
    if Path(name).name == "..":
        raise UserError(f"--run {name} names no folder of its own; give a name")
    return RESULTS / name if Path(name).name == name else Path(name)


def _copy_sae(source: Path, target: Path) -> None:
    """Copy weights and configuration; the configuration last, as its presence means complete."""
    for name in ("sae.safetensors", "eval.json", "config.json"):
        if (source / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_commit() -> str:
    """The checkout's commit, with "+" where files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if dirty else "")
