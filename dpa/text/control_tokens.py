"""Control strings: what only a template may say, and what users and policies therefore may not.

A special token inside a prompt or response would end a turn or begin another one, and so would a
role marker that is plain text to the tokenizer (Zephyr's `<|user|>`). Whatever people or models
wrote is escaped before it becomes tokens: a control string gets a space before its last
character (`<|user| >`), which leaves it readable and makes other tokens of it. All other text is
left as it is, to the byte.

Control strings are derived: the tokenizer's special tokens, and the markers that its chat template
writes between the contents of turns. No torch here.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from datetime import date
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

from dpa.errors import InputError
from dpa.records import Turn
from dpa.runtime.log import log
from dpa.text.chat_template import ConversationError, check_ends, render_chat
from dpa.text.prompts import REWARD_CONTROLS, Conversation

#: Conversations whose renderings show a template's markers. Templates refuse some of them.
PROBES = [
    ["user"],
    ["user", "assistant", "user"],
    ["system", "user", "assistant", "user", "assistant"],
    ["user", "assistant", "tool", "assistant"],
]
#: The date that templates get, which is no marker.
PROBE_DATE = date(2000, 1, 1)
#: A marker in brackets: `<|user|>`, `<start_of_turn>`, `[/INST]`, `<<SYS>>`.
BRACKETED = re.compile(r"<<[^<>\s]+>>|<[^<>\s]+>|\[[^\[\]\s]+\]")
#: Longer texts between turns are sentences (a default system prompt), not markers.
MAX_WORDS = 3


class ControlTokens:
    """The control strings of a tokenizer and its chat template, and what they were found in."""

    def __init__(self, tokenizer: Any, more: Iterable[str] = ()):
        if getattr(tokenizer, "chat_template", None):
            check_ends(tokenizer, PROBE_DATE)
        own = {*special_tokens(tokenizer), *template_markers(tokenizer)}
        self.strings = sorted({*(s.strip() for s in own), *more} - {""})
        self.name = getattr(tokenizer, "name_or_path", "")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.normalizer = getattr(backend, "normalizer", None)
        #: What the normalizer makes of a control string is one too, where it is normalised.
        spellings = {*self.strings, *(self._normalised(s).strip("▁ ") for s in self.strings)} - {""}
        self.raw = _any_of(self.strings)
        self.any = _any_of(spellings)
        self.loose = _any_of(spellings, re.IGNORECASE)
        #: Digests of the different texts that had control strings in them.
        self.texts: set[bytes] = set()

    @property
    def escaped(self) -> int:
        """How many different texts had control strings in them."""
        return len(self.texts)

    def log_escaped(self) -> int:
        """The same number, once it is known; said in the log where it is not 0."""
        if self.escaped:
            log.info("%d texts with control strings, escaped", self.escaped)
        return self.escaped

    def escape(self, text: str) -> str:
        """The text without control strings; the same text if there are none.

        Raises InputError if the tokenizer's normalizer makes control strings of whatever is tried.
        """
        if not self._found(text):
            return text
        self.texts.add(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        for spelling in (text, _undisguised(text), _ascii(text)):
            candidate = _broken(self.raw if spelling is text else self.loose, spelling)
            if not self._found(candidate):
                return candidate
        raise InputError(
            f"{self.name}: the tokenizer reads control tokens in {text!r:.200} however it is "
            "spelt; remove the row, or use another tokenizer"
        )

    def escape_messages(self, messages: Iterable[dict]) -> list[dict]:
        """Chat messages with escaped contents."""
        return [{**turn, "content": self.escape(turn["content"])} for turn in messages]

    def escape_prompt(self, prompt: Conversation) -> Conversation:
        """A prompt with escaped texts."""
        if isinstance(prompt, str):
            return self.escape(prompt)
        return [Turn(turn.role, self.escape(turn.content)) for turn in prompt]

    def _found(self, text: str) -> bool:
        if self.raw.search(text):
            return True
        return self.normalizer is not None and bool(self.any.search(self._normalised(text)))

    def _normalised(self, text: str) -> str:
        return text if self.normalizer is None else self.normalizer.normalize_str(text)


_of_rewards: WeakKeyDictionary[Any, ControlTokens] = WeakKeyDictionary()


def reward_controls(tokenizer: Any) -> ControlTokens:
    """Those of a reward model, whose input has markers of its own.

    One object per tokenizer, so that its count is of all.
    """
    if tokenizer not in _of_rewards:
        _of_rewards[tokenizer] = ControlTokens(tokenizer, REWARD_CONTROLS)
    return _of_rewards[tokenizer]


def special_tokens(tokenizer: Any) -> set[str]:
    """Tokens that the tokenizer itself calls special. Other added tokens may be ordinary text."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}


def template_markers(tokenizer: Any) -> set[str]:
    """What the chat template writes around contents to tell turns and roles apart."""
    if not getattr(tokenizer, "chat_template", None):
        return set()
    specials = special_tokens(tokenizer)
    return {
        marker
        for piece in _between_contents(tokenizer)
        for line in piece.splitlines()
        for marker in _markers(line, specials)
    }


def _between_contents(tokenizer: Any) -> Iterator[str]:
    """Everything in rendered conversations that is not a turn's content."""
    for roles in PROBES:
        contents = [f"QZ{i}ZQ" for i in range(len(roles))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        try:
            text = render_chat(tokenizer, messages, PROBE_DATE, roles[-1] != "assistant")
        except ConversationError:
            continue
        yield from re.split("|".join(contents), text)


def _markers(line: str, specials: Collection[str]) -> Iterator[str]:
    """The markers in a line of template text.

    Words beside one, or alone, are none: after `<start_of_turn>` Gemma says `user`.
    """
    found = [*BRACKETED.findall(line), *(s for s in specials if s in line)]
    yield from found
    marked = any(not c.isalnum() and not c.isspace() for c in line)
    if not found and marked and len(line.split()) <= MAX_WORDS and any(map(str.isalpha, line)):
        yield line.strip()


def _any_of(strings: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    """Matches any of the strings, the longest first; nothing if there are none."""
    ordered = sorted(strings, key=lambda s: (-len(s), s))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)", flags)


def _broken(pattern: re.Pattern[str], text: str) -> str:
    """The text with a space before the last character of every match; matches of one character
    are left out."""
    while pattern.search(text):
        text = pattern.sub(lambda m: f"{m[0][:-1]} {m[0][-1]}" if len(m[0]) > 1 else "", text)
    return text


def _undisguised(text: str) -> str:
    """Compatibility characters in their plain form, without invisible ones (NFKC, no Cf)."""
    plain = unicodedata.normalize("NFKC", text)
    return "".join(c for c in plain if unicodedata.category(c) != "Cf")


def _ascii(text: str) -> str:
    """What is left of a text in ASCII, without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
