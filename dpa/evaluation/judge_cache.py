"""Answers of a judge that is asked over HTTP, each kept the moment it arrives.

The store lies between AlpacaEval's client and the network: a comparison that was answered once, in
whatever run, is never asked (or paid for) again, and a killed run loses at most the answers that
were under way. Keys are read from the environment here and are written nowhere.
"""

import hashlib
import json
import math
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai

from dpa.artefacts.outputs import replace_text
from dpa.errors import InputError
from dpa.runtime.log import log
from dpa.runtime.reading import decode_json, read_json_object

#: What the judge may say: the first output is better, the second is.
VERDICTS = ("m", "M")
#: Statuses of a server that does not take this very comparison: bad, too large, unprocessable.
REFUSALS = (400, 413, 422)
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
        return self.get(model, messages) is not None

    def get(self, model: str, messages: Messages) -> dict | None:
        """The response that was kept; None where there is none that is a verdict: it is asked for
        again, and kept in the place of what is there."""
        path = self.path(model, messages)
        if not path.exists():
            return None
        try:
            response = read_json_object(path).get("response")
        except InputError as error:
            log.warning("%s; asked for again", error)
            return None
        if not is_verdict(response):
            log.warning("%s: no verdict; asked for again", path)
            return None
        return response

    def put(self, model: str, messages: Messages, response: dict) -> None:
        content = {"model": model, "messages": messages, "response": response}
        replace_text(self.path(model, messages), json.dumps(content, ensure_ascii=False) + "\n")


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

    def __init__(self, store: JudgeCache, inner: httpx.BaseTransport) -> None:
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
