"""The workflow from another folder: with --directory, or imported by a workflow of one's own.

Code and experiments are the clone's; data, results and the lock of revisions the other folder's.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.own_data import RATINGS, TARGET, add_own_data, rated, row
from tests.support.snakemake_runs import command, copy_repository, environment, jobs_in

pytestmark = pytest.mark.slow

#: The quickstart with as little data as there can be, as a file of the other folder.
SMALL = {
    "extends": "quickstart",
    "world": {
        "helpsteer_rows": 60,
        "ultrafeedback_prompts": 40,
        "validation_prompts": 4,
        "unseen_prompts": 2,
        "pretraining_documents": 60,
        "sft_rows": 40,
    },
    "data": {"prompts_per_half": 8},
}
PROMPTS = "results/small/data/prompts/d1.jsonl"
IMPORTED = """
module dpa:
    snakefile: "{clone}/Snakefile"
    config: config
use rule * from dpa
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone that nobody may write to."""
    folder = copy_repository(tmp_path_factory.mktemp("clone"))
    before = state(folder)
    yield folder
    assert state(folder) == before


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(params=["directory", "module"])
def run(request, clone, tmp_path):
    """A function that runs Snakemake on the clone's workflow, and the folder that it works in."""
    work = tmp_path / "work"
    work.mkdir()
    start, given = work, []
    if request.param == "module":
        (work / "Snakefile").write_text(IMPORTED.format(clone=clone))
    else:
        start, given = tmp_path, ["-s", f"{clone}/Snakefile", "--directory", str(work)]

    def call(*arguments: str, **variables: str) -> str:
        done = subprocess.run(
            command(*given, *arguments), cwd=start, env={**environment(), **variables},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    call.work = work
    return call


@pytest.mark.parametrize("variables", [{}, {"PYTHONSAFEPATH": "1"}], ids=["", "safe path"])
def test_results_are_the_working_directorys(run, clone, variables):
    (run.work / "small.yaml").write_text(yaml.safe_dump(SMALL))
    # A folder of this name may not stand in for the clone's.
    (run.work / "scripts").mkdir()
    (run.work / "scripts/prepare_data.py").write_text("raise SystemExit('not this one')\n")
    target = ("--config", "experiment=small.yaml", "--", PROMPTS)
    planned = {"preflight": 1, "make_quickstart_data": 1, "prepare_data": 1}
    assert jobs_in(run("-n", *target, **variables)) == planned
    run("--cores", "1", *target, **variables)
    assert len((run.work / PROMPTS).read_text().splitlines()) == 8
    sidecar = json.loads((run.work / f"{PROMPTS}.meta.json").read_text())
    assert all(sidecar["inputs"].values())
    assert (run.work / "results/small/preflight.json").exists()
    assert (run.work / "results/.stamps/code/prepare_data").exists()
    assert jobs_in(run("-n", *target, **variables)) == {}
    assert [path.name for path in (clone / "results").iterdir()] == ["published"]


def test_a_relative_data_path_is_the_working_directorys(run, clone):
    add_own_data(run.work, rows=3)
    run("--cores", "1", "--config", "experiment=mine.yaml", "--", TARGET)
    assert rated(run.work) == ["Is it 0?", "Is it 1?", "Is it 2?"]
    with open(run.work / RATINGS, "a") as file:
        file.write(row(3))
    target = ("--config", "experiment=mine.yaml", "--", TARGET)
    assert jobs_in(run("-n", *target)) == {"prepare_data": 1}


def test_the_working_directorys_lock_counts(run, clone):
    commit = "a" * 40
    lock = {"models": {"org/sft": commit}, "datasets": {}}
    (run.work / "revisions.lock.yaml").write_text(yaml.safe_dump(lock))
    overlay = SMALL | {"sft": {"path": "org/sft", "revision": "locked"}}
    (run.work / "small.yaml").write_text(yaml.safe_dump(overlay))
    plan = run("-n", "-p", "--config", "experiment=small.yaml", "--", "dpa")
    assert set(re.findall(r"org/sft@(\S+)", plan)) == {commit}
