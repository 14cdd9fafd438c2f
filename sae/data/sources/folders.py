"""Images by domain -> the candidates with their classes; what is special is said.

A domain is a folder, with the archives in it, or archives, or a list of images: sources/.

Folders are read the ImageFolder way: the first folder under a domain's root is the class; where
the first ones are splits (train, val, test), it is the one below.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from sae.core.errors import Notice, UserError
from sae.core.places import IMAGE_SUFFIXES, kind_of, refuse_place
from sae.data.classes.names import class_of, is_wordnet_id, read_class_names
from sae.data.sources import archives, hub
from sae.data.sources.places import (
    Found,
    find_in_archives,
    find_in_files,
    is_folder,
    is_list,
    root_of,
)

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
_MOST_NAMED = 5


class ImageFile(NamedTuple):
    """A candidate: it has an image's name, but nobody has read it yet."""

    path: Path
    domain: str
    label: str  # its class; "" when the file lies directly in the root


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Which images of folders are read, and as what."""

    split: Annotated[
        str, typer.Option(help="Of folders train/, val/, test/ under a domain's: read only this.")
    ] = ""
    classes: Annotated[
        Path | None,
        typer.Option(help="CSV file of lines FOLDER,NAME: what the classes are called."),
    ] = None
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Also read what links out of a domain's folder show."),
    ] = False
    allow_skipped: Annotated[
        bool,
        typer.Option("--allow-skipped", help="Go on when over 1% of the files are unreadable."),
    ] = False
    max_pixels: Annotated[
        int,
        typer.Option(
            min=1,
            max=178_956_970,
            help="Larger images are skipped: a small file can ask for gigabytes of pixels.",
        ),
    ] = 50_000_000


def parse_domains(items: Sequence[str], apart: bool = True) -> dict[str, Path]:
    """`["sketch=DIR", "photo=DIR"]` -> places by domain, in the order given.

    `apart`: none may lie in another's.
    """
    domains: dict[str, Path] = {}
    for item in items:
        name, equals, folder = item.partition("=")
        if not equals or not folder or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UserError(f"{item!r} is not NAME=DIR; write for example sketch=data/sketch")
        if name in domains:
            raise UserError(f"the domain {name!r} is given twice; each needs a name of its own")
        path = hub.place_of(folder)
        if apart:
            _refuse_overlap(domains, name, path)
        domains[name] = path
    if not domains:
        raise UserError(
            "no images were named; write for example sketch=data/sketch photo=data/photo"
        )
    return domains


def find_images(domains: Mapping[str, Path], config: FolderConfig | None = None) -> list[ImageFile]:
    """All candidates, in the order of the domains and then by path.

    Hidden files and folders are left out. A folder or a broken link with an image's name is
    listed, so that it ends in skipped.csv instead of vanishing. What is left out, joined or renamed
    is told by a `Notice`. Raises `UserError` when a place is missing or holds no image, or a link
    leads out of it and `config` does not allow that.
    """
    config = config or FolderConfig()
    names = read_class_names(config.classes) if config.classes else {}
    real = {domain: Path(os.path.realpath(place)) for domain, place in domains.items()}
    found: list[ImageFile] = []
    for domain, place in domains.items():
        if not is_folder(place):
            candidates = find_in_files(place, domain)
        else:
            others = [other for name, other in real.items() if name != domain]
            candidates = _find_in_folder(domain, place, others, config)
        found += _label(domain, root_of(place), candidates, config, names)
    return found


def find_roots(domains: Mapping[str, Path]) -> dict[str, Path]:
    """The folder of each domain's images; of archives or a list, that in which they lie."""
    return {domain: root_of(place) for domain, place in domains.items()}


def name_lost_classes(
    files: Sequence[ImageFile], embedded: Mapping[tuple[str, str], int]
) -> list[str]:
    """A line for each domain, or class of one, of which no image was embedded.

    `embedded` counts images by (domain, class).
    """
    wanted = Counter((file.domain, file.label) for file in files)
    alive = {domain for domain, _ in embedded}
    lines = [
        f"no image of the domain {domain!r} was embedded: see skipped.csv"
        for domain in dict.fromkeys(file.domain for file in files)
        if domain not in alive
    ]
    lost = sorted(k for k in wanted if k[0] in alive and k[1] and k not in embedded)
    if lost:
        named = _some([f"{domain}/{label} ({wanted[domain, label]})" for domain, label in lost])
        lines.append(f"no image of {len(lost)} classes was embedded, see skipped.csv: {named}")
    return lines


def _find_in_folder(
    domain: str, root: Path, others: Sequence[Path], config: FolderConfig
) -> list[Found]:
    """The images of a folder, and of the archives in it, by path."""
    hub.fetch_missing(root)
    strangers = ("run", "store", "part of a store", "stores", "SAE", "world")
    if not root.is_dir() or kind_of(root) in strangers:
        raise refuse_place(root, "images")
    scan = _Scan(root, others, config.follow_links)
    files = [Found(path, path, None) for path in scan.run()]
    inside = find_in_archives(root, sorted(scan.archives, key=Path.as_posix))
    scan.report(domain)
    return sorted([*files, *inside], key=lambda one: one.path.as_posix()) if inside else files


def _refuse_overlap(domains: Mapping[str, Path], name: str, path: Path) -> None:
    for other, root in domains.items():
        ours, theirs = path.resolve(), root.resolve()
        if ours == theirs and is_list(path):
            continue  # its column tells which rows are of which domain
        if ours == theirs:
            raise UserError(f"the domains {other!r} and {name!r} are the same folder {path}")
        if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
            inner, outer = (name, other) if ours.is_relative_to(theirs) else (other, name)
            raise UserError(
                f"the folder of the domain {inner!r} lies in that of {outer!r}: its images would "
                "be in both; name folders beside each other"
            )


def _label(
    domain: str, root: Path, found: Sequence[Found], config: FolderConfig, names: Mapping[str, str]
) -> Iterator[ImageFile]:
    """The candidates of a domain with their classes. Says how splits and codes were read."""
    if not found:
        looked_for = " ".join(IMAGE_SUFFIXES)
        raise UserError(f"{root} (domain {domain!r}) has no image; looked for {looked_for}")
    splits = _splits([one.place for one in found])
    if config.split and config.split not in splits:
        known = f"they are {', '.join(splits)}" if splits else "it has none"
        raise UserError(f"--split {config.split!r} is no split folder of {root}: {known}")
    if splits and not config.split:
        _notice(
            f"{domain}: {', '.join(splits)} are splits, not classes: all of them are read "
            "(--split takes one), and the folder below is the class"
        )
    depth = 1 if splits else 0
    chosen = [one for one in found if not config.split or one.place.parts[0] == config.split]
    folders = [_class_folder(one, depth) for one in chosen]
    _report_classes(domain, folders, names)
    inner = {
        one.place.parts[depth + 1]
        for one in chosen
        if one.label is None and len(one.place.parts) > depth + 2
    }
    if len(set(folders)) == 1 and len(inner) > 1:
        wrapper = root / Path(*chosen[0].place.parts[: depth + 1])
        _notice(
            f"{domain}: all images are of one class, {folders[0]!r}; for the folders in it as "
            f"classes write {domain}={wrapper}"
        )
    for one, folder in zip(chosen, folders, strict=True):
        yield ImageFile(root / one.path, domain, class_of(folder, names))


def _class_folder(one: Found, depth: int) -> str:
    """What tells a candidate's class: its archive or list, or its folder at this depth."""
    if one.label is not None:
        return one.label
    parts = one.place.parts
    return parts[depth] if len(parts) > depth + 1 else ""


def _splits(paths: Sequence[Path]) -> list[str]:
    """The first folders, when all of them are called like splits and there are several, or
    folders in them.
    """
    first = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    deeper = any(len(path.parts) > 2 for path in paths)
    named = all(name.lower() in SPLITS for name in first)
    return first if named and (len(first) > 1 or deeper) else []


def _report_classes(domain: str, folders: Sequence[str], names: Mapping[str, str]) -> None:
    """Say which folders' names are not their classes'."""
    different = sorted(set(folders) - {""})
    renamed = {folder: class_of(folder, names) for folder in different}
    changed = [f"{folder} -> {name}" for folder, name in renamed.items() if name != folder]
    if changed:
        _notice(f"{domain}: {len(changed)} of {len(different)} classes renamed: {_some(changed)}")
    codes = [folder for folder, name in renamed.items() if is_wordnet_id(name)]
    if codes:
        _notice(
            f"{domain}: {len(codes)} classes are ids that ImageNet's 1,000 do not have "
            f"({_some(codes)}); name them with --classes FILE"
        )
    joined = [name for name, n in Counter(renamed.values()).items() if n > 1]
    if joined:
        _notice(f"{domain}: several folders are one class: {_some(sorted(joined))}")


@dataclass
class _Scan:
    """One walk through a root. Real folders come first, so that no link takes over a class."""

    root: Path
    others: Sequence[Path]
    """Real folders of the other domains."""
    follow_links: bool
    paths: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """By suffix: files without an image's name."""
    links: list[str] = field(default_factory=list)
    """Links to folders, and what became of each."""
    outside: list[Path] = field(default_factory=list)
    """Links out of the root."""

    def run(self) -> list[Path]:
        """The candidates' paths relative to the root, sorted."""
        self._real_root = Path(os.path.realpath(self.root))
        self._visited: set[str] = set()
        links = self._walk(Path())
        while links:
            links = [deeper for link in sorted(links) for deeper in self._link(link)]
        if self.outside:
            raise UserError(
                f"{self.root / self.outside[0]} is a link out of {self.root}, and so are "
                f"{len(self.outside) - 1} more; add --follow-links to read what they lead to"
            )
        return sorted(self.paths, key=Path.as_posix)

    def report(self, domain: str) -> None:
        """Say which links were met, and what has no image's name."""
        for link in self.links:
            _notice(f"{domain}: {link}")
        if self.left_out:
            kinds = [f"{suffix} {n:,}" for suffix, n in self.left_out.most_common()]
            n_files = self.left_out.total()
            _notice(f"{domain}: {n_files:,} other files are left out: {_some(kinds)}")

    def _link(self, link: Path) -> list[Path]:
        """Follow a link to a folder, or not; the links in it come back."""
        target = Path(os.path.realpath(self.root / link))
        if str(target) in self._visited or any(target.is_relative_to(o) for o in self.others):
            self.links.append(f"the link {link} is left out: {target} is read anyway")
        elif self.follow_links:
            self.links.append(f"the link {link} is followed to {target}")
            return self._walk(link)
        else:
            self.outside.append(link)
        return []

    def _walk(self, top: Path) -> list[Path]:
        """Take in all that lies in real folders; the links to folders come back."""
        links: list[Path] = []
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(self.root / folder)
            if real in self._visited:
                continue
            self._visited.add(real)
            for entry in _entries(self.root / folder):
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(IMAGE_SUFFIXES):
                    self._take(self.paths, path, entry.is_symlink())
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_dir():
                    links.append(path)
                elif archives.is_archive(Path(entry.path)):
                    self._take(self.archives, path, entry.is_symlink())
                else:
                    self.left_out[Path(entry.name).suffix.lower() or "no suffix"] += 1
        return links

    def _take(self, paths: list[Path], path: Path, is_link: bool) -> None:
        paths.append(path)
        if is_link and not self.follow_links:
            target = Path(os.path.realpath(self.root / path))
            if target.exists() and not target.is_relative_to(self._real_root):
                self.outside.append(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}") from None


def _some(words: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _notice(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=2)
