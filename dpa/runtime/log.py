"""What a script says while it runs: log lines, and progress."""

import logging
import re
import time

log = logging.getLogger("dpa")

#: Control characters, but tab and newline, and what reverses or hides text in a terminal.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """Text with control characters written out: what a model or a file says moves no cursor.

    >>> visible("red: \\x1b[31m")
    'red: \\\\x1b[31m'
    """
    return CONTROLS.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


class VisibleFormatter(logging.Formatter):
    """Log lines in which whatever is quoted is visible."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class Progress:
    """Prints `done/total unit, rate` at most every `every` seconds, and at the end.

    Without a total, for what is not known before its end, `done unit, rate`.
    """

    def __init__(self, total: int | None, unit: str, done: int = 0, every: float = 10.0):
        self.total, self.unit, self.done, self.every = total, unit, done, every
        self.first, self.start = done, time.monotonic()
        self.last = self.start
        if done:
            log.info("resuming after %d of %d %s", done, total, unit)

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more as done; `note` is appended to the line.

        With 0 it is a sign of life: a line once `every` seconds are over.
        """
        self.done += count
        now = time.monotonic()
        ends = self.total is not None and self.done >= self.total
        if now - self.last >= self.every or (count and ends):
            self.last = now
            rate = (self.done - self.first) / max(now - self.start, 1e-9)
            of = "" if self.total is None else f"/{self.total}"
            log.info("%d%s %s, %.3g/s%s", self.done, of, self.unit, rate, note)
