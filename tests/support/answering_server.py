"""A small HTTP server on loopback that answers as a policy of vLLM's server does, in a stream."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class AnsweringServer(ThreadingHTTPServer):
    """Serves `models` and says `text`, a word at a time; reads the direction if `steered`."""

    daemon_threads = True

    def __init__(self, text: str, *, steered: bool = True, models: tuple[str, ...] = ("it",)):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.text, self.steered, self.models = text, steered, models
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: AnsweringServer

    def do_GET(self) -> None:
        listed = [{"id": n, "object": "model", "created": 0, "owned_by": "x"}
                  for n in self.server.models]  # fmt: skip
        self.reply(json.dumps({"object": "list", "data": listed}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers.get("authorization", ""))
        self.server.asked.append(body)
        steers = self.server.steered and "chat_template_kwargs" in body
        words = self.server.text.split(" ")
        usage = {"prompt_tokens": 20 + 10 * steers, "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        common = {"id": "x", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": words[0]}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            whole = {"object": "chat.completion", "choices": [choice], "usage": usage}
            return self.reply(json.dumps(common | whole))
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": " " * (i > 0) + word}}]}
            for i, word in enumerate(words)
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": usage})
        lines = [json.dumps(common | {"object": "chat.completion.chunk"} | c) for c in chunks]
        said = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        self.reply(said, "text/event-stream")

    def reply(self, content: str, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *arguments: Any) -> None:
        """Nothing on standard error."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """A server that answers until the end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
