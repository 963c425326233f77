"""The page of a run: the answers of `predict`, for this machine alone."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from answering_runs import asked_of, predictor_of, trained
from browser import LISTENS, page_after_acts

from train.demo.__main__ import command
from train.demo.server import HOST, MOST_BYTES, Answering, Server

pytestmark = pytest.mark.usefixtures("libraries")


@pytest.fixture(scope="module")
def port(answering: Path) -> Iterator[int]:
    """Of a page that answers by a run with a hostile name, and is sure of nothing."""
    one = Answering("<b>run</b>", predictor_of(answering, "one", "words"), confidence=1.0)
    with Server(one, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def request(
    port: int, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection(HOST, port, timeout=30)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


def ask(port: int, picture: bytes, question: str, **headers: str) -> tuple[int, dict[str, Any]]:
    path = f"/answer?question={quote(question)}"
    status, _, text = request(port, "POST", path, picture, **headers)
    return status, json.loads(text)


def test_the_page_needs_nothing_from_elsewhere(port: int) -> None:
    status, headers, text = request(port, "GET", "/")
    assert status == 200
    assert "&lt;b&gt;run&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http" not in text
    assert request(port, "GET", "/etc/passwd")[0] == 404


def test_it_answers_as_predict_does(port: int, answering: Path) -> None:
    predictor = predictor_of(answering, "one", "words")
    for one in asked_of(answering, "one")[::8]:
        status, told = ask(port, Path(one.images[0]).read_bytes(), one.question)
        assert status == 200
        [found] = predictor.predict([one])
        assert [tuple(pair) for pair in told["answers"]] == list(found.answers)
        assert told["sure"] is False


# a picture is chosen and a question asked; what is answered stands in the page then
ACTS = """<script>
const content = Uint8Array.from(atob(PICTURE), (letter) => letter.charCodeAt(0));
take(new File([content], "a.png", { type: "image/png" }));
form.elements.question.value = QUESTION;
form.requestSubmit();
new MutationObserver(() => {
  const told = [...list.children].map((line) => [...line.childNodes].map((one) => one.textContent));
  document.title = JSON.stringify({ told, status: status.textContent, problems });
}).observe(list, { childList: true, subtree: true });
</script>"""


def test_a_browser_shows_the_answers(answering: Path, tmp_path: Path) -> None:
    predictor, [one, *_] = predictor_of(answering, "one", "words"), asked_of(answering, "one")
    picture = base64.b64encode(Path(one.images[0]).read_bytes()).decode()
    acts = ACTS.replace("PICTURE", json.dumps(picture))
    acts = acts.replace("QUESTION", json.dumps(one.question))

    class Acting(Answering):
        def page(self) -> str:
            page = super().page().replace("<body>", f"<body>{LISTENS}")
            return page.replace("</body>", f"{acts}</body>")

    with Server(Acting("a run", predictor, confidence=1.0), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{HOST}:{server.server_port}/"
        shown = page_after_acts(address, tmp_path, "--virtual-time-budget=20000")
        server.shutdown()
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    said = json.loads(unescape(title))
    [found] = predictor.predict([one])
    assert said["told"] == [[answer, f"{share:.3f}"] for answer, share in found.answers]
    assert said["status"] == "It does not know; the nearest answers are:"
    assert said["problems"] == []


@pytest.mark.parametrize(
    ("picture", "question", "error"),
    [
        (b"no picture", "what?",
         "image that was dropped: not an image that Pillow can read"),
        (b"", "what?", f"expected a picture of at most {MOST_BYTES >> 20} MiB"),
        (b"x", " ", "expected a question of at most 1000 characters"),
        (b"x", "x" * 1001, "expected a question of at most 1000 characters"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_on_the_page(
    port: int, picture: bytes, question: str, error: str
) -> None:
    assert ask(port, picture, question) == (400, {"error": error})


@pytest.mark.parametrize(
    "headers", [{"Host": "elsewhere.example"}, {"Origin": "http://elsewhere.example"}]
)
def test_another_page_gets_no_answer(port: int, answering: Path, headers: dict[str, str]) -> None:
    picture = (answering / "images" / "0.png").read_bytes()
    assert ask(port, picture, "what?", **headers)[0] == 403
    assert request(port, "GET", "/", **headers)[0] == 403


def test_it_listens_to_this_machine_alone(port: int) -> None:
    assert HOST == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)} - {HOST}
    for address in others:
        with socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET) as one:
            one.settimeout(1)
            assert one.connect_ex((str(address), port)) != 0


def test_the_command_says_where_it_is_and_ends_by_a_signal(answering: Path) -> None:
    """As docs/predict.md types it, `--port 0`, in a process of its own."""
    run = trained(answering, "one", "words")
    line = [sys.executable, "-m", "train.demo", run, "--port", "0", "--cache", answering / "cache"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = demo.stdout.readline()
        [port] = re.findall(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)", said)
        assert request(int(port), "GET", "/")[0] == 200
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0


def test_a_port_that_is_taken_is_one_line(
    port: int, answering: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = trained(answering, "one", "words")
    monkeypatch.setattr(
        "sys.argv", ["demo", str(run), "--port", str(port), "--cache", str(answering / "cache")]
    )
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        f"error: --port {port}: Address already in use; name another one, or 0\n"
    )
