"""Text generation with one interface: `transformers` (CPU, small models) and `vllm`.

An engine takes chunks of requests and yields their completions, chunk by chunk. Every sample is
drawn from its own seed. With the transformers engine a chunk's bytes depend on nothing but the
chunk and the model (on the same machine and number of threads), so they are the same however the
chunks are spread over processes; with vLLM that holds as far as its kernels do not depend on the
batch (measured on CPU in float32).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from dpa.errors import InputError
from dpa.models import ModelRef
from dpa.text.tokenization import ChatTokenizer


class Request(NamedTuple):
    """Samples of one prompt: sample i is drawn with `seeds[i]`, which is `seeds[0] + i`."""

    prompt_ids: list[int]
    seeds: list[int]


class Answered(NamedTuple):
    """Tokens of a prompt, and of a response to it."""

    prompt: list[int]
    response: list[int]


class Completion(NamedTuple):
    """One response: `tokens` counts what was generated, with the end token, which `text` lacks."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int


Chunk = list[Request]


ChunkResult = list[list[Completion]]


class Engine(Protocol):
    """A loaded policy."""

    chat: ChatTokenizer

    def generate(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """Yield each chunk's completions, in order: per request, one per seed."""
        ...

    def close(self) -> None:
        """Free the model and what runs it."""
        ...


class StreamingEngine(Engine, Protocol):
    """An engine that shows a response while it grows: the transformers engine."""

    def stream(self, request: Request) -> Iterator[Completion]:
        """Yield a sample's response as far as it goes, token by token, and whole in the end."""
        ...


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is made from; see `load_engine`."""

    policy: ModelRef
    chat: ChatTokenizer
    end_tokens: list[int]
    temperature: float
    max_new_tokens: int
    max_model_len: int
    rows_per_batch: int
    dtype: str | None
    kv_cache_dtype: str
    on_tokens: Callable[[int], None]


def ignore_tokens(count: int) -> None:
    """Where no progress is shown."""


def decode_completion(
    settings: EngineSettings, token_ids: Sequence[int], finish_reason: Literal["stop", "length"]
) -> Completion:
    """The completion that generated tokens stand for; with "stop" the last is an end token."""
    if not token_ids:
        raise InputError(
            f"{settings.policy.path}: the engine returned no tokens, not even an end token; rerun, "
            "and choose another sampling.engine if it happens again"
        )
    end = len(token_ids) - (finish_reason == "stop")
    return Completion(settings.chat.decode(list(token_ids[:end])), finish_reason, len(token_ids))
