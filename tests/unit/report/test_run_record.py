"""provenance.json of a small experiment, by hand."""

import pytest

from dpa.artefacts.outputs import write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.report.run_record import kind_of, run_record
from dpa.runtime.run_environment import RunEnvironment

COMMIT = "a" * 40


def row_counts(read: int, **dropped: int) -> RowCounts:
    counted = RowCounts()
    counted.read = read
    for reason, number in dropped.items():
        for _ in range(number):
            counted.drop(reason)
    return counted


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("data/ratings.jsonl", "data/ratings.jsonl"),
        ("seed12/annotations/3.jsonl", "annotations/*.jsonl"),
        ("dpa/iter4/policy", "dpa/iter*/policy"),
        ("seed1/rsf/0_-100/iter3/scored/7.jsonl", "rsf/*/iter*/scored/*.jsonl"),
        ("ppo/100_0/history.csv", "ppo/*/history.csv"),
        ("evaluation/sampled/dpa-0.jsonl", "evaluation/sampled/*.jsonl"),
        ("evaluation/scored_by/judge/dpa-0.jsonl", "evaluation/scored_by/judge/*.jsonl"),
        ("rewardbench/judged/dpo.jsonl", "rewardbench/judged/*.jsonl"),
    ],
)
def test_kinds(path, kind):
    assert kind_of(path) == kind


def test_sums_over_shards_iterations_and_seeds(tmp_path, monkeypatch):
    for name in ("DPA_CONFIG_HASH", "DPA_BASE_SEED", "DPA_COMMITS", "DPA_TRUST_REMOTE_CODE",
                 "DPA_MAX_DROPPED_FRACTION", "DPA_MAX_TRUNCATED_FRACTION"):  # fmt: skip
        monkeypatch.setenv(name, "")
    RunEnvironment(config_hash="abc", base_seed="0 1", commits={"org/base": COMMIT}).announce()

    def artefact(path, counted=None, inputs=(), stage="sample_responses", **details):
        monkeypatch.setattr("sys.argv", [f"scripts/{stage}.py"])
        write_text(tmp_path / path, path)
        write_sidecar(tmp_path / path, inputs, counted, **details)

    for seed in (0, 1):
        for shard in (0, 1):
            artefact(
                f"seed{seed}/dpa/iter1/sampled/{shard}.csv", row_counts(5, long=shard),
                ["org/base", f"org/prompts@{COMMIT}"], truncated=2,
            )  # fmt: skip
        replay = {"read": 3, "kept": 2, "dropped": {"none": 1}}
        artefact(f"seed{seed}/dpa/iter1/selected.csv", row_counts(8), stage="select", replay=replay)
    artefact("tables/one.csv", row_counts(4), stage="table")
    artefact("tables/one.md", row_counts(4), stage="table", counted_in="one.csv")
    artefact("notes.txt", stage="stray")
    write_text(tmp_path / "seed0/logs/one.log", "")
    found = run_record(tmp_path, "mine", "abc", [0, 1])
    for shard, counts in enumerate(
        [{"read": 10, "kept": 10, "dropped": {}}, {"read": 10, "kept": 8, "dropped": {"long": 2}}]
    ):
        kind = found["stages"]["sample_responses"][f"dpa/iter*/sampled/{shard}.csv"]
        assert kind == {"artefacts": 2, "counts": {"rows": counts}, "truncated": 4}
    assert found["stages"]["select"]["dpa/iter*/selected.csv"]["counts"] == {
        "rows": {"read": 16, "kept": 16, "dropped": {}},
        "replay": {"read": 6, "kept": 4, "dropped": {"none": 2}},
    }
    assert found["stages"]["table"]["tables/one.md"] == {"artefacts": 1, "counts": {}}
    # 20 prompts, 16 of them selected among, 6 for replay, 4 of a table that is written twice.
    assert found["total"] == {
        "read": 20 + 16 + 6 + 4,
        "kept": 18 + 16 + 4 + 4,
        "dropped": {"long": 2, "none": 2},
    }
    assert found["without_counts"] == ["stray"]
    assert found["commits"] == {"org/base": COMMIT, "org/prompts": COMMIT}
    assert found["made_by"]["config_hashes"] == ["abc"]
    assert len(found["artefacts"]) == 9
