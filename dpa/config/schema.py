"""config.schema.json: what editors complete and check config.yaml and experiments with.

The types give the values, the comments in config.yaml describe the keys. An experiment gives only
what differs, so a section needs none of its keys; an item of a list needs all of its own.
"""

from typing import Any

import yaml

from dpa.config.experiment import Config
from dpa.runtime.run_environment import CLONE

#: How the schema is written; the drift test says so.
COMMAND = "python -m scripts.write_config_schema --overwrite --output config.schema.json"

Schema = dict[str, Any]


def config_schema() -> Schema:
    """The JSON schema of an experiment's file."""
    text = (CLONE / "config.yaml").read_text(encoding="utf-8")
    schema = Config.model_json_schema(by_alias=True)
    _describe(schema, schema, yaml.safe_load(text), describe_keys(text), "")
    extends = {"type": "string", "description": "The experiment that this file is laid over."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Written by: {COMMAND}",
        **_plain(schema),
        "title": "An experiment of dpa, or config.yaml itself",
    }


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


def _describe(root: Schema, node: Schema, values: dict, comments: dict, prefix: str) -> None:
    """Set the descriptions of a section's keys, and let it lack any of them.

    What several stages share (a schedule) has the descriptions of the first.
    """
    node.pop("required", None)
    for key, value in values.items():
        path = f"{prefix}{key}"
        child = node["properties"].get(key)
        if child is None:
            continue
        if comments[path]:
            child.setdefault("description", comments[path])
        if isinstance(value, dict):
            for section in _sections(root, child):
                _describe(root, section, value, comments, path + ".")


def _sections(root: Schema, node: Schema) -> list[Schema]:
    """The models that a key's value may be: one, or several kinds."""
    choices = node.get("anyOf") or node.get("oneOf") or [node]
    names = [str(choice["$ref"]).rsplit("/", 1)[-1] for choice in choices if "$ref" in choice]
    return [root["$defs"][name] for name in names]


def _plain(node: Any) -> Any:
    """Without titles and OpenAPI's discriminators; partial sections may fit several kinds."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "oneOf" in node:
        node = {**node, "anyOf": node["oneOf"]}
    dropped = ("title", "discriminator", "oneOf")
    return {
        # A property may be called title.
        key: {k: _plain(v) for k, v in value.items()} if key == "properties" else _plain(value)
        for key, value in node.items()
        if key not in dropped
    }
