"""The one exception that users are meant to read."""


class InputError(ValueError):
    """Bad input. The message names place (file, line, key) and remedy; no traceback is shown."""
