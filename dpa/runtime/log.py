"""What a script says while it runs: log lines, and progress."""

import logging
import time

log = logging.getLogger("dpa")


class Progress:
    """Prints `done/total unit, rate` at most every `every` seconds, and at the end."""

    def __init__(self, total: int, unit: str, done: int = 0, every: float = 10.0):
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
        if now - self.last >= self.every or (count and self.done >= self.total):
            self.last = now
            rate = (self.done - self.first) / max(now - self.start, 1e-9)
            log.info("%d/%d %s, %.3g/s%s", self.done, self.total, self.unit, rate, note)
