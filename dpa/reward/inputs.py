"""A reward model's inputs as tokens: what is known of a job's work before weights are loaded. No
torch here."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dpa.artefacts.row_counts import check_truncated
from dpa.runtime.log import Progress
from dpa.text.control_tokens import reward_controls
from dpa.text.prompts import Conversation, reward_input
from dpa.text.tokenization import truncate_ids

#: A prompt and responses to it.
Group = tuple[Conversation, Sequence[str]]


class Survey(NamedTuple):
    """Different inputs that are to be scored, and how many of them are longer than the model holds.

    Known before anything is scored, and the same whatever a killed job had done already.
    """

    inputs: int
    truncated: int

    def check(self, what: object) -> None:
        """Raise InputError when more than the run's limit would be truncated."""
        check_truncated(self.truncated, self.inputs, str(what))


class RewardInputs:
    """The tokenizer of a reward model that holds `max_length` tokens."""

    def __init__(self, tokenizer: Any, config: Any) -> None:
        self.tokenizer = tokenizer
        self.controls = reward_controls(tokenizer)
        self.max_length: int = min(
            tokenizer.model_max_length,
            getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length,
        )
        self.normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        #: No text of fewer bytes can be too long: but for what the tokenizer adds (special tokens,
        #: a space in front) each token stands for a byte at least.
        self.safe_bytes = self.max_length - tokenizer.num_special_tokens_to_add() - 1

    def tokenise(self, pairs: Iterable[tuple[Conversation, str]]) -> list[tuple[list[int], bool]]:
        """Each (prompt, response) as token ids, and whether their beginning was truncated."""
        return self._ids([self._text(prompt, response) for prompt, response in pairs])

    def survey(self, groups: Iterable[Group], responses: int) -> Survey:
        """What will be scored of so many responses. Only long texts are tokenised for that."""
        progress = Progress(responses, "responses looked at")
        inputs = truncated = 0
        for prompt, answers in groups:
            texts = [self._text(prompt, answer) for answer in dict.fromkeys(answers)]
            inputs += len(texts)
            long = [text for text in texts if self._bytes(text) > self.safe_bytes]
            truncated += sum(was_truncated for _, was_truncated in self._ids(long))
            progress.advance(len(answers))
        return Survey(inputs, truncated)

    def _text(self, prompt: Conversation, response: str) -> str:
        return reward_input(self.controls.escape_prompt(prompt), self.controls.escape(response))

    def _bytes(self, text: str) -> int:
        """Of the text as the tokenizer cuts it up."""
        return len((self.normalizer.normalize_str(text) if self.normalizer else text).encode())

    def _ids(self, texts: list[str]) -> list[tuple[list[int], bool]]:
        if not texts:
            return []
        rows = []
        for full in self.tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]:
            ids = truncate_ids(full, self.max_length, self.tokenizer)
            rows.append((ids, len(ids) < len(full)))
        return rows
