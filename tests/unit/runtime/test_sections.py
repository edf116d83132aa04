"""Sections on a command line: JSON or a file, laid over what config.yaml has."""

import json

import pytest
import yaml

from dpa.config.base import Section
from dpa.config.data import DataConfig
from dpa.config.sampling import SamplingConfig
from dpa.config.steering import DirichletConfig, DistributionConfig, ObjectivesConfig
from dpa.config.trainer import ScheduleConfig, TrainerConfig
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import FastLoader, default_section, names_of, parse_yaml, read_section


def test_without_text_it_is_what_config_yaml_has():
    found = read_section(SamplingConfig, None, "sampling", "sampling")
    assert found == SamplingConfig.model_validate(default_section("sampling"))


@pytest.mark.parametrize("given", ["json", "json file", "yaml file"])
def test_what_is_given_is_laid_over_the_defaults(tmp_path, given):
    differing = {"learning_rate": 0.5, "epochs": 3}
    file = tmp_path / "mine.yaml"
    file.write_text(
        json.dumps(differing) if given == "json file" else "learning_rate: 0.5\nepochs: 3\n"
    )
    text = json.dumps(differing) if given == "json" else f"@{file}"
    found = read_section(ScheduleConfig, text, "schedule", "dpa.schedule")
    assert found.model_dump() == default_section("dpa.schedule") | differing


def test_lists_are_replaced_as_a_whole():
    found = read_section(TrainerConfig, '{"adam_betas": [0.5, 0.6]}', "trainer", "trainer")
    assert found.adam_betas == (0.5, 0.6)
    found = read_section(DataConfig, '{"drop_sources": ["mine"]}', "data", "data")
    assert found.drop_sources == ["mine"]
    mine = [{"name": "brevity", "outputs": {"length": -1.0}}]
    [only] = read_section(ObjectivesConfig, json.dumps(mine), "objectives", "objectives")
    assert only.name == "brevity"


def test_another_distribution_replaces_the_section():
    other = {"distribution": "dirichlet", "signs": [1, -1], "concentration": 2.0}
    found = read_section(DistributionConfig, json.dumps(other), "directions", "directions")
    assert found == DirichletConfig(**other)
    same = read_section(DistributionConfig, '{"to_degrees": 10.0}', "directions", "directions")
    assert same.model_dump() == default_section("directions") | {"to_degrees": 10.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"learning_rat": 0.1}', r"--schedule: .*learning_rat\n"),
        ('{"epochs": -1}', "--schedule: .*epochs"),
        ("{epochs: 3}", r"--schedule: .*; give JSON, or @file\.yaml"),
        ("@none.yaml", r"none\.yaml: no such file"),
    ],
)
def test_errors_name_the_flag_or_the_file(text, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_section(ScheduleConfig, text, "schedule", "dpa.schedule")


def test_a_file_that_does_not_parse_is_named_with_the_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 1\nepochs: 2\n")
    with pytest.raises(InputError, match=r"(?s)mine\.yaml: key 'epochs' is given twice.*line 2"):
        read_section(ScheduleConfig, f"@{tmp_path / 'mine.yaml'}", "schedule", "dpa.schedule")


def test_a_section_without_a_default_is_needed():
    with pytest.raises(InputError, match="--source: is needed"):
        read_section(Section, None, "source")


def test_names_come_by_commas():
    assert names_of("a,b") == ["a", "b"]
    assert names_of("") is names_of(None) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("off", "off"), ("n", "n"),
        ("true", True), ("False", False), ("~", None), ("", None), ("Null", None),
        ("1:30", "1:30"), ("1:30.5", "1:30.5"), ("2024-01-02", "2024-01-02"), ("1_000", "1_000"),
        ("010", 10), ("0o10", 8), ("0x10", 16), ("0b1", "0b1"), ("-3", -3), ("+3", 3), ("=", "="),
        ("1e-5", 1e-5), ("1.5E3", 1500.0), (".5", 0.5), ("1.", 1.0), ("-.inf", float("-inf")),
        ("9007199254740993", 9007199254740993), ("'1'", "1"), ("1e5x", "1e5x"),
    ],
)  # fmt: skip
def test_plain_words_are_what_they_look_like(text, value):
    for found in (parse_yaml(text, "here"), yaml.load(text, FastLoader)):
        assert (found, type(found)) == (value, type(value))


def test_keys_are_words_too():
    assert parse_yaml("{on: 1, no: 2, 1:30: 3}", "here") == {"on": 1, "no": 2, "1:30": 3}


@pytest.mark.parametrize(
    "path",
    [CLONE / "config.yaml", *sorted((CLONE / "experiments").glob("*.yaml"))],
    ids=lambda path: path.name,
)
def test_what_is_shipped_reads_the_same_by_old_and_new_rules(path):
    text = path.read_text()
    assert parse_yaml(text, "here") == yaml.load(text, FastLoader) == yaml.safe_load(text)
