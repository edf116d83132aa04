"""The dial: a page on loopback on which a policy is steered, and a direction is found by clicking.

The standard library's server is enough for one user: static files, JSON, and an answer as one JSON
line per piece. The page's files are for everybody; all else needs the token, which is in the
address behind `#` and thus in no request: a browser lets no page of another site send it.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Generator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from dpa.artefacts.jsonl import check_finite
from dpa.directions import evaluation_directions, objectives_of, single_objectives, unit_direction
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef
from dpa.runtime.log import visible
from dpa.serving.chat import Partner, pieces, read_directed
from dpa.serving.fit_direction import DirectionPosterior

PAGE = Path(__file__).parent / "page"
#: Files of the page: address -> file, and what it is.
FILES = {
    "/": ("dial.html", "text/html; charset=utf-8"),
    "/dial.css": ("dial.css", "text/css; charset=utf-8"),
    "/dial.js": ("dial.js", "text/javascript; charset=utf-8"),
}
#: Nothing but those files runs or is loaded, and no other site may show the page in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Most bytes of a request.
MAX_BODY = 1 << 20
#: Directions that show the trained range of more than two objectives.
RANGE_POINTS = 400
#: Answers to a prompt that are made for pairs, each under another direction.
CANDIDATES = 4

Rewards = list[float]
#: An answer to the page, line by line.
Lines = Generator[dict, None, None]


class AskedFor(msgspec.Struct, forbid_unknown_fields=True):
    """An answer, please."""

    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    direction: list[float]


class AskedForPairs(msgspec.Struct, forbid_unknown_fields=True):
    """Answers to choose between, please."""

    prompt: Annotated[str, msgspec.Meta(min_length=1)]


class Clicked(msgspec.Struct, forbid_unknown_fields=True):
    """Where somebody is, please, and what to ask them next."""

    clicks: Annotated[list[Rewards], msgspec.Meta(max_length=1000)]
    """Rewards of the preferred answer less those of the other."""
    pairs: Annotated[list[Rewards], msgspec.Meta(max_length=1000)]
    """The same of pairs that can be asked about, one answer less the other."""


def read_range(policy: AnyModel) -> dict:
    """The distribution of the directions that a policy was trained on.

    Raises InputError when the policy takes no direction, or does not say which.
    """
    steering = read_directed(policy)
    if steering.directions is None:
        raise InputError(
            f"{ModelRef.of(policy).path}: steering.json has no `directions`, the range of the "
            "dial; add those of the experiment's configuration"
        )
    return steering.directions.model_dump()


class DialServer(ThreadingHTTPServer):
    """The dial of one policy, on 127.0.0.1; port 0 is a free one."""

    daemon_threads = True

    def __init__(self, partner: Partner, distribution: dict, port: int) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror}; choose another") from None
        self.partner, self.distribution = partner, distribution
        self.token = secrets.token_urlsafe()
        self.answers: dict[str, tuple[type, Callable[[Any], Lines]]] = {
            "/policy": (dict, self.describe),
            "/answer": (AskedFor, self.answer),
            "/candidates": (AskedForPairs, self.candidates),
            "/fit": (Clicked, self.fit),
        }

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/#{self.token}"

    def describe(self, asked: dict) -> Lines:
        """What the page has to know of the policy."""
        points = 2 if objectives_of(self.distribution) == 2 else RANGE_POINTS
        yield {
            "objectives": self.partner.steering.names,
            "range": evaluation_directions(self.distribution, points),
            "corners": single_objectives(self.distribution),
            "judged": self.partner.judge is not None,
        }

    def answer(self, asked: AskedFor) -> Lines:
        """An answer piece by piece, then its length and rewards."""
        direction = unit_direction(asked.direction, len(self.partner.steering.names))
        with closing(self.partner.stream(asked.prompt, direction)) as completions:
            for piece, completion in pieces(completions):  # noqa: B007
                yield {"text": piece}
        yield {
            "tokens": completion.tokens,
            "words": len(completion.text.split()),
            "truncated": completion.finish_reason == "length",
            "rewards": self.partner.rewards(asked.prompt, completion.text),
        }

    def candidates(self, asked: AskedForPairs) -> Lines:
        """Different answers to a prompt, over the range of directions, with their rewards."""
        if self.partner.judge is None:
            raise InputError("no reward model found; start scripts.dial with --judge-by")
        for direction in evaluation_directions(self.distribution, CANDIDATES):
            with closing(self.partner.stream(asked.prompt, direction)) as completions:
                for completion in completions:  # noqa: B007 (the last is wanted)
                    pass
            rewards = self.partner.rewards(asked.prompt, completion.text)
            yield {"text": visible(completion.text), "rewards": rewards}

    def fit(self, asked: Clicked) -> Lines:
        """Where somebody is after their clicks, and which pair tells most."""
        count = len(self.partner.steering.names)
        for difference in (*asked.clicks, *asked.pairs):
            check_finite(difference, {})
            if len(difference) != count:
                raise InputError(f"{difference}: expected {count} differences of rewards")
        posterior = DirectionPosterior(self.distribution)
        for difference in asked.clicks:
            posterior.add_click(difference)
        fit = posterior.fit()
        following = None
        if asked.pairs:
            following = int(posterior.information(np.array(asked.pairs)).argmax())
        yield {
            "said": str(fit), "direction": fit.direction, "degrees": fit.degrees, "next": following,
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: DialServer
    timeout = 60  # seconds that a browser may take to send or read something

    def do_GET(self) -> None:
        if self.path not in FILES:
            return self._refuse(404, "no such page")
        name, kind = FILES[self.path]
        content = (PAGE / name).read_bytes()
        self._begin(200, kind, len(content))
        self.wfile.write(content)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # First of all: what is left unread resets the connection, and a refusal is never seen.
        body = self.rfile.read(min(int(length), 2 * MAX_BODY)) if length.isdecimal() else b""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
            return self._refuse(403, "open the address that scripts.dial has printed")
        if self.path not in self.server.answers:
            return self._refuse(404, "no such question")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return self._refuse(413, f"more than {MAX_BODY >> 20} MiB")
        kind, answer = self.server.answers[self.path]
        try:
            asked: Any = msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return self._refuse(400, str(error))
        try:
            self._begin(200, "application/x-ndjson")
            with closing(answer(asked)) as lines:
                self._send_lines(lines)
        except (ConnectionError, TimeoutError):
            pass  # no reader is left: the page was closed, or asks for something else

    def _send_lines(self, lines: Lines) -> None:
        try:
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")
        except ValueError as error:  # InputError, and rewards that are not finite
            self.wfile.write(json.dumps({"error": visible(str(error))}).encode() + b"\n")

    def _refuse(self, status: int, reason: str) -> None:
        content = json.dumps({"error": reason}).encode()
        self._begin(status, "application/json", len(content))
        self.wfile.write(content)

    def _begin(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the terminal has the address, and the page the errors."""
