"""A Hugging Face hub on 127.0.0.1: repositories of commits, made, pushed to and read over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.serving import Served

TOKEN = "hf_" + "loopback" * 4


@dataclass
class Repo:
    """A repository; a branch is a name of a commit, a commit the files that it holds."""

    private: bool = False
    sdk: str | None = None
    """Of a Space."""
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.branches.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


@dataclass
class FakeHub(Served):
    """Serve until the block ends. Writing, and private repositories, need `TOKEN`."""

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256; those whose names end in `large` are sent so."""
    large: tuple[str, ...] = (".safetensors", ".webp")
    status: int = 0
    """Every request is refused with this."""
    echo: bool = False
    """A refusal repeats the request's token."""
    corrupt: str = ""
    """The file of this name arrives with a byte changed."""
    n_corrupt: int = 1 << 30
    """How many times."""
    warning: str = ""
    """What is said of every model card."""
    rival: bool = False
    """Somebody else commits between the look at a repository and our commit."""
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""

    def make_server(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        return server

    @property
    def url(self) -> str:
        return self.origin

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Put a commit there without any request; its name comes back."""
        return self.repos.setdefault(repo, Repo()).commit(branch, files)

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repos[repo].at(revision)
        assert found is not None
        return found[1]

    def is_large(self, name: str) -> bool:
        return name.endswith(self.large)

    def commit(self, repo: str, branch: str, lines: list[dict[str, Any]]) -> str | None:
        """The new commit; None when it was made on top of another than the branch's last."""
        header = lines[0]["value"]
        if self.rival:
            self.rival = False
            self.add(repo, {**self.files(repo, branch), "rival.txt": b"first"}, branch)
        head = self.repos[repo].branches[branch]
        if header.get("parentCommit", head) != head:
            return None
        files = dict(self.files(repo, branch))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return self.repos[repo].commit(branch, files)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_ID = r"(?P<repo>(?:(?:spaces|datasets)/)?[\w.-]+/[\w.-]+)"
"""Of a Space it begins with "spaces/", of a data set with "datasets/", in `FakeHub.repos` too."""
_API = rf"/api/(?:models/(?!spaces/|datasets/)|(?=(?:spaces|datasets)/)){_ID}"
_ROUTES = (
    (
        "GET",
        rf"{_API}(?:/revision/(?P<revision>[^/]+))?",
        "info",
    ),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", "branch"),
    (
        "POST",
        rf"{_API}/preupload/(?P<revision>[^/]+)",
        "preupload",
    ),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/objects/(?P<oid>[0-9a-f]{64})", "store"),
    ("HEAD|GET", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", "resolve"),
)


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.status:
            said = f"not with {self.headers['Authorization']}" if self.hub.echo else "no"
            return self._json(self.hub.status, {"error": said}, **{"X-Error-Message": said})
        for methods, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                if self.command == "POST" and name != "paths" and not self._is_known():
                    return self._json(401, {"error": "Invalid username or password."})
                return getattr(self, f"_{name}")(**found.groupdict())
        self._json(404, {"error": f"no such path {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = _route

    def _is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, repo: str) -> Repo | None:
        """The repository, if the asker may see it; otherwise the refusal is sent."""
        found = self.hub.repos.get(repo)
        if found is not None and (self._is_known() or not found.private):
            return found
        status = 404 if self._is_known() else 401
        self._json(status, {"error": "Not Found"}, **{"X-Error-Code": "RepoNotFound"})
        return None

    def _at(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        there = self._repo(repo)
        found = there.at(revision) if there else None
        if there and not found:
            self._json(404, {"error": "Invalid"}, **{"X-Error-Code": "RevisionNotFound"})
        return found

    def _info(self, repo: str, revision: str | None) -> None:
        if found := self._at(repo, revision or "main"):
            listed = [self._sibling(name, data) for name, data in found[1].items()]
            there = self.hub.repos[repo]
            name = repo.removeprefix("spaces/").removeprefix("datasets/")
            told = {"id": name, "sha": found[0], "private": there.private}
            self._json(200, told | {"siblings": listed} | ({"sdk": there.sdk} if there.sdk else {}))

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        told: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
        if self.hub.is_large(name):
            sha = hashlib.sha256(data).hexdigest()
            told |= {"lfs": {"sha256": sha, "size": len(data), "pointerSize": 130}}
            told["blobId"] = git_sha1(b"a pointer to " + sha.encode())
        return told

    def _tree(self, repo: str, revision: str, folder: str | None) -> None:
        if found := self._at(repo, revision):
            inside = f"{folder}/" if folder else ""
            entries = self._entries(found[1])
            self._json(200, [one for one in entries if one["path"].startswith(inside)])

    def _paths(self, repo: str, revision: str) -> None:
        if found := self._at(repo, revision):
            form = parse_qs(self.body.decode())
            is_form = "paths" in form
            asked = form["paths"] if is_form else json.loads(self.body)["paths"]
            self._json(200, [one for one in self._entries(found[1]) if one["path"] in asked])

    def _entries(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        """Files, and the folders that they lie in."""
        folders = {
            "/".join(n.split("/")[:end]) for n in files for end in range(1, n.count("/") + 1)
        }
        return [
            *({"type": "directory", "path": name, "oid": git_sha1(b"")} for name in folders),
            *(
                {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
                for name, data in files.items()
            ),
        ]

    def _create(self) -> None:
        asked = json.loads(self.body)
        kind = "spaces/" if asked.get("type") == "space" else ""
        name = f"{kind}{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[name] = Repo(private=private, sdk=asked.get("sdk"))
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json(200, {"url": f"{self.hub.url}/{name}"})

    def _validate(self) -> None:
        warnings = [{"message": self.hub.warning}] if self.hub.warning else []
        self._json(200, {"warnings": warnings, "errors": []})

    def _branch(self, repo: str, branch: str) -> None:
        if there := self._repo(repo):
            if branch in there.branches:
                return self._json(409, {"error": "Reference already exists"})
            there.branches[branch] = there.branches["main"]
            self._json(200, {})

    def _preupload(self, repo: str, revision: str) -> None:
        if self._at(repo, revision):
            files = [
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if self.hub.is_large(asked["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for asked in json.loads(self.body)["files"]
            ]
            self._json(200, {"files": files})

    def _batch(self, repo: str) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._json(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self._json(200, {})

    def _commit(self, repo: str, revision: str) -> None:
        if self._at(repo, revision):
            lines = [json.loads(line) for line in self.body.splitlines()]
            commit = self.hub.commit(repo, revision, lines)
            if commit is None:
                return self._json(412, {"error": "A commit has happened since."})
            url = f"{self.hub.url}/{repo}/commit/{commit}"
            self._json(200, {"success": True, "commitOid": commit, "commitUrl": url})

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        found = self._at(repo, revision)
        if found is None:
            return None
        data = found[1].get(name)
        if data is None:
            return self._json(404, {"error": "none"}, **{"X-Error-Code": "EntryNotFound"})
        large = self.hub.is_large(name)
        etag = hashlib.sha256(data).hexdigest() if large else git_sha1(data)
        if name == self.hub.corrupt and self.command == "GET" and self.hub.n_corrupt:
            self.hub.n_corrupt -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": found[0]}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._send(206, data[first : last + 1], headers)
        self._send(200, data, headers)

    def _json(self, status: int, value: Any, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "text/json"} | headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""
