"""Small HTTP servers on loopback that speak OpenAI's chat completions."""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

#: (first output, second output) -> probability of the first, or None for an answer without verdict.
Verdict = Callable[[str, str], float | None]
#: What the user message holds -> the text of the answer.
Says = Callable[[dict[str, Any]], str]

Server = TypeVar("Server", bound="ChatServer")


class ChatServer(ThreadingHTTPServer):
    """Answers comparisons by `verdict`, and remembers what it was asked and by whom."""

    daemon_threads = True

    def __init__(self, verdict: Verdict, answers: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.verdict = verdict
        #: Comparisons that it answers before it refuses all others; None for no limit.
        self.answers = answers
        #: A text whose comparisons are refused, and the status of that.
        self.refuse: tuple[str, int] | None = None
        #: The body of every answer, in the place of a chat completion.
        self.says: bytes | None = None
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        #: Questions that still get 429, and those that still get no answer for so many seconds.
        self.busy, self.silent, self.silence = 0, 0, 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a comparison."""
        first, second = re.findall(r'"output": """(.*?)"""', body["messages"][-1]["content"], re.S)
        share = self.verdict(first, second)
        tokens = {"Both": 0.5} if share is None else {"m": share, "M": 1 - share}
        top = [
            {"token": token, "logprob": math.log(p) if p else -100.0, "bytes": None}
            for token, p in sorted(tokens.items(), key=lambda item: -item[1])
        ]
        choice = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": top[0]["token"]},
            "logprobs": {"content": [{**top[0], "top_logprobs": top[: body["top_logprobs"]]}]},
        }
        usage = {"prompt_tokens": 400, "completion_tokens": 1, "total_tokens": 401}
        return completion(body, choice, usage)


class RatingServer(ChatServer):
    """Answers questions about responses by `says`; its tokens are counted in words."""

    def __init__(self, says: Says) -> None:
        super().__init__(lambda first, second: None)
        self.rate = says

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        text = self.rate(json.loads(content))
        choice = {"index": 0, "finish_reason": "stop",
                  "message": {"role": "assistant", "content": text}}  # fmt: skip
        asked, answered = len(content.split()), len(text.split())
        usage = {"prompt_tokens": asked, "completion_tokens": answered}
        return completion(body, choice, usage | {"total_tokens": asked + answered})


def completion(
    body: dict[str, Any], choice: dict[str, Any], usage: dict[str, int]
) -> dict[str, Any]:
    """A chat completion of one choice."""
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
    return {**answer, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        if server.refuse and server.refuse[0] in body["messages"][-1]["content"]:
            return self.reply(server.refuse[1], {"error": {"message": server.refuse[0]}})
        if server.says is not None:
            return self.send(200, server.says)
        with server.lock:
            busy, silent = server.busy > 0, server.silent > 0
            server.busy -= busy
            server.silent -= silent and not busy
        if busy:
            return self.reply(429, {"error": {"message": "too many"}}, {"retry-after-ms": "20"})
        if silent:
            time.sleep(server.silence)
            return None
        with server.lock:
            server.keys.add(self.headers.get("authorization", "").removeprefix("Bearer "))
            refused = server.answers is not None and len(server.asked) >= server.answers
            if not refused:
                server.asked.append(body)
        if self.path != "/v1/chat/completions" or refused:
            key = self.headers.get("authorization", "")
            return self.reply(403, {"error": {"message": f"refused to {key}"}})
        self.reply(200, server.complete(body))

    def reply(
        self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        self.send(status, json.dumps(content).encode(), headers)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing on standard error."""


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """A server, stopped at the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chat_server(verdict: Verdict, answers: int | None = None) -> AbstractContextManager[ChatServer]:
    """A running server that compares."""
    return running(ChatServer(verdict, answers))


def rating_server(says: Says) -> AbstractContextManager[RatingServer]:
    """A running server that rates."""
    return running(RatingServer(says))
