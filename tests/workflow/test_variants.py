"""benchmarks.compare_variants: what a variant changes is made anew, and nothing else or twice."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from benchmarks.compare_variants import VARIANTS, chain_of, markdown_table
from dpa.errors import InputError
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge
from tests.support.snakemake_runs import MINI

SMALL = {"dpa": {"iterations": 1, "replay_fraction": 0.5}, "evaluation": {"directions": 2}}


@pytest.mark.slow
def test_variants_start_from_the_plain_run(tmp_path):
    runs = tmp_path / "runs"
    sizes = {k: v for k, v in merge(yaml.safe_load(MINI), SMALL).items() if k != "extends"}

    def run() -> str:
        command = [sys.executable, "-m", "benchmarks.compare_variants", "run", "replay-plain"]
        command += ["--runs", str(runs), "--seeds", "3", "--override", json.dumps(sizes)]
        return subprocess.run(command, cwd=CLONE, check=True, text=True, capture_output=True).stdout

    def model(variant: str, stage: str):
        return runs / f"3/{variant}/results/quickstart/seed3/{stage}/model.safetensors"

    def numbers(variant: str) -> dict[str, float]:
        return json.loads((runs / f"3/{variant}/done.json").read_bytes())

    assert "replay-plain, seed 3" in run()
    first = numbers("replay-plain")
    # Stopped when the policy was being made anew: what came of the old one is still there.
    folder = runs / "3/replay-plain"
    (folder / "done.json").unlink()
    shutil.rmtree(folder / "results/quickstart/seed3/dpa/iter1/policy")
    assert "replay-plain, seed 3" in run()
    assert (folder / "results/quickstart/seed3/dpa/iter1/policy").exists()
    assert numbers("replay-plain")["gold t=1"] == first["gold t=1"]
    for stage, same in (("reward_model/model", True), ("dpa/iter1/policy", False)):
        plain, variant = model("plain", stage), model("replay-plain", stage)
        assert (plain.stat().st_mtime == variant.stat().st_mtime) is same
        assert (plain.read_bytes() == variant.read_bytes()) is same
    plain, variant = (
        json.loads((runs / f"3/{v}/done.json").read_bytes()) for v in ("plain", "replay-plain")
    )
    assert variant["gold t=1"] != plain["gold t=1"]
    assert 0 < variant["minutes"] < plain["minutes"]
    assert run() == "", "what is done was done again"

    # A copy that was cut short, and a run that was killed before its end.
    shutil.move(runs / "3/replay-plain", runs / "3/replay-plain.partial")
    assert "plain, seed 3" in run()
    assert (
        json.loads((runs / "3/replay-plain/done.json").read_bytes())["gold t=1"]
        == variant["gold t=1"]
    )


def test_gains_are_over_the_same_seeds():
    columns = ["variant", "seed", "r t=4", "gold t=4", "gold hypervolume"]
    rows = [("plain", 1, 50, 40, 9), ("plain", 2, 50, 50, 9), ("min", 2, 50, 52, 12)]
    *_, plain, variant = markdown_table(pd.DataFrame(rows, columns=columns)).splitlines()
    assert plain == "| plain | 2 | 50.0 | 45.0 ± 5.0 | 9.0 |  |  |  |"
    assert variant == "| min | 1 | 50.0 | 52.0 | 12.0 | 2.0 | 3.0 | 1 of 1 |"


def test_what_a_variant_starts_from_comes_first():
    assert chain_of("feedback-all") == ["plain", "feedback", "feedback-all"]
    assert all(chain_of(name)[0] == "plain" for name in VARIANTS)
    with pytest.raises(InputError, match="no such variant"):
        chain_of("feedbak")
