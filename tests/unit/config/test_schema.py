"""config.schema.json: what editors check experiments with, and that every key is described."""

import json

import jsonschema
import pytest
import yaml

from dpa.config import schema
from dpa.runtime.run_environment import CLONE

SHIPPED = [CLONE / "config.yaml", *sorted((CLONE / "experiments").glob("*.yaml"))]


@pytest.fixture(scope="module")
def committed():
    return json.loads((CLONE / "config.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator(committed):
    kind = jsonschema.validators.validator_for(committed)
    kind.check_schema(committed)
    return kind(committed)


def test_the_committed_schema_is_that_of_the_types(committed):
    assert committed == schema.config_schema(), f"run {schema.COMMAND}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_valid(validator, path):
    assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "overlay",
    [
        {"dpa": {"iteration": 3}},
        {"treads": 2},
        {"training": {"bf16": True}},
        {"dpa": {"training": {"epochs": 1}}},
        {"directions": {"law": "arc"}},
        {"cluster": {"gpu": "h100"}},
        {"dpa": {"iterations": -1}},
        {"methods": ["ppoo"]},
    ],
    ids=str,
)
def test_misspelt_and_old_keys_are_refused(validator, overlay):
    assert not validator.is_valid(overlay)


@pytest.mark.parametrize("overlay", [{}, {"dpa": {"iterations": 3}}, {"extends": "quickstart"}])
def test_an_experiment_gives_only_what_differs(validator, overlay):
    assert validator.is_valid(overlay)


def test_every_key_of_config_yaml_has_a_comment_above_it():
    comments = schema.describe_keys((CLONE / "config.yaml").read_text(encoding="utf-8"))
    # The keys of schedules and recipes are described once, in their types.
    elsewhere = (".schedule.", "dpo.recipes.")
    bare = [
        key
        for key, comment in comments.items()
        if not comment and not any(part in key for part in elsewhere)
    ]
    assert bare == []


def test_every_key_without_a_line_in_config_yaml_has_a_description(committed):
    """What has a line got its description from there; the types describe the rest."""
    bare = [
        f"{name}.{key}"
        for name, section in {"Config": committed, **committed["$defs"]}.items()
        for key, value in section.get("properties", {}).items()
        if not value.get("description")
    ]
    assert bare == []
