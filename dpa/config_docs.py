"""docs/configuration.md: the reference of all keys, made from config.yaml and dpa/config.py.

config.yaml gives a key's default and, in the comment above it, its description; the pydantic models
give its type and limits, and describe the keys that have no line in config.yaml.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from dpa.config import (
    FORMAT_ATTRIBUTES,
    ROOT,
    BenchmarkSection,
    Column,
    Config,
    Dirichlet,
    DpoRecipe,
    Lora,
    Objective,
    Ratings,
    Schedule,
    Section,
    Source,
    Table,
    Wedge,
    World,
)

#: Where the page is, relative to the repository.
PAGE = "docs/configuration.md"
#: How the page is written; the drift test says so.
COMMAND = f"python -m scripts.write_config_docs --output {PAGE}"

INTRODUCTION = f"""\
# Configuration

<!-- Written by `{COMMAND}` from config.yaml and dpa/config.py: edit those. -->

`config.yaml` has every key with its default. An experiment lays its own file over it: a name in
`experiments/` (`--config experiment=quickstart`) or a path to a file of yours
(`--config experiment=path/to/mine.yaml`). It gives only what differs: sections merge key by key,
lists are replaced as a whole. With `extends: quickstart` it is laid over that experiment's
file in turn. `--config key=value` on the command line is laid over both. Outputs
go to `results/<name of the experiment>/`, and `{{experiment}}` in any text stands for that name.

Unknown, missing and contradictory keys stop the run before its first job, with the key's path.
"""

#: Sections below the top level: title, what they describe, and the model.
PARTS: dict[str, tuple[str, type[Section]]] = {
    "Objective": ("An item of `objectives`.", Objective),
    "Public ratings": (
        "An item of `data.ratings` with the schema of a public data set.",
        Ratings,
    ),
    "Table": ("An item of `data.ratings`: a file of your own (see your-own-data.md).", Table),
    "Column": ("An attribute of a table.", Column),
    "Source": ("Where rows are read from: local files, or a hub data set at a commit.", Source),
    "Wedge law": ("`directions` for three objectives (appendix A).", Wedge),
    "Dirichlet law": ("`directions` for any number of objectives.", Dirichlet),
    "RewardBench section": ("An item of `rewardbench.sections`.", BenchmarkSection),
    "DPO recipe": ("An item of `dpo.recipes`.", DpoRecipe),
    "Schedule": ("How a stage is trained: the keys of each `training` section.", Schedule),
    "LoRA": ("`training.lora`: low-rank adapters in place of all weights.", Lora),
    "World": ("Sizes of the quickstart's generated data: the keys of `world`.", World),
}
TITLES = {model.__name__: title for title, (_, model) in PARTS.items()}

SCALES = {
    "helpsteer": ("`prompt`, `response`, five integers 0-4", "20 s + 10"),
    "ultrafeedback": (
        '`instruction`, `source`, `completions` with ratings "1"-"5" or "N/A" and '
        "`overall_score` 1-10",
        "20 s - 10; overall_score 10 s - 5",
    ),
    "beavertails": (
        "`prompt`, `response`, `is_safe`, one row per judgement",
        "100 × share of a response's judgements that are safe",
    ),
}

LIMITS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "&lt;", "maximum": "≤"}

Schema = dict[str, Any]
TableRow = tuple[str, str, str, str]


def render() -> str:
    """The whole page."""
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    keys = Keys(yaml.compose(text), describe_keys(text), Config.model_json_schema(by_alias=True))
    values = yaml.safe_load(text)
    nodes = keys.schema["properties"]
    general = [key for key, value in values.items() if not isinstance(value, dict)]
    lines = [INTRODUCTION, "## General\n", *_table(keys.row(key, nodes[key]) for key in general)]
    for key, value in values.items():
        if key not in general:
            lines += [f"## {key}\n", keys.comments[key] + "\n"]
            lines += _table(keys.rows(key, value, nodes[key]))
    lines += ["## Rating formats\n", *_formats()]
    for title, (what, model) in PARTS.items():
        lines += [f"## {title}\n", what + "\n", *_model_table(model)]
    return "\n".join(lines).rstrip() + "\n"


@dataclass
class Keys:
    """config.yaml (parsed), the comments in it by key, and the JSON schema of its values."""

    root: yaml.Node
    comments: dict[str, str]
    schema: Schema

    def row(self, path: str, node: Schema) -> TableRow:
        """The line of one key: (key, type, default, description)."""
        return path, _type(node), _default(self.root, path), self.comments[path]

    def rows(self, path: str, value: dict, node: Schema) -> Iterator[TableRow]:
        """The lines of all keys below a section; a schedule has one line."""
        if "discriminator" in node:  # one of several laws: the default's
            node = {"$ref": node["discriminator"]["mapping"][value["law"]]}
        if choices := [choice for choice in node.get("anyOf", ()) if "$ref" in choice]:
            node = choices[0]  # a section that may be null
        if "$ref" in node:
            node = self.schema["$defs"][_model_name(node)]
        for key, item in value.items():
            inner, child = f"{path}.{key}", node["properties"][key]
            section = isinstance(item, dict) and "additionalProperties" not in child
            if section and _model_name(child) not in TITLES:
                yield inner, "section", "", self.comments[inner]
                yield from self.rows(inner, item, child)
            else:
                yield self.row(inner, child)


def describe_keys(text: str) -> dict[str, str]:
    """Path of each key of a commented YAML file -> the comment right above it ("" if none)."""
    lines = text.splitlines()
    found = {}

    def walk(node: yaml.Node, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            path = prefix + key.value
            found[path] = _comment_above(lines, key.start_mark.line)
            walk(value, path + ".")

    walk(yaml.compose(text), "")
    return found


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
    return " ".join(comment)


def _formats() -> list[str]:
    lines = ["| format | rows | to 0-100 | attributes |", "| --- | --- | --- | --- |"]
    for name, attributes in FORMAT_ATTRIBUTES.items():
        rows, scale = SCALES[name]
        lines.append(f"| `{name}` | {rows} | {scale} | {', '.join(f'`{a}`' for a in attributes)} |")
    lines.append(
        "| `table` | a prompt, a response and columns of yours | `from` | those you name |"
    )
    return [*lines, ""]


def _model_table(model: type[Section]) -> list[str]:
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    return _table(
        (
            key,
            _type(node),
            "required" if key in required else f"`{_shown(node['default'])}`",
            " ".join(node.get("description", "").split()),
        )
        for key, node in schema["properties"].items()
    )


def _table(rows: Iterable[TableRow]) -> list[str]:
    lines = ["| key | type | default | description |", "| --- | --- | --- | --- |"]
    for key, kind, default, description in rows:
        shown = description.replace("<", "&lt;").replace("|", "\\|")
        lines.append(f"| `{key}` | {kind} | {default} | {shown} |")
    return [*lines, ""]


def _default(root: yaml.Node, path: str) -> str:
    """A key's default as config.yaml writes it, lists and schedules on one line."""
    node = root
    for part in path.split("."):
        node = next(value for key, value in node.value if key.value == part)
    if isinstance(node, yaml.ScalarNode):
        return f"`{node.value}`"
    return f"`{yaml.serialize(_in_flow(node), width=10_000).strip()}`"


def _shown(value: Any) -> str:
    """A default of a model, as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _in_flow(node: yaml.Node) -> yaml.Node:
    """The node and all below it in flow style: {a: 1} and [a, b]."""
    if isinstance(node, yaml.MappingNode):
        pairs = [(_in_flow(key), _in_flow(value)) for key, value in node.value]
        return yaml.MappingNode(node.tag, pairs, flow_style=True)
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(node.tag, [_in_flow(i) for i in node.value], flow_style=True)
    return node


def _model_name(node: Schema) -> str:
    return str(node.get("$ref", "")).rsplit("/", 1)[-1]


def _type(node: Schema) -> str:
    """A JSON schema node in words, with its limits."""
    if "$ref" in node:
        title = TITLES[_model_name(node)]
        return f"[{title}](#{title.lower().replace(' ', '-')})"
    if choices := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(_type(choice) for choice in choices)
    if choices := node.get("enum") or ([node["const"]] if "const" in node else None):
        return " or ".join(f"`{choice}`" for choice in choices)
    kind = node.get("type", "any")
    if kind == "array" and "prefixItems" in node:
        return f"[{', '.join(_type(item) for item in node['prefixItems'])}]"
    if kind == "array":
        return f"list of {_type(node['items'])}"
    if kind == "object":
        return f"mapping to {_type(node['additionalProperties'])}"
    if kind == "string":
        return "text"
    if "minimum" in node and "maximum" in node:
        return f"{kind} from {node['minimum']:g} to {node['maximum']:g}"
    bounds = [f"{sign} {node[name]:g}" for name, sign in LIMITS.items() if name in node]
    return " ".join([kind, ", ".join(bounds)]).strip()
