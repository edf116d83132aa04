"""Sequence-classification models of others, with any outputs, by their own chat template.

Every response is scored as if it were alone: batches hold inputs of equal length only, so that
nothing is padded. Published judges differ in their padding token, and where it is also the end
token, padding would move the position at which the score is read.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Self

import torch
from transformers import AutoModelForSequenceClassification

from dpa.attention import choose_attention
from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef, load_checkpoint_config, load_model
from dpa.precision import computing_dtype
from dpa.runtime.log import log
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import Conversation, messages, normalise
from dpa.text.tokenization import ChatTokenizer

#: Tokens in one forward pass.
TOKENS_PER_BATCH = 16384


OUTPUT_DECIMALS = 4


class ChatScorer:
    """A model that scores conversations, rendered by its own template."""

    def __init__(self, model: Any, chat: ChatTokenizer, name: str, key: str) -> None:
        self.model, self.chat, self.name = model.eval(), chat, name
        #: The key of the configuration that names it, for errors.
        self.key = key
        self.tokenizer = tokenizer = chat.tokenizer
        positions = getattr(model.config, "max_position_embeddings", None)
        self.max_length = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
        self.truncated = 0
        #: Called after each forward pass.
        self.on_batch: Callable[[], None] = lambda: None

    @classmethod
    def load(cls, model: AnyModel, models: ModelsConfig | None = None, key: str = "") -> Self:
        """Load a checkpoint. Raises InputError when it cannot be.

        Of `models` it takes the date; its BOS is the tokenizer's own business.
        """
        ref = ModelRef.of(model)
        try:
            chat = ChatTokenizer.load(ref, models)
            config = load_checkpoint_config(ref)
            loaded = load_model(
                AutoModelForSequenceClassification,
                ref,
                dtype=computing_dtype(config),
                attn_implementation=choose_attention(config),
                device_map="cuda" if torch.cuda.is_available() else "cpu",
            )
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
        return cls(loaded, chat, ref.path, key)

    def token_ids(self, prompt: Conversation, response: str) -> list[int]:
        """The model's input, its end kept when it is too long."""
        turns = self.chat.controls.escape_messages(messages(prompt, None, response))
        try:
            text = self.chat.render(turns)
        except ConversationError as error:
            raise InputError(
                f"{self.key}: the chat template of {self.name} does not take "
                f"{normalise(prompt)!r:.80}: {error.detail}; choose another model"
            ) from None
        # The tokenizer adds the begin token itself.
        if self.tokenizer.bos_token and self.tokenizer("")["input_ids"][:1] == [
            self.tokenizer.bos_token_id
        ]:
            text = text.removeprefix(self.tokenizer.bos_token)
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) > self.max_length:
            if not self.truncated:
                log.warning("inputs of more than %d tokens lose their beginning", self.max_length)
            self.truncated += 1
            ids = ids[-self.max_length :]
        return ids

    @torch.inference_mode()
    def outputs(self, pairs: Sequence[tuple[Conversation, str]]) -> list[list[float]]:
        """The outputs for each (prompt, response), the same whatever is scored with it."""
        inputs = [self.token_ids(*pair) for pair in pairs]
        found: list[list[float]] = [[]] * len(inputs)
        by_length = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        for length, group in groupby(by_length, key=lambda i: len(inputs[i])):
            same = list(group)
            # Without a padding token transformers refuses batches, even of equal lengths.
            padless = self.model.config.pad_token_id is None
            step = 1 if padless else max(1, TOKENS_PER_BATCH // length)
            for start in range(0, len(same), step):
                batch = same[start : start + step]
                ids = torch.tensor([inputs[i] for i in batch], device=self.model.device)
                mask = torch.ones_like(ids)
                logits = self.model(input_ids=ids, attention_mask=mask).logits.float()
                for i, row in zip(batch, logits.tolist(), strict=True):
                    found[i] = [round(score, OUTPUT_DECIMALS) for score in row]
                self.on_batch()
        return found
