"""Experiments at once in one folder, with difficult names, whose results lie on another disk."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.own_data import add_own_data, row
from tests.support.snakemake_runs import command, copy_repository, environment, jobs_in

pytestmark = pytest.mark.slow

NAMES = ("eins", "zwei")


def target(name: str) -> str:
    return f"results/{name}/data/ratings.jsonl"


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen:
    """A run of an experiment's first stage."""
    config = ("--cores", "1", "--config", f"experiment={name}.yaml", "--", target(name))
    return subprocess.Popen(
        command(*arguments, *config), cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_experiments_do_not_disturb_each_other(tmp_path):
    folder = tmp_path / "Über uns, 2. Versuch"
    folder.mkdir()
    copy_repository(folder)
    disk = tmp_path / "große Platte"
    (folder / "results").rename(disk)
    (folder / "results").symlink_to(disk)
    add_own_data(folder)
    experiment = yaml.safe_load((folder / "mine.yaml").read_text())
    for number, name in enumerate(NAMES, 1):
        data = f"Daten für {name}.jsonl"
        (folder / data).write_text("".join(map(row, range(4 * number))))
        experiment["data"]["ratings"][0]["train"]["path"] = data
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(experiment, allow_unicode=True))
    runs = {name: start(folder, name) for name in NAMES}
    said = {name: run.communicate(timeout=600)[0] for name, run in runs.items()}
    assert {name: run.returncode for name, run in runs.items()} == dict.fromkeys(NAMES, 0), said

    for number, name in enumerate(NAMES, 1):
        prompts = [json.loads(line)["prompt"] for line in (folder / target(name)).open()]
        assert prompts == [f"Is it {n}?" for n in range(4 * number)]
        sidecar = json.loads((disk / name / "data/ratings.jsonl.meta.json").read_text())
        assert sidecar["records"] == len(prompts)
        assert all(sidecar["inputs"].values())
    assert (folder / "results").is_symlink()

    # Sources and data that were touched, as a checkout does, rerun nothing.
    for path in (*(folder / "dpa").rglob("*.py"), *folder.glob("*.jsonl")):
        os.utime(path)
    again = start(folder, "zwei", "-n").communicate(timeout=600)[0]
    assert jobs_in(again) == {}, again
