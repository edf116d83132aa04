"""Rules under a hostile shell make the bytes that they make under a quiet one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dpa.runtime.run_environment import CLONE
from tests.support.finished_run import RUN, contents
from tests.support.hostile_environment import HOSTILE
from tests.support.snakemake_runs import copy_repository, snakemake

CONFIG = ("--config", "experiment=tiny")


@pytest.mark.slow
def test_a_hostile_shell_changes_no_byte_of_a_training(finished_run, tmp_path, monkeypatch):
    copy_repository(tmp_path)
    shutil.copy(finished_run.folder / "experiments/tiny.yaml", tmp_path / "experiments")
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    made = RUN / "base_model"
    said = snakemake(tmp_path, "--cores", "1", str(made), *CONFIG).stdout
    assert said.count("ignored from the outer environment: ACCELERATE_") == 1
    (tmp_path / made / ".snakemake_timestamp").unlink()
    assert contents(tmp_path / made) == contents(finished_run.folder / made)


def figures(folder: Path, **environment: str) -> dict[str, bytes]:
    """What plot_reward_model draws in a folder."""
    metrics = {"attribute": ["a"], "n": [4], "pearson": [0.5], "spearman": [0.5], "rmse": [9.0]}
    ranking = {"attribute": ["a"], "prompts": [2], "spearman_within_prompt": [0.5]}
    predictions = {"attribute": "a", "prompt": 0, "label": [10.0, 50.0], "predicted": [20.0, 40.0]}
    pd.DataFrame(metrics).to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(ranking | {"pairwise_accuracy": [0.7]}).to_csv(folder / "ranking.csv", index=False)
    pd.DataFrame(predictions).to_parquet(folder / "predictions.parquet")
    subprocess.run(
        [
            sys.executable, "-m", "scripts.plot_reward_model", "--experiment", "x",
            "--predictions", "predictions.parquet", "--metrics", "metrics.csv",
            "--ranking", "ranking.csv", "--output-figures", "figures", "--output-tables", "tables",
        ],
        check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(CLONE)} | environment,
    )  # fmt: skip
    return contents(folder / "figures")


@pytest.mark.slow
def test_a_users_matplotlib_changes_no_figure(tmp_path):
    quiet, hostile = tmp_path / "quiet", tmp_path / "hostile"
    for folder in (quiet, hostile):
        folder.mkdir()
    (hostile / "matplotlibrc").write_text(
        "figure.facecolor: black\nfont.size: 30\nsavefig.bbox: tight\nbackend: nonsense\n"
        "axes.prop_cycle: cycler('color', ['red'])\nno colon\npdf.compression: 0\n"
    )
    assert figures(quiet) == figures(hostile, **HOSTILE, MPLCONFIGDIR=str(hostile))
