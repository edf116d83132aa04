"""Sections of the configuration on a script's command line: JSON, or `@file`, over the defaults.

Rules give whole sections; by hand what differs from config.yaml is enough. config.yaml is read as a
plain mapping: which keys there are is for the section's type to say.
"""

import re
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dpa.errors import InputError
from dpa.runtime.reading import decode_json, read_document, read_json
from dpa.runtime.run_environment import CLONE

try:
    from yaml import CSafeLoader as _FastLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader as _FastLoader  # type: ignore[assignment]

#: What a plain word is, as YAML 1.2 reads it (its core schema, section 10.3.2). By YAML 1.1,
#: which is PyYAML's, `no` is false, `1:30` is 90, `010` is 8 and `2024-01-01` a date.
PLAIN_WORDS = (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
)


def _integer(loader: Any, node: Any) -> int:
    """0x10 is 16, 0o10 is 8, 010 is 10."""
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


class FastLoader(_FastLoader):
    """A safe YAML loader, by libyaml where PyYAML has it."""


#: Most characters of YAML from outside: Python reads 100 KB of it a second. libyaml, which is ten
#: times as fast, does not survive deep nesting.
MAX_YAML = 512 << 10
#: Most values in a document once its aliases are written out, and levels of one.
MAX_VALUES = 1_000_000
MAX_LEVELS = 100


class StrictLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses a key given twice, of which YAML would keep the last, and
    aliases that contain themselves or multiply without bound."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None:
            _written_out(node, {}, ())
        return node

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # A tag (`!!int x`) that does not fit its value, or a number of 5,000 digits.
            raise yaml.MarkedYAMLError(
                problem=f"{node.value!r:.80}: {error}", problem_mark=node.start_mark
            ) from None

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the constructor refuses it
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _written_out(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for, aliases written out. Raises YAMLError beyond the bounds.

    `known` are nodes that were counted, `above` those that contain this one.
    """
    me = id(node)
    if me in above or len(above) > MAX_LEVELS:
        what = "contains itself" if me in above else f"is nested more than {MAX_LEVELS} levels deep"
        raise yaml.MarkedYAMLError(problem=f"the value {what}", problem_mark=node.start_mark)
    if me not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[me] = 1 + sum(_written_out(part, known, (*above, me)) for part in parts)
        if known[me] > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"aliases make it more than {MAX_VALUES:,} values",
                problem_mark=node.start_mark,
            )
    return known[me]


def parse_yaml(text: str, place: str) -> Any:
    """A YAML value from text; `place` is what an InputError names."""
    if len(text) > MAX_YAML:
        raise InputError(f"{place}: more than {MAX_YAML >> 10} KiB of YAML; give it as JSON")
    try:
        return yaml.load(text, StrictLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{place}: {error}") from None
    except RecursionError:
        raise InputError(f"{place}: nested too deeply") from None


for _loader in (FastLoader, StrictLoader):
    _loader.yaml_implicit_resolvers = {}
    for _tag, _words, _first in PLAIN_WORDS:
        _pattern = re.compile(f"^(?:{_words})$")
        _loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))
    _loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(path: Path, hint: str = "") -> dict:
    """A YAML mapping. Raises InputError naming the file (and the line, when it does not parse)."""
    content = read_value(path, hint)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of keys at the top level")
    return content


def read_value(path: Path, hint: str = "") -> Any:
    """A file's YAML or JSON value. Raises InputError naming the file and what is wrong in it."""
    if not path.exists():
        raise InputError(f"{path}: no such file{hint}")
    # YAML would read JSON's 1e-05 as text, and the two escapes of an emoji as two characters.
    if path.suffix == ".json":
        return read_json(path)
    try:
        text = read_document(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}") from None
    return parse_yaml(text, str(path))


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
    from pydantic import BaseModel, TypeAdapter, ValidationError  # a fifth of what --help takes

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
        return read_value(Path(text[1:]))
    try:
        return decode_json(text, f"--{flag}")
    except InputError as error:
        raise InputError(f"{error}; give JSON, or @file.yaml") from None


def names_of(text: str | None) -> list[str] | None:
    """Names that a command line gives by commas; None where it gives none."""
    return text.split(",") if text else None
