"""Sections of the configuration on a script's command line: JSON, or `@file`, over the defaults.

Rules give whole sections; by hand what differs from config.yaml is enough. config.yaml is read as a
plain mapping: which keys there are is for the section's type to say.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE

try:
    from yaml import CSafeLoader as FastLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader as FastLoader  # type: ignore[assignment]


class UniqueKeys(yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice, of which YAML would keep the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, hint: str = "") -> dict:
    """A YAML mapping. Raises InputError naming the file (and the line, when it does not parse)."""
    content = _parsed(path, hint)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of keys at the top level")
    return content


def _parsed(path: Path, hint: str = "") -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        # YAML would read JSON's 1e-05 as text, and the two escapes of an emoji as two characters.
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, UniqueKeys)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def merge(base: dict, overlay: dict) -> dict:
    """`overlay` laid over `base`: sections merge key by key, everything else is replaced.

    A section that names another `distribution` is replaced as a whole: that one has other keys.
    """
    merged = dict(base)
    if "distribution" in overlay and overlay["distribution"] != base.get("distribution"):
        return overlay
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_section(kind: Any, text: str | None, flag: str, default: str | None = None) -> Any:
    """A section given on the command line, validated as `kind` (a model, or a TypeAdapter).

    `text` is JSON or `@file` (JSON or YAML); a mapping is laid over the value that config.yaml has
    under the dotted key `default`, and without `text` it is that value. Raises InputError naming
    the flag.
    """
    found = None if text is None else _given(text, flag)
    if default is not None and (found is None or isinstance(found, dict)):
        known = default_section(default)
        found = merge(known, found) if isinstance(known, dict) and found else found or known
    elif found is None:
        raise InputError(f"--{flag}: is needed")
    try:
        if isinstance(kind, TypeAdapter):
            return kind.validate_python(found)
        assert issubclass(kind, BaseModel)
        return kind.model_validate(found)
    except ValidationError as error:
        raise InputError(f"--{flag}: {error}") from None


def default_section(key: str) -> Any:
    """What config.yaml has under a dotted key."""
    value: Any = _defaults()
    for part in key.split("."):
        value = value[part]
    return value


@cache
def _defaults() -> dict:
    """config.yaml, read once for all sections of a command line.

    By libyaml where PyYAML has it: ten times as fast, but it says less well what is wrong.
    """
    text = (CLONE / "config.yaml").read_text(encoding="utf-8")
    return yaml.load(text, FastLoader)


def _given(text: str, flag: str) -> Any:
    if text.startswith("@"):
        return _parsed(Path(text[1:]))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--{flag}: {error}; give JSON, or @file.yaml") from None


def names_of(text: str | None) -> list[str] | None:
    """Names that a command line gives by commas; None where it gives none."""
    return text.split(",") if text else None
