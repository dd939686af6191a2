"""A hub on this machine: the few addresses that a push speaks to, and the repositories it made."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote

TOKEN = "token-of-me"


@dataclass
class StubHub:
    """`repos` are branches with their files; `private` those that are. `fails` are codes by a part of the address, or
    `silent` (for some seconds), `gone` (the connection), `page` (for people).
    """

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    fails: dict[str, int | str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        """The code and the JSON of an answer."""
        self.asked.append(f"{method} {path}")
        if isinstance(code := self.fault(path), int):
            return code, {"error": f"no: {code}"}
        if path.startswith("/objects/"):
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**x, "actions": {"upload": {"href": f"{self.url}/objects/{match[1]}/{x['oid']}"}}}
                for x in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/?]+))?(?:\?.*)?", path)
        assert match is not None, path
        repo, what, revision = match[1], match[2], unquote(match[3] or "main")
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}
        branches = self.repos[repo]
        if what == "branch":
            if revision in branches:
                return 409, {"error": "it is there"}
            branches[revision] = dict(branches["main"])
            return 200, {}
        files = branches[revision]
        if what == "tree":
            return 200, [{"type": "file", "path": x, "size": len(y), "oid": "0" * 40} for x, y in files.items()]
        if what == "preupload":
            modes = [
                {"path": x["path"], "uploadMode": "lfs" if x["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for x in json.loads(body)["files"]
            ]  # fmt: skip
            return 200, {"files": modes}
        assert what == "commit", path
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{'1' * 40}", "commitOid": "1" * 40}

    def fault(self, path: str) -> int | str | None:
        """What is wrong with an address."""
        return next((fault for part, fault in self.fails.items() if part in path), None)

    def create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        owner = wanted.get("organization") or "me"
        if owner != "me":
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        repo = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.url}/{repo}", "id": repo}
        if repo in self.repos:
            return 409, answer
        self.repos[repo] = {"main": {".gitattributes": b""}}
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.private.add(repo)
        return 200, answer


@contextmanager
def stub_hub() -> Iterator[StubHub]:
    """A hub that listens at a free port of this machine."""
    hub = StubHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            fault = hub.fault(self.path)
            if fault == "gone":
                self.connection.shutdown(socket.SHUT_RDWR)
            if fault == "silent":
                time.sleep(3)
            if fault in ("gone", "silent"):
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == "page":
                self.send_response(200)
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"<html>")
                return
            code, content = hub.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if code >= 400 and isinstance(content, dict) and "error" in content:
                self.send_header("X-Error-Message", content["error"])
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
