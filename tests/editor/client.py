"""A client of the language server: a session of JSON-RPC over stdio, as an editor holds it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds that a test waits for an answer: for a hang, not for a slow machine."""


class Refused(Exception):
    """The server answered a request with an error."""


class Client:
    """One server, and what it has said. Positions are (line, column), from 0."""

    def __init__(self, folder: Path, **environment: str):
        self.folder = folder
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brewgraph", "lsp"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.diagnostics: dict[str, list[dict[str, Any]]] = {}
        self.published: list[tuple[str, float]] = []
        """Each publication: its document, and when it arrived."""
        self.shown: list[str] = []
        self.count = 0
        self.versions: dict[str, int] = {}
        threading.Thread(target=self._read, daemon=True).start()

    # ── the wire ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while header := stream.readline():
            length = int(header.split(b":")[1])
            while stream.readline().strip():
                pass
            self.messages.put(json.loads(stream.read(length)))
        self.messages.put(None)

    def send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        self.send({"method": method, "params": params})

    def request(self, method: str, params: Mapping[str, Any] | None) -> Any:
        """The result. Raises `Refused` for an error."""
        self.count += 1
        self.send({"id": self.count, "method": method, "params": params})
        answer = self.wait(lambda m: m.get("id") == self.count and "method" not in m)
        if "error" in answer:
            raise Refused(answer["error"]["message"])
        return answer["result"]

    def wait(self, wanted: Any, patience: float = PATIENCE) -> dict[str, Any]:
        """The next message that is wanted; what comes before is noted or answered."""
        end = time.monotonic() + patience
        while True:
            message = self.messages.get(timeout=max(0.01, end - time.monotonic()))
            if message is None:
                raise EOFError(f"the server ended with code {self.process.wait()}")
            method = message.get("method")
            if method == "textDocument/publishDiagnostics":
                params = message["params"]
                self.diagnostics[params["uri"]] = params["diagnostics"]
                self.published.append((params["uri"], time.monotonic()))
            elif method == "window/showMessage":
                self.shown.append(message["params"]["message"])
            elif method is not None and "id" in message:  # a request of the server: nothing to say
                self.send({"id": message["id"], "result": None})
            if wanted(message):
                return message

    # ── a session ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> dict[str, Any]:
        """Begin the session; gives what the server can do."""
        root = self.folder.resolve().as_uri()
        hints = {"workspace": {"inlayHint": {"refreshSupport": True}}}
        values = {"processId": os.getpid(), "rootUri": root, "capabilities": hints}
        answer: dict[str, Any] = self.request("initialize", values)
        self.notify("initialized", {})
        return answer["capabilities"]

    def stop(self) -> int:
        """End the session; gives the server's exit code."""
        if self.process.poll() is None:
            try:
                self.request("shutdown", None)
                self.notify("exit", {})
                self.process.wait(20)
            except (EOFError, OSError, queue.Empty, subprocess.TimeoutExpired):
                self.process.kill()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()
        return code

    def uri(self, name: str) -> str:
        return name if ":" in name else (self.folder / name).resolve().as_uri()

    def open(self, name: str, text: str) -> list[dict[str, Any]]:
        """Open a document; gives its first diagnostics."""
        uri = self.uri(name)
        self.versions[uri] = 1
        document = {"uri": uri, "languageId": "brew", "version": 1, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": document})
        return self.next_diagnostics(name)

    def change(self, name: str, text: str) -> None:
        """Replace a document's text."""
        uri = self.uri(name)
        self.versions[uri] += 1
        document = {"uri": uri, "version": self.versions[uri]}
        self.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})

    def next_diagnostics(self, name: str) -> list[dict[str, Any]]:
        """The next diagnostics of the newest version of a document."""
        uri = self.uri(name)

        def wanted(message: Mapping[str, Any]) -> bool:
            params = message.get("params") or {}
            is_it = message.get("method") == "textDocument/publishDiagnostics" and params["uri"] == uri
            return is_it and params.get("version") == self.versions[uri]

        return self.wait(wanted)["params"]["diagnostics"]

    def ask(self, method: str, name: str, place: tuple[int, int] | None = None, **more: Any) -> Any:
        """A request about a document, or a place in it."""
        params: dict[str, Any] = {"textDocument": {"uri": self.uri(name)}, **more}
        if place is not None:
            params["position"] = {"line": place[0], "character": place[1]}
        return self.request(f"textDocument/{method}", params)

    def labels(self, name: str, place: tuple[int, int]) -> list[str]:
        """The completions at a place."""
        return [item["label"] for item in self.ask("completion", name, place)["items"]]


def codes(diagnostics: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """The code and the line of each diagnostic."""
    return [(d.get("code", ""), d["range"]["start"]["line"]) for d in diagnostics]
