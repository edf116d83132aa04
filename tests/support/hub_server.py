"""A hub on loopback: serves folders as the repositories of models and data sets.

It speaks what huggingface_hub, datasets and transformers ask for when they look up and download a
repository; whoever reads HF_ENDPOINT talks to it. It knows one commit of each repository, and under
no other name than its hash and `main`. Models are uploaded where it has a folder for them.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


def commit_of(repository: str) -> str:
    """The commit that the hub knows of a repository: 40 hexadecimal digits."""
    return hashlib.sha1(repository.encode()).hexdigest()


@dataclass
class HubServer:
    """Repositories by (kind, id), `models` or `datasets`, and what has been asked for."""

    endpoint: str
    repositories: dict[tuple[str, str], Path | None]
    requests: list[str] = field(default_factory=list)
    #: Those whose content was wanted, and not only what is known of it.
    gets: list[str] = field(default_factory=list)
    #: Where uploads are kept, and the token that they need.
    uploads: Path | None = None
    token: str = "secret"

    def environment(self, cache: Path) -> dict[str, str]:
        """What a process needs to use this hub, and an empty cache, in place of the real one."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }


@contextmanager
def hub_server(
    repositories: dict[tuple[str, str], Path | None], uploads: Path | None = None
) -> Iterator[HubServer]:
    """A hub with these repositories; a repository without a folder has no files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = HubServer(f"http://127.0.0.1:{server.server_port}", repositories, uploads=uploads)
    server.hub = hub  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """The routes: repository, tree, paths-info, and files."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = urlsplit(self.path).path
        if path == "/api/repos/create" or path.endswith(("/preupload/main", "/commit/main")):
            return self.upload(path, [json.loads(line) for line in body.splitlines() if line])
        if path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        self.do_GET(json.loads(body) if body else {})

    def upload(self, path: str, lines: list[dict]) -> None:
        """The routes of an upload: the repository, how files are sent, and their commit."""
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        hub.requests.append(path)
        if hub.uploads is None or self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.fail("Unauthorized", 401)
        if path == "/api/repos/create":
            name = f"{lines[0]['organization']}/{lines[0]['name']}"
            hub.repositories["models", name] = hub.uploads / name
            return self.send({"id": name, "url": f"{hub.endpoint}/{name}"})
        if path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular"} for f in lines[0]["files"]]
            return self.send({"files": [{**file, "shouldIgnore": False} for file in files]})
        name = path.removeprefix("/api/models/").removesuffix("/commit/main")
        for line in lines:
            if line["key"] == "file":
                file = hub.uploads / name / line["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
        commit = commit_of(name)
        url = f"{hub.endpoint}/{name}/commit/{commit}"
        self.send({"success": True, "commitOid": commit, "commitUrl": url})

    def do_GET(self, body: dict | None = None) -> None:
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(path)
        if self.command == "GET":
            hub.gets.append(path)
        for (kind, name), folder in hub.repositories.items():
            api, files = f"/api/{kind}/{name}", f"/{name}/resolve/"
            if path == api or path.startswith(api + "/"):
                return self.api(name, folder, path.removeprefix(api).strip("/"), body)
            if path.startswith(("/datasets" if kind == "datasets" else "") + files):
                return self.file(name, folder, path.partition("/resolve/")[2])
        return self.fail("RepoNotFound")

    def api(self, name: str, folder: Path | None, what: str, body: dict | None) -> None:
        route, _, rest = what.partition("/")
        revision, _, below = rest.partition("/")
        if route and revision not in (commit_of(name), "main"):
            return self.fail("RevisionNotFound")
        files = [] if folder is None else sorted(p for p in folder.rglob("*") if p.is_file())
        names = {str(p.relative_to(folder)): p for p in files if folder is not None}
        if route in ("", "revision"):
            siblings = [{"rfilename": file} for file in names]
            return self.send({"id": name, "sha": commit_of(name), "siblings": siblings})
        entries = [
            {"type": "file", "path": file, "size": p.stat().st_size, "oid": commit_of(file)}
            for file, p in names.items()
        ]
        folders = {str(f) for file in names for f in Path(file).parents if str(f) != "."}
        entries += [{"type": "directory", "path": f, "oid": commit_of(f)} for f in sorted(folders)]
        if route == "paths-info":
            wanted = (body or {}).get("paths", [])
            return self.send([entry for entry in entries if entry["path"] in wanted])
        if route == "tree":
            inside = [e for e in entries if str(e["path"]).startswith(f"{below}/" if below else "")]
            if below and not inside:
                return self.fail("EntryNotFound")
            if "recursive=true" not in self.path.lower():
                inside = [e for e in inside if str(Path(str(e["path"])).parent) == (below or ".")]
            return self.send(inside)
        return self.fail("EntryNotFound")

    def file(self, name: str, folder: Path | None, what: str) -> None:
        revision, _, file = what.partition("/")
        if revision not in (commit_of(name), "main"):
            return self.fail("RevisionNotFound")
        if folder is None or not (folder / file).is_file():
            return self.fail("EntryNotFound")
        content = (folder / file).read_bytes()
        self.send(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, commit_of(name))

    def send(self, content: bytes | dict | list, headers=None, commit: str = "") -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        start, end, status = 0, len(data), 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, status = int(first), int(last or len(data) - 1) + 1, 206
        self.send_response(status)
        for key, value in {**(headers or {}), "X-Repo-Commit": commit}.items():
            self.send_header(key, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header(
            "Content-Type", "application/octet-stream" if headers else "application/json"
        )
        self.send_header("Content-Length", str(len(data[start:end])))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:end])

    def fail(self, code: str, status: int = 404) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args) -> None:
        """Quiet: requests are in the hub's list."""
