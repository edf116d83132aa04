"""AlpacaEval's client and the store of a judge's answers, which lies between it and the network.

AlpacaEval asks for itself: what it asks goes through the store, and only what is not there further.
"""

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx

from dpa.endpoint.answers import AnswerStore
from dpa.endpoint.client import REFUSALS, EndpointClient, open_transport
from dpa.errors import InputError
from dpa.runtime.reading import decode_json

#: What the judge may say: the first output is better, the second is.
VERDICTS = ("m", "M")


def is_verdict(response: Any) -> bool:
    """Whether a response is a chat completion that says with what probability either is better."""
    try:
        [choice] = response["choices"]
        tokens = choice["logprobs"]["content"][0]["top_logprobs"]
        found = [float(token["logprob"]) for token in tokens if token["token"] in VERDICTS]
        complete = choice["message"]["role"] == "assistant" and response["usage"]["total_tokens"]
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return bool(complete) and any(map(math.isfinite, found)) and not any(map(math.isnan, found))


def judge_answers(folder: Path) -> AnswerStore:
    """The answers of judges in a folder, those that are verdicts."""
    return AnswerStore(folder, is_verdict)


def no_verdict(model: str) -> dict[str, Any]:
    """A chat completion that says nothing."""
    token: dict[str, Any] = {"token": "", "logprob": 0.0, "bytes": None}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": ""},
        "logprobs": {"content": [token | {"top_logprobs": [token]}]},
    }
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    common = {"id": "none", "object": "chat.completion", "created": 0, "model": model}
    return {**common, "choices": [choice], "usage": usage}


class CachingTransport(httpx.BaseTransport):
    """Serves chat completions from the store, and asks for those that it lacks.

    Answers without a verdict are not kept: the next run asks again. What a server refuses because
    of the comparison itself (too long, filtered) is one of them, and no end of the judging.
    """

    def __init__(self, store: AnswerStore, inner: httpx.BaseTransport) -> None:
        self.store, self.inner = store, inner
        self.asked = 0
        #: What the server last said about a comparison that it refused.
        self.refused = ""
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
        if response.status_code in REFUSALS:
            self.refused = content.decode(errors="replace")[:200]
            return httpx.Response(200, json=no_verdict(model), request=request)
        if response.status_code == 200:
            with self._lock:
                self.asked += 1
                self.on_answer()
            try:
                answer = decode_json(content, "the judge")
            except InputError as error:
                answer, self.refused = None, str(error)[:200]
            if not is_verdict(answer):
                return httpx.Response(200, json=no_verdict(model), request=request)
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
        str(store), CachingTransport(judge_answers(store), open_transport())
    )


def close_transport(store: Path) -> None:
    """Close the store's connections."""
    if (found := _TRANSPORTS.pop(str(store), None)) is not None:
        found.close()


class CachingClient(EndpointClient):
    """The client that AlpacaEval uses (`client_class` in its client configuration)."""

    def __init__(self, store: str, key_variable: str | None, base_url: str | None = None) -> None:
        super().__init__(base_url, key_variable, transport(Path(store)))
