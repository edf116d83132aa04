"""Keys of servers: read from the environment here, and written nowhere."""

import os


def read_key(variable: str | None) -> str | None:
    """The key in an environment variable; None where it is not set, or no key is needed."""
    return (os.environ.get(variable) or None) if variable else None


def lacks_key(variable: str | None) -> bool:
    """Whether a key is needed and not there."""
    return bool(variable) and read_key(variable) is None


def redacted(text: str, variable: str | None) -> str:
    """A server's message without the key that it may quote."""
    key = read_key(variable)
    return text.replace(key, "***") if key else text
