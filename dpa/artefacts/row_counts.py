"""Rows read, kept and dropped by reason, and the shares beyond which a stage stops."""

from collections import Counter

from dpa.errors import InputError
from dpa.runtime.run_environment import RunEnvironment


def check_dropped(row_counts: "RowCounts", what: str) -> None:
    """Raise InputError when a stage drops more rows than the run's limit allows.

    write_sidecar does it too; a stage that is about to do something long does it before.
    """
    limit = RunEnvironment.read().max_dropped_fraction
    row_counts.check(limit, what, "limits.max_dropped_fraction")


def check_truncated(truncated: int, texts: int, what: str) -> None:
    """Raise InputError when a stage truncates more texts than the run's limit allows."""
    limit = RunEnvironment.read().max_truncated_fraction
    if truncated > limit * texts:
        raise InputError(
            f"{what}: {truncated} of {texts} texts were truncated to what the model holds, "
            f"more than the allowed share {limit}; use a model or a max_length that holds more, or "
            "raise limits.max_truncated_fraction"
        )


class RowCounts:
    """Rows read, kept and dropped by reason: no row goes missing without a name for it."""

    def __init__(self) -> None:
        self.read = 0
        self.dropped: Counter[str] = Counter()
        self.asked_for: Counter[str] = Counter()
        self.shortened: Counter[str] = Counter()

    @classmethod
    def all_kept(cls, rows: int) -> "RowCounts":
        """So many rows read, and all of them kept."""
        counts = cls()
        counts.read = rows
        return counts

    @property
    def kept(self) -> int:
        return self.read - self.dropped.total()

    def drop(self, reason: str, asked_for: bool = False, rows: int = 1) -> None:
        """Count dropped rows; `asked_for` if they are meant to be (a filter)."""
        if not rows:
            return
        self.dropped[reason] += rows
        if asked_for:
            self.asked_for[reason] += rows

    def add(self, other: "RowCounts") -> None:
        """Count another's rows as well."""
        self.read += other.read
        self.dropped += other.dropped
        self.asked_for += other.asked_for
        self.shortened += other.shortened

    def shorten(self, without: str) -> None:
        """Count a kept row that something was left out of."""
        self.shortened[without] += 1

    def check(self, limit: float, what: str, key: str = "data.max_dropped_fraction") -> None:
        """Raise InputError when a larger share than `limit` was dropped without being asked for."""
        lost = self.dropped - self.asked_for
        rows = self.read - self.asked_for.total()
        if lost.total() > limit * rows:
            raise InputError(
                f"{what}: dropped {lost.total()} of {rows} rows "
                f"({dict(lost)}), more than the allowed share {limit}; "
                f"repair the data or raise {key}"
            )

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()))
        shorter = "".join(f", {n} without {what}" for what, n in sorted(self.shortened.items()))
        dropped = f", dropped {reasons}" if reasons else ""
        return f"read {self.read}, kept {self.kept}{shorter}{dropped}"

    def as_dict(self) -> dict:
        return {"read": self.read, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}
