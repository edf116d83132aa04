"""The client of a server that speaks OpenAI's chat completions."""

import httpx2 as httpx
import openai

from dpa.endpoint.keys import read_key

#: Statuses of a server that does not take this very question: bad, too large, unprocessable.
REFUSALS = (400, 413, 422)
#: Seconds that an answer may take.
ANSWER_TIMEOUT = 600.0
#: How often a question is asked again when the server is busy, fails, or does not answer.
RETRIES = 5


class EndpointClient(openai.OpenAI):
    """`key_variable` names the environment variable with the key; without it none is sent.

    Requests go through `transport`.
    """

    def __init__(
        self, base_url: str | None, key_variable: str | None, transport: httpx.BaseTransport
    ) -> None:
        super().__init__(
            api_key=read_key(key_variable) or "none",
            base_url=base_url,
            max_retries=RETRIES,
            http_client=httpx.Client(transport=transport, timeout=ANSWER_TIMEOUT),
        )


def open_transport() -> httpx.HTTPTransport:
    """Connections to a server."""
    return httpx.HTTPTransport(retries=2)
