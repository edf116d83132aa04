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


def clock(seconds: float) -> str:
    """Elapsed time.

    >>> clock(83.6), clock(7265)
    ('1:23', '2:01:05')
    """
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def spoken_duration(seconds: float) -> str:
    """A length of time as people say it.

    >>> [spoken_duration(n) for n in (0.2, 59.4, 60, 540, 3600, 8100, 93600)]
    ['0 s', '59 s', '1 min', '9 min', '1 h', '2 h 15 min', '1 day 2 h']
    """
    if (whole := round(seconds)) < 60:
        return f"{max(whole, 0)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h" + (f" {rest} min" if rest else "")
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")


class Progress:
    """Prints `done/total unit, percentage, time left` every `every` seconds, and at the end.

    Without a total, for what is not known before its end, `done unit`.
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
            log.info("%s%s", self.state(now - self.start), note)

    def state(self, elapsed: float) -> str:
        """How far it is after so many seconds."""
        if self.total is None:
            return f"{self.done} {self.unit}"
        percentage = 100 * self.done // self.total if self.total else 100
        state = f"{self.done}/{self.total} {self.unit}, {percentage} %"
        if self.done >= self.total:
            return f"{state}, {spoken_duration(elapsed)}"
        if self.done == self.first:
            return state
        left = elapsed * (self.total - self.done) / (self.done - self.first)
        return f"{state}, {spoken_duration(left)} left"
