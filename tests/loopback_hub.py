"""A small model hub on loopback: it serves folders as a hub does, and refuses as one does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class LoopbackHub:
    """Serves repositories under `endpoint` until it is closed.

    Attributes:
        requests: method and path of every request, in order.
        gated: names of repositories whose files nobody may read.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        """
        Args:
            repositories: name -> folder; the only revisions are "main" and its commit.
        """
        self.requests: list[str] = []
        self.gated: frozenset[str] = frozenset()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                if self.path == "/":
                    return self.reply(200, {})
                name, _, rest = self.path.removeprefix("/").partition("/resolve/")
                revision, _, file = rest.partition("/")
                if name in hub.gated:
                    return self.reply(403, {"X-Error-Code": "GatedRepo"})
                if name not in repositories:
                    return self.reply(404, {"X-Error-Code": "RepoNotFound"})
                if revision not in ("main", COMMIT):
                    return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
                path = repositories[name] / file
                if not path.is_file():
                    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                    return self.reply(404, headers)
                content = path.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                return self.reply(200, {"X-Repo-Commit": COMMIT, "ETag": etag}, content)

            def reply(self, status: int, headers: Mapping[str, str], content: bytes = b"") -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def files(self) -> list[str]:
        """The requests for files."""
        return [request for request in self.requests if "/resolve/" in request]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
