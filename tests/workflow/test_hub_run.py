"""The quickstart's world as hub repositories: locked, downloaded and run to a figure.

The hub is a stand-in on loopback. Data sets and the base model go through the same configuration,
lock, download and cache as those of the paper's experiments; three objectives, BeaverTails among
them, as in gemma-2b-harmless.
"""

import json
import os

import pytest
import yaml

from dpa.config.revisions import read_lock
from dpa.quickstart.world import WorldSizes, build_world
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge
from tests.support.hub_files import (
    BEAVERTAILS,
    BINARIZED,
    HELPSTEER,
    ULTRACHAT,
    ULTRAFEEDBACK,
    beavertails_row,
    write_beavertails,
    write_binarized,
    write_helpsteer,
    write_ultrachat,
    write_ultrafeedback,
)
from tests.support.hub_server import commit_of, hub_server
from tests.support.snakemake_runs import MINI, copy_repository, snakemake, unlock

pytestmark = pytest.mark.slow

BASE_MODEL = "org/tiny-base"
SIZES = WorldSizes(
    helpsteer_rows=120,
    helpsteer_validation_rows=20,
    ultrafeedback_prompts=30,
    validation_prompts=6,
    pretraining_documents=1,
    sft_rows=40,
)


def hub(name: str, split: str) -> dict[str, str]:
    return {"path": name, "revision": "locked", "split": split}


#: What differs from the paper's experiments is size; every name in it is a hub id.
OVERLAY = {
    "world": None,
    "shards": 1,
    "objectives": [
        {"name": "helpfulness", "outputs": {"ultrafeedback-helpfulness": 1.0}},
        {"name": "verbosity", "outputs": {"helpsteer-verbosity": 1.0}},
        {"name": "harmlessness", "outputs": {"beavertails-is_safe": 1.0}},
    ],
    "directions": {"distribution": "wedge", "from_degrees": -45.0, "to_degrees": 45.0},
    "scalar_direction": [1.0, 0.0, 0.0],
    "methods": ["dpa"],
    "data": {
        "ratings": [
            {
                "name": "helpsteer",
                "format": "helpsteer",
                "train": hub(HELPSTEER, "train"),
                "validation": hub(HELPSTEER, "validation"),
            },
            {
                "name": "ultrafeedback",
                "format": "ultrafeedback",
                "train": hub(ULTRAFEEDBACK, "train"),
            },
            {
                "name": "beavertails",
                "format": "beavertails",
                "train": hub(BEAVERTAILS, "30k_train"),
            },
        ],
        "train_prompts": [hub(BINARIZED, "train_prefs")],
        "validation_prompts": [hub(BINARIZED, "test_prefs[:4]")],
        "unseen_prompts": [],
        "sft": [hub(ULTRACHAT, "train_sft")],
        "pretraining": [],
        "prompts_per_half": 6,
    },
    "base_model": {"path": BASE_MODEL, "revision": "locked"},
    "reward_model": {
        "attributes": [
            "helpsteer-helpfulness",
            "helpsteer-correctness",
            "helpsteer-coherence",
            "helpsteer-complexity",
            "helpsteer-verbosity",
            "ultrafeedback-overall_score",
            "ultrafeedback-instruction_following",
            "ultrafeedback-truthfulness",
            "ultrafeedback-honesty",
            "ultrafeedback-helpfulness",
            "beavertails-is_safe",
        ],
    },
    "dpa": {"iterations": 1},
    "evaluation": {"gold": None, "hypervolume_reference": [0.0, 100.0, 0.0]},
}


@pytest.fixture
def repositories(tmp_path, tiny_policy):
    """The world's files in the layouts of the hub, and a base model."""
    world = build_world(0, SIZES)

    def folder(name):
        path = tmp_path / "repositories" / name
        path.mkdir(parents=True)
        return path

    truth = {**world["ultrafeedback.jsonl"][0], "source": "truthful_qa", "instruction": "True?"}
    judgements = [
        beavertails_row(f"How do I steal {n} cars?", answer, safe)
        for n in range(12)
        for answer, safe in (("I will not say.", True), ("Break in.", False), ("Break in.", n > 6))
    ]
    binarized = {  # the hub's have no clusters
        split: [
            {name: value for name, value in row.items() if name != "cluster"}
            for row in world[f"ultrafeedback_binarized/{split}.jsonl"]
        ]
        for split in ("train_prefs", "test_prefs")
    }
    return {
        ("datasets", HELPSTEER): write_helpsteer(
            folder("helpsteer"), world["helpsteer/train.jsonl"], world["helpsteer/validation.jsonl"]
        ),
        ("datasets", ULTRAFEEDBACK): write_ultrafeedback(
            folder("ultrafeedback"), [*world["ultrafeedback.jsonl"], truth]
        ),
        ("datasets", BINARIZED): write_binarized(folder("binarized"), **binarized),
        ("datasets", BEAVERTAILS): write_beavertails(
            folder("beavertails"), "30k", judgements, judgements[:3]
        ),
        ("datasets", ULTRACHAT): write_ultrachat(
            folder("ultrachat"), train_sft=world["ultrachat.jsonl"]
        ),
        ("models", BASE_MODEL): tiny_policy,
    }


def test_from_hub_repositories_to_a_figure(tmp_path, repositories, monkeypatch):
    clone = tmp_path / "clone"
    clone.mkdir()
    copy_repository(clone)
    unlock(clone)
    quickstart = yaml.safe_load((CLONE / "experiments/quickstart.yaml").read_text())
    experiment = merge(merge(quickstart, yaml.safe_load(MINI)), OVERLAY)
    (clone / "experiments/from-hub.yaml").write_text(yaml.safe_dump(experiment))
    config = ("--config", "experiment=from-hub")
    with hub_server(repositories) as found:
        for key, value in found.environment(tmp_path / "cache").items():
            monkeypatch.setenv(key, value)
        refused = snakemake(clone, "--cores", "1", "figures", *config, check=False)
        assert "lock_revisions --config experiment=from-hub" in refused.stdout
        assert not found.requests
        snakemake(clone, "--cores", "1", "lock_revisions", *config)
        snakemake(clone, "--cores", str(os.cpu_count()), "figures", *config)
        # Nothing but the locked commits was downloaded.
        files = [path for path in found.requests if "/resolve/" in path]
    lock = read_lock(clone / "revisions.lock.yaml")
    commits = {*lock.datasets.values(), *lock.models.values()}
    assert {path.partition("/resolve/")[2].partition("/")[0] for path in files} == commits
    assert lock.models == {BASE_MODEL: commit_of(BASE_MODEL)}
    results = clone / "results/from-hub"
    assert (results / "figures/figure4.png").stat().st_size > 5000
    counts = json.loads((results / "data/ratings.jsonl.meta.json").read_text())["data_sets"]
    assert counts["ultrafeedback"]["dropped"] == {"source truthful_qa": 4}
    assert counts["beavertails"]["notes"]["responses with 2 judgements"] == 12
    selected = [
        json.loads(line) for line in (results / "dpa/iter1/selected.jsonl").read_text().splitlines()
    ]
    assert all(len(row["rewards"]) == len(row["direction"]) == 3 for row in selected)
    # Sidecars say which commits an artefact was made from.
    inputs = json.loads((results / "sft/policy.meta.json").read_text())["inputs"]
    assert inputs[BASE_MODEL] == commit_of(BASE_MODEL)
    assert f"{ULTRACHAT}@{commit_of(ULTRACHAT)}" in inputs
