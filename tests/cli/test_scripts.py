"""All command lines: help is fast and complete, importing has no effects, errors are messages."""

import re
import subprocess
import sys
import time

import pytest

from dpa.config.load import ROOT

SCRIPTS = sorted(p.stem for p in (ROOT / "scripts").glob("*.py") if p.stem != "__init__")
#: Rules that share a script with another rule of its name.
SHARED = {"train_initial_policy": "train_steerlm", "train_directional_dpo": "train_dpo"}


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *arguments],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_light(script):
    start = time.perf_counter()
    code = (
        "import sys, typer.testing\n"
        f"from scripts.{script} import app\n"
        "result = typer.testing.CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'pandas', 'vllm', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert time.perf_counter() - start < 5  # a loaded machine; benchmarks measure it properly


@pytest.mark.parametrize("script", SCRIPTS)
def test_docstring_names_rule_example_and_command(script):
    text = (ROOT / f"scripts/{script}.py").read_text()
    docstring = text.split('"""')[1]
    assert re.search(r"[Rr]ules?:|[Cc]alling rule|No rule", docstring), docstring
    assert f"python -m scripts.{script}" in docstring


def rules_of(paths):
    return {
        name
        for path in paths
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
    }


def test_every_benchmark_rule_has_its_module():
    rules = rules_of([ROOT / "rules/benchmarks.smk"])
    assert rules
    assert rules <= {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


def test_every_rule_has_its_script():
    rules = rules_of(set((ROOT / "rules").glob("*.smk")) - {ROOT / "rules/benchmarks.smk"})
    assert {SHARED.get(rule, rule) for rule in rules} <= set(SCRIPTS)
    people = {"chat", "download", "plan_run"}
    assert set(SCRIPTS) - {SHARED.get(rule, rule) for rule in rules} == people


def test_errors_are_one_message(tmp_path):
    result = run(
        "select_responses", "--scored", str(tmp_path / "none.jsonl"), "--prompts",
        str(tmp_path / "none.jsonl"), "--annotations", str(tmp_path / "none.jsonl"),
        "--iteration", "1", "--seed", "0", "--directions", '{"law": "arcc"}',
        "--directions-per-prompt", "5", "--responses-per-direction", "16",
        "--replay-fraction", "0.15", "--output", str(tmp_path / "out.jsonl"),
    )  # fmt: skip
    assert result.returncode == 2
    assert "--directions" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
