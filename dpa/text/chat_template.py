"""Chat templates: the one place that renders conversations as text, under a constant date.

Some templates write today's date. Their tokens would change at midnight: work that resumes would
not fit what is there already, and shards would differ. So every rendering is given a date, in both
of the ways in which templates ask for one, and none reads the clock.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import Any

from dpa.errors import InputError

#: What else a template may fail with.
MORE = (ZeroDivisionError, RecursionError)
#: Llama 3's own way of writing `date_string`.
DATE_STRING = "%d %b %Y"


class ConversationError(ValueError):
    """A conversation that cannot be laid out; its text is the reason, for counting rows by it."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail


def render_chat(
    tokenizer: Any, messages: list[dict], today: date, generation_prompt: bool = False
) -> str:
    """A conversation as the tokenizer's chat template writes it.

    `today` is what the template is told when it asks for the date. `generation_prompt` adds what
    stands before an answer. Raises ConversationError when the template refuses the conversation.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            # Stands before the template environment's own of that name, which reads the clock.
            strftime_now=datetime.combine(today, time()).strftime,
            date_string=today.strftime(DATE_STRING),
        )
    # Templates raise what they like, and so do their expressions on turns that they do not expect.
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError, *MORE) as error:
        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        raise ConversationError("refused by the chat template", f"{line}{error}") from error


#: Seconds and characters that a chat template may take for a short conversation.
TEMPLATE_SECONDS = 5.0
TEMPLATE_CHARACTERS = 1_000_000


def check_ends(tokenizer: Any, today: date) -> None:
    """Raise InputError when the chat template, which is a program, does not come to an end."""
    for roles in (["user"], ["user", "assistant"], ["system", "user", "assistant", "user"]):
        turns = [{"role": role, "content": "a"} for role in roles]
        try:
            with _at_most(TEMPLATE_SECONDS):
                size = len(render_chat(tokenizer, turns, today))
            what = f"writes {size:,} characters" if size > TEMPLATE_CHARACTERS else ""
        except TimeoutError:
            what = f"takes more than {TEMPLATE_SECONDS:g} seconds"
        except (MemoryError, OverflowError):
            what = "takes more memory than there is"
        except ConversationError:  # other faults of a template are named where it is needed
            continue
        if what:
            raise InputError(
                f"{tokenizer.name_or_path}: the chat template {what} for {len(turns)} short turns; "
                "choose another model, or correct its template"
            )


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so much computing; in another thread without limit.

    Computing, not waiting: on a busy machine a good template takes as long.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
