"""A web server on the loopback that speaks what a test has it speak."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Question(NamedTuple):
    """One request; headers by lower-case name."""

    method: str
    path: str
    headers: dict[str, str]


class Reply(NamedTuple):
    """One answer."""

    status: int = 404
    body: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 -- never changed


Answerer = Callable[[Question], Reply]


class Metadata:
    """The server's address and what it was asked; ``answer`` may be changed at any time."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.questions: list[Question] = []
        self.answer: Answerer = lambda _: Reply()


@contextmanager
def metadata_server() -> Generator[Metadata]:
    """Serve on a free port until the block ends."""
    served = Metadata("")

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            question = Question(self.command, self.path, headers)
            served.questions.append(question)
            status, body, more = served.answer(question)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
