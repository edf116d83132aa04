"""A policy that a server answers for: vLLM's, or another that speaks OpenAI's chat completions."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from dpa.directions import Direction
from dpa.endpoint.client import EndpointClient, open_transport
from dpa.endpoint.keys import redacted
from dpa.errors import InputError
from dpa.generation.engine import Completion
from dpa.models import AnyModel, ModelRef
from dpa.serving.chat import Partner
from dpa.text.prompts import messages


class ServedPolicy(Partner):
    """A policy behind `base_url`, which takes `chat_template_kwargs`.

    Raises InputError when the server cannot be reached, serves something else, or does not read the
    direction: servers drop arguments that a chat template does not have.
    """

    def __init__(
        self,
        policy: AnyModel,
        judge_by: Path | None,
        base_url: str,
        key_variable: str | None,
        temperature: float,
        max_new_tokens: int,
    ) -> None:
        super().__init__(policy, judge_by)
        self.base_url, self.key_variable = base_url, key_variable
        self.client = EndpointClient(base_url, key_variable, open_transport())
        self.client.max_retries = 0  # somebody is waiting
        self.settings = {"temperature": temperature, "max_tokens": max_new_tokens}
        self.model = self._served_name(ModelRef.of(policy).path)
        self._check_steered()

    def stream(self, prompt: str, direction: Direction) -> Generator[Completion, None, None]:
        text, reason, tokens = "", "stop", 0
        with self._asking():
            chunks = self._ask(
                prompt, direction, stream=True, stream_options={"include_usage": True}
            )
            with chunks:
                for chunk in chunks:
                    for choice in chunk.choices:
                        text += choice.delta.content or ""
                        reason = choice.finish_reason or reason
                        yield Completion(text, _reason(reason), tokens)
                    if chunk.usage is not None:
                        tokens = chunk.usage.completion_tokens
        yield Completion(text, _reason(reason), tokens)

    def _ask(self, prompt: str, direction: Direction | None, **more: Any) -> Any:
        steered = {} if direction is None else {"chat_template_kwargs": {"direction": direction}}
        return self.client.chat.completions.create(
            model=self.model,
            messages=messages(prompt, None),
            extra_body=steered,
            **{**self.settings, **more},
        )

    def _served_name(self, path: str) -> str:
        with self._asking():
            names = [model.id for model in self.client.models.list()]
        if path in names:
            return path
        if len(names) != 1:
            raise InputError(
                f"--base-url {self.base_url}: serves {names}; give --policy as it is named there"
            )
        return names[0]

    def _check_steered(self) -> None:
        direction = [1.0] + [0.0] * (len(self.steering.names) - 1)
        with self._asking():
            plain, steered = (
                self._ask("Hello", v, max_tokens=1).usage.prompt_tokens for v in (None, direction)
            )
        if plain == steered:
            raise InputError(
                f"--base-url {self.base_url}: {self.model} takes no direction: its prompt is the "
                "same with and without; serve the policy's folder, with its own chat template"
            )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.OpenAIError as error:
            said = redacted(" ".join(str(error).split()), self.key_variable)
            raise InputError(f"--base-url {self.base_url}: {said}") from None


def _reason(said: str) -> Literal["stop", "length"]:
    return "length" if said == "length" else "stop"
