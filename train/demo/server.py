"""A server of one page and of answers, for this machine alone.

It listens on 127.0.0.1, and answers only requests that were sent to that name: a page from
elsewhere that a browser has open can neither read answers nor ask for any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jinja2

from train.predict.asked import Asked
from train.predict.predictor import Predictor
from vqa_cache.errors import UserError

HOST = "127.0.0.1"
MOST_BYTES = 64 << 20  # of a picture
LONGEST = 1000  # characters of a question
_POLICY = (
    "default-src 'none'; img-src blob:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass
class Answering:
    """What answers: one question after the other.

    Attributes:
        confidence: below it the answer is that it does not know.
    """

    name: str
    predictor: Predictor
    confidence: float = 0.0
    _one_at_a_time: Lock = field(default_factory=Lock)

    def page(self) -> str:
        """The page's text."""
        loader = jinja2.FileSystemLoader(Path(__file__).parent)
        made = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        return made.get_template("page.html").render(name=self.name, longest=LONGEST)

    def answer(self, picture: bytes, question: str) -> dict[str, Any]:
        """Answers about a picture, as the page reads them. Raises UserError."""
        with NamedTemporaryFile(prefix="picture-") as file, self._one_at_a_time:
            file.write(picture)
            file.flush()
            try:
                [found] = self.predictor.predict([Asked((file.name,), question)])
            except UserError as error:
                raise UserError(str(error).replace(file.name, "that was dropped")) from error
        return {"answers": found.answers, "sure": found.confidence >= self.confidence}


class Server(ThreadingHTTPServer):
    """The page and its answers; `serve_forever` runs it.

    Attributes:
        names: what a request may call this server, host and port.
    """

    def __init__(self, answering: Answering, port: int) -> None:
        """
        Args:
            port: 0 is any that is free.

        Raises OSError where the port is taken.
        """
        super().__init__((HOST, port), Handler)
        self.answering = answering
        self.page = answering.page().encode()
        self.names = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "vqa-cache"
    sys_version = ""

    def do_GET(self) -> None:
        """The page."""
        if not self._is_ours():
            return
        if urlsplit(self.path).path != "/":
            self._told(HTTPStatus.NOT_FOUND, {"error": "there is one page here: /"})
            return
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        """An answer: the body is a picture, the address holds the question."""
        if not self._is_ours():
            return
        address = urlsplit(self.path)
        question = parse_qs(address.query).get("question", [""])[0].strip()
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else 0
        if address.path != "/answer" or not question or len(question) > LONGEST:
            self._refused(f"expected a question of at most {LONGEST} characters")
        elif not 0 < size <= MOST_BYTES:
            self._refused(f"expected a picture of at most {MOST_BYTES >> 20} MiB")
        else:
            try:
                told = self.server.answering.answer(self.rfile.read(size), question)
            except UserError as error:
                self._refused(str(error))
            else:
                self._told(HTTPStatus.OK, told)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def _is_ours(self) -> bool:
        """Whether the request was sent to this page, from it where it has an origin."""
        origin = self.headers.get("Origin")
        ours = self.headers.get("Host") in self.server.names and (
            origin is None or origin.removeprefix("http://") in self.server.names
        )
        if not ours:
            self._told(HTTPStatus.FORBIDDEN, {"error": "this page answers itself alone"})
        return ours

    def _refused(self, what: str) -> None:
        self._told(HTTPStatus.BAD_REQUEST, {"error": what})

    def _told(self, status: HTTPStatus, what: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(what).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY), ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"), ("Connection", "close"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
