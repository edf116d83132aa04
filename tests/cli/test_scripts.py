"""All command lines: help is fast and complete, importing has no effects, errors are messages."""

import os
import re
import subprocess
import sys
import time

import pytest

from dpa.runtime.run_environment import CLONE
from tests.support.script_processes import processes

SCRIPTS = sorted(p.stem for p in (CLONE / "scripts").glob("*.py") if not p.stem.startswith("__"))
#: Rules that share a script with another rule of its name.
SHARED = {
    "train_initial_policy": "train_steerlm",
    "train_directional_dpo": "train_dpo",
    "train_ric": "train_steerlm",
    "score_evaluation": "score_responses",
    "score_candidates": "score_responses",
    "sample_candidates": "sample_evaluation",
    "retrain_reward_model": "train_reward_model",
    "annotate_replay": "annotate_responses",
    "train_judge": "train_reward_model",
}


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *arguments],
        cwd=CLONE, capture_output=True, text=True,
    )  # fmt: skip


#: Light packages that scripts import first.
LIGHT = ("typer", "pydantic", "yaml", "msgspec")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_light(script, tmp_path):
    start = time.perf_counter()
    done = processes(LIGHT).run(script, ["--help"], tmp_path)
    assert done.code == 0, done.output
    heavy = {"torch", "transformers", "trl", "datasets", "pandas", "vllm", "numpy"}
    assert heavy & done.imported == set()
    assert "Usage:" in done.output
    assert time.perf_counter() - start < 5  # a loaded machine; benchmarks measure it properly


@pytest.mark.parametrize("script", SCRIPTS)
def test_docstring_names_rule_example_and_command(script):
    text = (CLONE / f"scripts/{script}.py").read_text()
    docstring = text.split('"""')[1]
    assert re.search(r"[Rr]ules?:|[Cc]alling rule|No rule", docstring), docstring
    assert f"python -m scripts.{script}" in docstring


def test_commands_by_name_are_the_scripts(tmp_path):
    from scripts.__main__ import COMMANDS

    assert set(COMMANDS.values()) <= set(SCRIPTS)
    listed = processes(LIGHT).run("__main__", ["--help"], tmp_path)
    assert listed.code == 0, listed.output
    assert not [name for name in listed.imported if name in ("torch", "pandas", "numpy")]
    for name, script in COMMANDS.items():
        docstring = (CLONE / f"scripts/{script}.py").read_text().split('"""')[1]
        summary = " ".join(re.sub("│", " ", listed.output).split())
        assert f"{name} {docstring.partition(chr(10))[0]}" in summary
    asked = run("__main__", "verify", "--help")
    assert "--results" in asked.stdout, asked.stderr
    wrong = run("__main__", "verfy")
    assert wrong.returncode == 2
    assert "Did you mean 'verify'?" in wrong.stderr


def rules_of(paths):
    return {
        name
        for path in paths
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
    }


def test_every_benchmark_rule_has_its_module():
    rules = rules_of([CLONE / "rules/benchmarks.smk"])
    assert rules
    assert rules <= {path.stem for path in (CLONE / "benchmarks").glob("*.py")}


def test_every_rule_has_its_script():
    rules = rules_of(set((CLONE / "rules").glob("*.smk")) - {CLONE / "rules/benchmarks.smk"})
    assert {SHARED.get(rule, rule) for rule in rules} <= set(SCRIPTS)
    # And what starts the launcher of trainings on several GPUs.
    people = {
        "hold_gpus", "chat", "download", "compare_runs", "plan_run", "write_config_schema",
        "export_policy", "fit_direction", "dial", "new_experiment",
    }  # fmt: skip
    assert set(SCRIPTS) - {SHARED.get(rule, rule) for rule in rules} == people


def test_errors_are_one_message(tmp_path):
    result = run(
        "select_responses", "--scored", str(tmp_path / "none.jsonl"), "--prompts",
        str(tmp_path / "none.jsonl"), "--annotations", str(tmp_path / "none.jsonl"),
        "--iteration", "1", "--seed", "0", "--directions", '{"distribution": "arcc"}',
        "--directions-per-prompt", "5", "--responses-per-direction", "16",
        "--replay-fraction", "0.15", "--output", str(tmp_path / "out.jsonl"),
    )  # fmt: skip
    assert result.returncode == 2
    assert "--directions" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("library", ["huggingface_hub", "datasets"])
def test_a_librarys_line_is_there_once(tmp_path, library):
    """These add a handler of their own to the one that all lines go to."""
    script = tmp_path / "warns.py"
    script.write_text(
        "from dpa.runtime.cli import make_app, run_app\n"
        "app = make_app()\n"
        "@app.command()\n"
        "def main() -> None:\n"
        f"    from {library}.utils import logging\n"
        f"    logging.get_logger('{library}.http').warning('Retrying in 1s')\n"
        "run_app(app)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CLONE)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout + done.stderr).count("Retrying in 1s") == 1
