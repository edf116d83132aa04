"""From chat messages to token ids and back: the one way, for sampling and for training alike.

Token ids of a conversation are those of its parts, put together: what the template writes up to the
assistant's answer (what a policy is given when it is asked), the answer, what the template writes
after it, and so on. Nothing is tokenised across these seams: a text that begins with white space
would there merge with the end of the template, into tokens that no policy was asked with. An
answer's ids come from its text alone, and decode to it.

Contents are escaped first (control_tokens), so that control tokens come from templates only.
"""

from functools import cached_property
from typing import Any

from dpa.config.chat import ModelsConfig
from dpa.errors import InputError
from dpa.models import AnyModel, load_tokenizer
from dpa.runtime.sections import read_section
from dpa.text.chat_template import ConversationError, render_chat
from dpa.text.control_tokens import ControlTokens, special_tokens

#: Stands for an answer where the template's text around it is wanted: some templates trim answers.
STAND_IN = "QZ0ZQ"
ANSWERED = {"role": "assistant", "content": STAND_IN}

#: Why a conversation is of no use whose template does not just append turns.
REWRITTEN = "the chat template rewrites earlier turns"

#: What a text is tokenised behind, in the order in which they are tried, so that the tokenizer does
#: not take it for the beginning and put a space before it (as SentencePiece does). One that merges
#: with the text is of no use: line ends do with line ends, letters with letters.
ANCHORS = ("\n", "a", "。", "0")
#: No byte token, with which following ones would be decoded together.
DECODED_BEHIND = "a"


class ChatTokenizer:
    """A tokenizer with its chat template, as `models` in the configuration has it used.

    Without `models` it is used as config.yaml says. Raises InputError when there is no chat
    template, or none that can lay out a conversation; the first use does where a BOS is asked for
    and there is none.
    """

    def __init__(self, tokenizer: Any, models: ModelsConfig | None = None):
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path
        self.models = models or read_section(ModelsConfig, None, "models", "models")
        if not tokenizer.chat_template:
            raise InputError(f"{self.name}: the tokenizer has no chat template; use a chat model")
        #: What texts may not contain, and how many did.
        self.controls = ControlTokens(tokenizer)
        self._try_out([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        self._anchors = {anchor: self._encode(anchor) for anchor in ANCHORS}
        #: Token ids of what the template writes after answers (mostly the same), up to the end
        #: token and behind it.
        self._ends: dict[str, tuple[list[int], list[int]]] = {}

    @classmethod
    def load(cls, model: AnyModel, models: ModelsConfig | None = None) -> "ChatTokenizer":
        """A checkpoint's (no torch). Raises InputError as the constructor does."""
        return cls(load_tokenizer(model), models)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether a BOS is put before what the template writes."""
        text = self.render([{"role": "user", "content": "a"}], generation_prompt=True)
        return self.first_ids(text)[:1] != self._encode(text)[:1]

    def details(self) -> dict[str, Any]:
        """How conversations were laid out, for sidecars."""
        return {"models": self.models.model_dump(mode="json"), "bos_added": self.adds_bos}

    def render(self, messages: list[dict], generation_prompt: bool = False) -> str:
        """What the template makes of messages. Raises ConversationError."""
        return render_chat(
            self.tokenizer, messages, self.models.chat_template_date, generation_prompt
        )

    # --- To tokens --------------------------------------------------------------------------------

    def prompt_ids(self, messages: list[dict]) -> list[int]:
        """Token ids of a conversation up to the point where the assistant is to answer.

        Raises ConversationError when the template does not lay it out, turn after turn.
        """
        layout = _Layout(self)
        for turn in self.controls.escape_messages(messages):
            layout.add(turn)
        layout.ask()
        return layout.ids

    def conversation_ids(
        self, messages: list[dict], last_answer_only: bool = False
    ) -> tuple[list[int], list[int]]:
        """Token ids of a conversation, up to the assistant's last word, and a 0/1 mask of them.

        1 are those that the assistant writes, in all its turns or in the last one, the end token
        included, so that a policy learns to stop. Raises ConversationError as prompt_ids does.
        """
        layout = _Layout(self)
        messages = self.controls.escape_messages(messages)
        last = max((i for i, t in enumerate(messages) if t["role"] == "assistant"), default=-1)
        for turn in messages[: last + 1]:
            begin = len(layout.ids)
            layout.add(turn)
        if last_answer_only and layout.mask:
            layout.mask[:begin] = [0] * begin
        return layout.ids, layout.mask

    def answer_ids(
        self, messages: list[dict], answers: list[str]
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of a prompt's messages, and those of each answer after it, end token included.

        Raises ConversationError as prompt_ids does.
        """
        layout = _Layout(self)
        for turn in self.controls.escape_messages(messages):
            layout.add(turn)
        layout.ask()
        around = layout.around_answer()
        texts = map(self.controls.escape, answers)
        return layout.ids, [self.answer_ids_between(text, around)[0] for text in texts]

    def generated_ids(
        self, messages: list[dict], responses: list[str]
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of a prompt's messages, and those of a policy's responses to it, without an end
        token: those that were generated, where the policy wrote a text in its usual tokens.

        Raises ConversationError as prompt_ids does.
        """
        layout = _Layout(self)
        for turn in self.controls.escape_messages(messages):
            layout.add(turn)
        layout.ask()
        lead, _ = layout.around_answer()
        return layout.ids, [self.part_ids(lead + self.controls.escape(text)) for text in responses]

    # --- And back ---------------------------------------------------------------------------------

    def decode(self, ids: list[int]) -> str:
        """The text of an answer's tokens; special tokens are left out.

        As the tokens stand behind others, a space that they begin with is part of it, but for what
        the template itself puts between its prompt and an answer.
        """
        before = self._anchors[DECODED_BEHIND]
        anchor, text = self._decode(before), self._decode(before + ids)
        text = text.removeprefix(anchor) if text.startswith(anchor) else self._decode(ids)
        return text.removeprefix(self._lead)

    @cached_property
    def _lead(self) -> str:
        """What the template writes between the prompt of a lone question and its answer."""
        layout = _Layout(self)
        try:
            layout.add({"role": "user", "content": "a"})
            layout.ask()
            return layout.around_answer()[0]
        except ConversationError:
            return ""

    # --- Parts ------------------------------------------------------------------------------------

    def check_system_prompt(self) -> None:
        """Raise InputError when the template refuses a system prompt, or leaves it out silently.

        The system prompt is what carries a direction.
        """
        if not self._has_system_prompt:
            raise InputError(
                f"{self.name}: the chat template leaves the system prompt out, which carries the "
                "direction; choose a model whose template has one, or change it"
            )

    @cached_property
    def _has_system_prompt(self) -> bool:
        system = "A system prompt of this pipeline."
        turns = [{"role": "system", "content": system}, {"role": "user", "content": "a"}]
        return system in self._try_out(turns)

    def _try_out(self, messages: list[dict]) -> str:
        try:
            return self.render(messages)
        except ConversationError as error:
            raise InputError(
                f"{self.name}: the chat template fails: {error.detail}; choose a model whose "
                "template takes system, user and assistant turns, or change it"
            ) from None

    @cached_property
    def _begin(self) -> list[int]:
        """Put before conversations whose text does not begin with it; empty where nothing is."""
        bos, asked = self.tokenizer.bos_token_id, self.models.add_bos
        if asked is True and bos is None:
            raise InputError(
                f"models.add_bos: the tokenizer of {self.name} has no BOS token; set it to auto"
            )
        if asked == "auto":
            return [bos] if bos is not None and bos in self.tokenizer("")["input_ids"][:1] else []
        return [bos] if asked else []

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def first_ids(self, text: str) -> list[int]:
        """Token ids of a text that begins a conversation."""
        ids = self._encode(text)
        return ids if ids[:1] == self._begin else self._begin + ids

    def answer_ids_between(
        self, answer: str, around: tuple[str, str]
    ) -> tuple[list[int], list[int]]:
        """Token ids of what the assistant writes, and of what the template writes after that.

        The assistant writes the answer, with the template's text around it up to the end token,
        behind which it is not asked for more: a line end there belongs to the turns that follow.
        """
        lead, end = around
        if end not in self._ends:
            ids = self.part_ids(end)
            special = [i for i, token in enumerate(ids, 1) if token in self._special_ids]
            written = special[-1] if special else len(ids)
            self._ends[end] = ids[:written], ids[written:]
        own, after = self._ends[end]
        return self.part_ids(lead + answer) + own, after

    @cached_property
    def _special_ids(self) -> set[int]:
        return set(self.tokenizer.convert_tokens_to_ids(sorted(special_tokens(self.tokenizer))))

    def part_ids(self, text: str) -> list[int]:
        """Token ids of a text behind others: those of the text alone, without a space before it.

        Raises ConversationError when the text merges with whatever it stands behind.
        """
        if not text:
            return []
        for anchor, before in self._anchors.items():
            ids = self._encode(anchor + text)
            if before and ids[: len(before)] == before:
                return ids[len(before) :]
        raise ConversationError("tokens that cannot be told from the template's")


class _Layout:
    """A conversation that grows turn by turn: its token ids, and 1 for those of the assistant."""

    def __init__(self, chat: ChatTokenizer):
        self.chat = chat
        self.ids: list[int] = []
        self.mask: list[int] = []
        #: What stands behind the last answer's end token, and before whatever follows.
        self.rest: list[int] = []
        #: The turns so far and what the template makes of them, with stand-ins for all answers.
        self.turns: list[dict] = []
        self.text = ""

    def add(self, turn: dict) -> None:
        """Add a turn. Others than the assistant's become tokens when the assistant is asked."""
        if turn["role"] != "assistant":
            self.turns.append(turn)
            return
        self.ask()
        lead, end = self.around_answer()
        own, self.rest = self.chat.answer_ids_between(turn["content"], (lead, end))
        self.ids += own
        self.mask += [1] * len(own)
        self.turns.append(ANSWERED)
        self.text += lead + STAND_IN + end

    def ask(self) -> None:
        """Add what the template writes up to the assistant's answer."""
        text = self.chat.render(self.turns, generation_prompt=True)
        new = self._new(text)
        ids = self.rest + self.chat.part_ids(new) if self.text else self.chat.first_ids(new)
        self.rest = []
        self.ids += ids
        self.mask += [0] * len(ids)
        self.text = text

    def around_answer(self) -> tuple[str, str]:
        """What the template writes between its prompt and an answer, and after the answer."""
        lead, found, end = self._new(self.chat.render([*self.turns, ANSWERED])).partition(STAND_IN)
        if not found:
            raise ConversationError(REWRITTEN)
        return lead, end

    def _new(self, text: str) -> str:
        """What a rendering adds to the one before. Raises ConversationError if it changes that."""
        if not text.startswith(self.text):
            raise ConversationError(REWRITTEN)
        return text[len(self.text) :]


def truncate_ids(ids: list[int], max_length: int, tokenizer: Any) -> list[int]:
    """The last `max_length` tokens, the first one kept if it is the begin token.

    The response's end and the suffix, where the scores are read, always stay. Same as the
    tokenizer's own truncation from the left.
    """
    if len(ids) <= max_length:
        return ids
    head = 1 if ids[0] == tokenizer.bos_token_id else 0
    return ids[:head] + ids[len(ids) - max_length + head :]
