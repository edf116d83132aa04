"""All command lines at once: a flag means one thing, and the examples in docstrings are true."""

import importlib
import re
import shlex

import click
import pytest
import typer

from dpa.runtime.run_environment import CLONE
from tests.support.rule_commands import of, planned_commands
from tests.support.snakemake_runs import copy_repository, unlock

SCRIPTS = sorted(p.stem for p in (CLONE / "scripts").glob("[a-z]*.py"))


def command(name: str) -> click.Command:
    return typer.main.get_command(importlib.import_module(f"scripts.{name}").app)


def examples(name: str) -> list[list[str]]:
    """The arguments of every `python -m scripts.<name>` in a script's docstring."""
    text = importlib.import_module(f"scripts.{name}").__doc__.replace("\\\n", " ")
    found = re.findall(rf"^ +python -m scripts\.{name}(?: (.*))?$", text, re.MULTILINE)
    return [shlex.split(arguments) for arguments in found]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_examples_of_a_docstring_are_command_lines(name):
    assert examples(name) or name == "lock_revisions"
    for arguments in examples(name):
        command(name).make_context(name, list(arguments)).close()


def test_a_flag_means_one_thing_in_all_scripts():
    meanings: dict[str, set] = {}
    for name in SCRIPTS:
        for option in command(name).params:
            if not isinstance(option, click.Option):
                continue
            for flag in (*option.opts, *option.secondary_opts):
                if flag != "--help":
                    meaning = (re.sub(r"\s+", " ", option.help or ""), str(option.type))
                    meanings.setdefault(flag, set()).add(meaning)
    assert {flag: found for flag, found in meanings.items() if len(found) > 1} == {}
    assert all(help for found in meanings.values() for help, _ in found)


def test_what_is_written_has_a_flag_that_says_so():
    """In rules: every output is the value of a flag that begins with --output."""
    found = {
        flag
        for path in (CLONE / "rules").glob("*.smk")
        for flag in re.findall(
            r"(\S+) \{output[.\w\[\]:]*\}", re.sub(r'"\s+"', "", path.read_text())
        )
    }
    assert "--output-annotations" in found  # of a command that is longer than a line
    # Benchmarks print: a shell writes what they say.
    assert [f for f in found - {">"} if not re.fullmatch(r"--output(-[a-z0-9-]+)?", f)] == []


#: What is asked for of an experiment: everything, and what makes nothing of it.
PLANS = {
    "quickstart": ("all", "check_quickstart", "verify"),
    "quickstart-comparison": ("all",),
    "mistral-7b": ("all", "lock_revisions"),
}


@pytest.mark.parametrize("experiment", PLANS)
@pytest.mark.slow
def test_every_command_of_a_rule_is_one_of_its_script(tmp_path, experiment):
    folder = copy_repository(tmp_path)
    unlock(folder)  # or lock_revisions would have nothing to ask for
    planned = planned_commands(folder, *PLANS[experiment], "--config", f"experiment={experiment}")
    assert {"sample_responses", "make_report"} <= {command.script for command in planned}
    if experiment == "mistral-7b":
        assert of(planned, "lock_revisions").arguments.count("--hub-model") >= 2
    for line in planned:
        command(line.script).make_context(line.script, list(line.arguments)).close()
