"""Answers of a judge that is asked over HTTP, each kept the moment it arrives.

The store lies between AlpacaEval's client and the network: a comparison that was answered once, in
whatever run, is never asked (or paid for) again, and a killed run loses at most the answers that
were under way. Keys are read from the environment here and are written nowhere.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai

from dpa.artefacts.files import write_text

#: What the judge may say: the first output is better, the second is.
VERDICTS = ("m", "M")
#: Seconds that a judge may take for one comparison.
ANSWER_TIMEOUT = 600.0

Messages = list[dict[str, str]]


class JudgeCache:
    """One JSON file per answer, named by a hash of the judge's model and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, model: str, messages: Messages) -> Path:
        digest = hashlib.sha256(json.dumps([model, messages]).encode()).hexdigest()
        return self.folder / re.sub(r"[^A-Za-z0-9._-]+", "_", model) / digest[:2] / f"{digest}.json"

    def has(self, model: str, messages: Messages) -> bool:
        return self.path(model, messages).exists()

    def get(self, model: str, messages: Messages) -> dict | None:
        """The response that was kept, or None."""
        path = self.path(model, messages)
        return json.loads(path.read_text(encoding="utf-8"))["response"] if path.exists() else None

    def put(self, model: str, messages: Messages, response: dict) -> None:
        content = {"model": model, "messages": messages, "response": response}
        write_text(self.path(model, messages), json.dumps(content, ensure_ascii=False) + "\n")


def is_verdict(response: Any) -> bool:
    """Whether a response says with what probability either output is better."""
    try:
        tokens = response["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return any(token["token"] in VERDICTS for token in tokens)
    except (KeyError, IndexError, TypeError):
        return False


class CachingTransport(httpx.BaseTransport):
    """Serves chat completions from the store, and asks for those that it lacks.

    Answers without a verdict are passed on and not kept: the next run asks again.
    """

    def __init__(self, store: JudgeCache, inner: httpx.BaseTransport) -> None:
        self.store, self.inner = store, inner
        self.asked = 0
        #: Called after each new answer.
        self.on_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.read())
        model, messages = body["model"], body["messages"]
        if (kept := self.store.get(model, messages)) is not None:
            return httpx.Response(200, json=kept, request=request)
        response = self.inner.handle_request(request)
        response.request = request
        content = response.read()
        if response.status_code == 200:
            with self._lock:
                self.asked += 1
                self.on_answer()
            try:
                answer = json.loads(content)
            except json.JSONDecodeError:
                answer = None
            if is_verdict(answer):
                self.store.put(model, messages, answer)
        # Decoded by now: the headers would have it decoded again.
        kind = response.headers.get("content-type", "application/json")
        headers = {"content-type": kind}
        if "retry-after" in response.headers:
            headers["retry-after"] = response.headers["retry-after"]
        return httpx.Response(
            response.status_code, headers=headers, content=content, request=request
        )

    def close(self) -> None:
        self.inner.close()


#: The transport of each store: AlpacaEval makes a client for every comparison.
_TRANSPORTS: dict[str, CachingTransport] = {}


def transport(store: Path) -> CachingTransport:
    """The process's transport of a store."""
    return _TRANSPORTS.setdefault(
        str(store), CachingTransport(JudgeCache(store), httpx.HTTPTransport(retries=2))
    )


def close_transport(store: Path) -> None:
    """Close the store's connections."""
    if (found := _TRANSPORTS.pop(str(store), None)) is not None:
        found.close()


class CachingClient(openai.OpenAI):
    """The client that AlpacaEval uses (`client_class` in its client configuration).

    `key_variable` names the environment variable with the key; without it none is sent.
    """

    def __init__(self, store: str, key_variable: str | None, base_url: str | None = None) -> None:
        super().__init__(
            api_key=(os.environ.get(key_variable) if key_variable else None) or "none",
            base_url=base_url,
            max_retries=5,
            http_client=httpx.Client(transport=transport(Path(store)), timeout=ANSWER_TIMEOUT),
        )
