"""Preflight as the rule runs it: before anything else, and everything at once."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.support.hub_server import commit_of, hub_server
from tests.support.snakemake_runs import copy_repository, environment, snakemake

BASE = "someone/base"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("clone"))


@pytest.mark.slow
def test_all_that_is_missing_is_said_at_once_and_nothing_runs(clone, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    config = ("--config", "experiment=single-gpu", "allow_floating=true", "sampling={engine: vllm}")
    result = snakemake(
        clone, "--cores", "1", "--keep-going", "--show-failed-logs", *config, check=False
    )
    assert result.returncode != 0
    for line in ("base_model: HuggingFaceTB/SmolLM2-360M is not complete",
                 "sft: HuggingFaceTB/SmolLM2-360M-Instruct is not complete",
                 "nvidia/HelpSteer at 3ca5d59c1bc1080af195b4254e7407db60b6f450 is not in the cache",
                 "note: nvidia/HelpSteer: its commit in revisions.lock.yaml has not been compared",
                 "HF_HUB_OFFLINE forbids to ask the hub",
                 "torch sees no GPU here (Found no NVIDIA driver"):  # fmt: skip
        assert line in result.stdout
    logs = clone / "results/single-gpu/logs"
    assert not (logs / "prepare_data.log").exists()
    assert not (clone / "results/single-gpu/preflight.json").exists()


@pytest.mark.slow
def test_what_was_downloaded_passes_without_a_hub(clone, tmp_path, tiny_policy):
    """`download` where the hub is, then preflight where it is not."""
    overlay = {"extends": "quickstart",
               "sft": {"path": BASE, "revision": commit_of(BASE)}}  # fmt: skip
    (clone / "experiments/mine.yaml").write_text(yaml.safe_dump(overlay))

    def run(script, *arguments, **variables):
        return subprocess.run(
            [sys.executable, "-m", script, *arguments],
            cwd=clone, env={**environment(), **variables}, text=True, capture_output=True,
        )  # fmt: skip

    check = ("--cores", "1", "--show-failed-logs", "--forcerun", "preflight")
    check += ("--config", "experiment=mine")
    with hub_server({("models", BASE): tiny_policy}) as hub:
        here = hub.environment(tmp_path / "cache")
        reached = run("snakemake", "preflight", *check, **here)
        assert reached.returncode == 0, reached.stdout + reached.stderr
        assert not any(path.endswith("model.safetensors") for path in hub.requests)
        done = run("scripts.download", "--experiment", "mine", **here)
        assert done.returncode == 0, done.stderr
        assert any(path.endswith("model.safetensors") for path in hub.requests)
    offline = {**here, "HF_HUB_OFFLINE": "1"}
    passed = run("snakemake", "preflight", *check, **offline)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    report = json.loads((clone / "results/mine/preflight.json").read_text())
    assert {"files of sft", "template of sft", "context of sft"} <= set(report["passed"])
    elsewhere = run(
        "snakemake", "preflight", *check, **{**offline, "HF_HOME": str(tmp_path / "none")}
    )
    assert elsewhere.returncode != 0
    assert f"hf download {BASE} --revision {commit_of(BASE)}" in elsewhere.stdout + elsewhere.stderr
