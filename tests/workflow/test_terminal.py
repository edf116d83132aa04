"""What a run looks like: profiles/default and its logger, in a terminal and in a file.

On workflows of a few seconds; the logger knows nothing of the pipeline but its messages.
"""

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.snakemake_runs import ROOT, command, environment, snakemake

PLUGIN = "snakemake_logger_plugin_dpa"
#: A log's lines are those of `Progress`; number 1 fails where it is told to.
WORKFLOW = """
from snakemake.logging import logger

seconds, fails = config.get("seconds", 0), config.get("fails", "true")
onsuccess:
    logger.info("dpa: done", extra={"dpa": True})
rule all:
    default_target: True
    input: expand("out/{n}.txt", n=range(4))
rule count:
    output: "out/{n}.txt"
    log: "logs/{n}.log"
    message: "Counting to {wildcards.n}" + " and further" * 20
    params: fails=lambda wildcards: fails if wildcards.n == "1" else "true"
    shell: "(echo '[count] 1/3 steps, 33 %, 9 min left, loss 1'; sleep {seconds};"
           " {params.fails}; touch {output}) > {log} 2>&1"
"""
LINE = re.compile(r" +\d:\d\d  \d/5  .* \(\d+ s\)")
USING = "Using workflow specific profile profiles/default"
BAD = "echo '[count] reading'; echo '[count] error: mine.csv:3: no rating'; echo 'give one'; exit 2"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    for part in ("profiles", PLUGIN, "dpa/runtime"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "dpa/__init__.py", tmp_path / "dpa")
    return tmp_path


def in_a_file(folder: Path, *arguments: str, status: int = 0) -> list[str]:
    done = snakemake(folder, "--cores", "4", *arguments, check=False)
    assert done.returncode == status, done.stdout
    return done.stdout.splitlines()


def in_a_terminal(folder: Path, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    variables = {**environment(), "TERM": "xterm", "COLUMNS": "80"}
    run = subprocess.Popen(
        command("--cores", "4", *arguments), cwd=folder, env=variables, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    assert run.wait() == 0, output
    return output.decode()


def test_a_file_has_a_line_per_job_and_our_messages(folder):
    first, *lines, last = in_a_file(folder)
    assert first.startswith(USING)
    assert last == "dpa: done"
    assert len(lines) == 5
    assert all(LINE.fullmatch(line) and len(line) <= 98 for line in lines), lines
    assert "Counting to" in lines[0]
    assert lines[-1].split()[1:3] == ["5/5", "all"]
    assert in_a_file(folder)[1:] == [
        "Nothing to be done (all requested files are present and up to date)."
    ]


def test_a_failed_job_says_why_and_whether_it_is_started_again(folder):
    text = "\n".join(in_a_file(folder, "--config", f"fails={BAD}", "--retries", "1", status=1))
    said = "    [count] error: mine.csv:3: no rating\n    give one\n    log: logs/1.log\n"
    assert text.count("FAILED: Counting to 1") == 2
    assert text.count(said) == 2
    assert text.count("starting again: Counting to 1") == 1
    assert text.endswith("At least one job did not complete successfully.")
    assert "touch" not in text  # no shell command
    killed = "\n".join(in_a_file(folder, "--config", "fails=kill -9 $$", status=1))
    assert re.search(r"A job's command (returned non-zero exit status 137|died with .*9)", killed)


def test_a_terminal_shows_what_runs_in_one_line(folder):
    output = in_a_terminal(folder, "--config", "seconds=2")
    live = [part for part in re.split(r"[\r\n]+", output) if part.endswith("\x1b[K")]
    shown = [part.removesuffix("\x1b[K") for part in live if part != "\x1b[K"]
    assert shown
    assert all(len(part) < 80 for part in shown)
    assert any(part.endswith("…: 33 %, 9 min left (and 3 more)") for part in shown), shown
    # What stays, as a terminal would show it.
    lines = [line.split("\r")[-1].replace("\x1b[K", "") for line in output.split("\r\n")]
    assert [bool(LINE.fullmatch(line)) for line in lines if line][1:-1] == [True] * 5


@pytest.mark.parametrize("option", ["-n", "-p", "--quiet"])
def test_who_asks_for_details_gets_snakemakes_own(folder, option):
    lines = in_a_file(folder, option)
    assert "Job stats:" in lines or option == "--quiet"
    assert not any(map(LINE.fullmatch, lines))


def test_a_file_says_once_how_far_a_long_job_is(folder, monkeypatch):
    from snakemake.settings.types import OutputSettings

    monkeypatch.syspath_prepend(str(ROOT))
    import snakemake_logger_plugin_dpa as plugin

    monkeypatch.setattr(plugin, "LONG", 0.0)
    monkeypatch.chdir(folder)
    (folder / "logs").mkdir()
    log = folder / "logs/long.log"
    handler = plugin.LogHandler(OutputSettings(), None)
    handler.total, handler.waiting["count"] = 1, 1
    handler.running[1] = plugin.Job("count", "Counting", [log], time.monotonic(), time.time())
    said: list[str] = []
    monkeypatch.setattr(handler, "write", said.append)
    log.write_text("[count] reads\n")
    handler.announce()
    assert said == []
    log.write_text("[count] 1/3 steps, 33 %, 2 h 5 min left, 9 tokens/s\n")
    handler.announce()
    handler.announce()
    assert said == ["   0:00  0/1  Counting: 33 %, 2 h 5 min left"]


def test_time_left_is_by_rule_and_by_jobs_at_a_time():
    """Ten quick jobs and two slow ones, two at a time: what waits is told apart."""
    from snakemake.settings.types import OutputSettings

    sys.path.insert(0, str(ROOT))
    import snakemake_logger_plugin_dpa as plugin

    handler = plugin.LogHandler(OutputSettings(), None)
    handler.waiting.update(quick=4, slow=2)
    handler.took.update(quick=[1.0, 1.0], slow=[99.0, 99.0])
    assert handler.left(100.0) == pytest.approx((4 * 1 + 2 * 99) / 2)
    assert handler.left(9.0) is None  # too early


def test_other_profiles_keep_what_they_say(folder):
    """Here for slurm, whose profile is parsed together with the default one."""
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    script = (
        "from snakemake.cli import parse_args\n"
        "_, alone = parse_args(['--profile', 'slurm', '--workflow-profile', 'none'])\n"
        "_, both = parse_args(['--profile', 'slurm'])\n"
        "print(both.executor, *(k for k, v in vars(both).items() if str(v) != str(vars(alone)[k])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment(), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    executor, *changed = done.stdout.split()
    assert executor == "slurm"
    # Snakemake prints the address of an object in one of them.
    assert set(changed) - {"max_jobs_per_timespan", "default_resources"} == {
        "logger", "quiet", "workflow_profile"
    }  # fmt: skip


def test_only_what_is_asked_for_to_be_read_prints():
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    shells = re.findall(r"^ *rule (\w+):$|(tee {log})", rules, re.MULTILINE)
    named = [name for (name, _), (_, tee) in pairwise(shells) if name and tee]
    assert sorted(named) == ["check_quickstart", "verify"]
    assert rules.count("tee {log}") == 2


#: Of the programs that can get uv, those that a machine has and that do it.
MACHINES = {
    "pip": ["pip"],
    "Debian's pip, and pipx": ["pipx"],
    "neither": ["curl"],
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_readmes_line_gets_uv(tmp_path, machine):
    """With stand-ins for pip, pipx and curl on an otherwise empty path: those that may put uv into
    the user's own folder, where the line finds it."""
    [line] = re.findall(
        r"^export PATH=.*; command -v uv .*$", (ROOT / "README.md").read_text(), re.M
    )
    home, programs = tmp_path / "home", tmp_path / "bin"
    programs.mkdir()
    make = f"mkdir -p {home}/.local/bin && echo 'echo works' > {home}/.local/bin/uv"
    make += f" && chmod +x {home}/.local/bin/uv"
    for name in ("pip", "pipx", "curl"):
        does = make if name in MACHINES[machine] else "echo 'externally managed' >&2; exit 1"
        does = f'echo "{does}"' if (name, does) == ("curl", make) else does  # the installer's text
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    for name in ("sh", "mkdir", "chmod"):
        (programs / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        ["/bin/bash", "-c", f"{line}\nuv"], env={"HOME": str(home), "PATH": str(programs)},
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "works", done


@pytest.mark.skipif(shutil.which("uv") is None, reason="without uv")
def test_the_plugin_is_found_once_the_clone_is_installed(tmp_path):
    """As the README's line does it, without a download: `snakemake` has no clone on its path."""
    uv = {**os.environ, "VIRTUAL_ENV": str(tmp_path / "venv"), "UV_OFFLINE": "1"}
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    install = ["uv", "pip", "install", "-q", "--no-deps", "--editable", str(ROOT)]
    subprocess.run(install, env=uv, check=True)
    look = f"import pkgutil; print('{PLUGIN}' in [m.name for m in pkgutil.iter_modules()])"
    python = tmp_path / "venv/bin/python"
    found = subprocess.run([python, "-P", "-c", look], cwd=tmp_path, text=True, capture_output=True)
    assert found.stdout == "True\n", found.stderr
