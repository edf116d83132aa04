"""What methods cost, from sidecars and benchmark files made by hand."""

import json
import math

import pytest

from dpa.errors import InputError
from dpa.evaluation.costs import method_budget, method_cost, policy_bytes, stored_models


def sidecar(run, artefact, **content):
    path = run / f"{artefact}.meta.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def benchmark(run, name, seconds):
    path = run / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t-\n")


def loop(run, name, train):
    """An iteration of two shards: 300 tokens sampled, 9 of 10 responses scored, 40 trained."""
    for shard, tokens, scored in ((0, 100, 5), (1, 200, 4)):
        folder = f"{name}/iter1"
        sidecar(run, f"{folder}/sampled/{shard}.jsonl", responses=5, response_tokens=tokens)
        sidecar(run, f"{folder}/scored/{shard}.jsonl", rows=5, scored=scored)
        benchmark(run, f"sample_responses/{name}/iter1-{shard}", 1.0)
        benchmark(run, f"score_responses/{name}/iter1-{shard}", 2.0)
    sidecar(run, f"{name}/iter1/selected.jsonl", rows=4)
    benchmark(run, f"select_responses/{name}/iter1", 0.5)
    sidecar(run, f"{name}/iter1/policy", rows=4, steps=2, response_tokens=40)
    benchmark(run, f"{train}/{name}/iter1", 10.25)


@pytest.fixture
def run(tmp_path):
    loop(tmp_path, "dpa", "finetune_policy")
    sidecar(tmp_path, "dpa/iter0/policy", rows=3, response_tokens=30)
    benchmark(tmp_path, "train_initial_policy", 4.0)
    loop(tmp_path, "rsf/100_0", "finetune_policy")
    loop(tmp_path, "rsf/0_-100", "finetune_policy")
    sidecar(tmp_path, "ppo/100_0/policy", rows=8, steps=3, responses=24, response_tokens=480)
    benchmark(tmp_path, "train_ppo/100_0", 60.0)
    sidecar(tmp_path, "steerlm/policy", rows=6, response_tokens=70)
    sidecar(tmp_path, "steerlm/conditions.json", rows=99)
    benchmark(tmp_path, "train_steerlm", 7.5)
    return tmp_path


def test_a_loop_is_the_sum_of_its_iterations(run):
    # Seconds: 2 * (1 + 2) + 0.5 + 10.25 = 16.75, and 4 of iteration 0.
    assert method_cost(run, ["dpa"]) == (300, 9, 70, 20.75)
    assert method_cost(run, ["rsf/100_0"]) == (300, 9, 40, 16.75)


def test_feedback_is_a_cost(run):
    """Choosing, rating, retraining both members, and scoring the originals by them again."""
    for artefact, name, seconds in (
        ("iter1/to_rate.jsonl", "choose_samples_to_rate/iter1", 1.0),
        ("iter1/ratings.jsonl", "annotate_feedback/iter1", 2.0),
        ("iter2/reward_model/model", "retrain_reward_model/iter2", 4.0),
        ("iter2/reward_model/member1/model", "retrain_reward_model/member1/iter2", 8.0),
        ("iter2/annotations/0.jsonl", "annotate_replay/iter2-0", 16.0),
        ("iter2/annotations/member1/0.jsonl", "annotate_replay/member1/iter2-0", 32.0),
    ):
        sidecar(run, f"feedback/{artefact}", scored=3 if "annotations" in artefact else 0)
        benchmark(run, name, seconds)
    sidecar(run, "feedback/iter1/to_rate.csv", rows=2)  # the same for people
    assert method_cost(run, ["feedback/iter1", "feedback/iter2"]) == (0, 6, 0, 63)


def test_stages_add_up_and_count_once(run):
    assert method_cost(run, ["rsf/100_0", "rsf/0_-100"]) == (600, 18, 80, 33.5)
    assert method_cost(run, ["dpa", "dpa/iter0"]) == method_cost(run, ["dpa"])
    assert method_cost(run, ["dpa/iter0"]) == (0, 0, 30, 4)


def test_a_policy_that_samples_while_it_trains(run):
    assert method_cost(run, ["ppo/100_0"]) == (480, 24, 480, 60)


def test_directional_dpo_has_jobs_of_its_own(run):
    loop(run, "directional_dpo", "train_directional_dpo")
    (run / "directional_dpo/iter1/selected.jsonl.meta.json").unlink()
    sidecar(run, "directional_dpo/iter1/pairs.jsonl", rows=4)
    benchmark(run, "select_pairs/directional_dpo/iter1", 0.25)
    assert method_cost(run, ["directional_dpo"]) == (300, 9, 40, 16.5)


def test_rewards_in_context_has_jobs_of_its_own(run):
    loop(run, "ric", "train_ric")
    (run / "ric/iter1/selected.jsonl.meta.json").unlink()
    sidecar(run, "ric/iter1/kept.jsonl", rows=5)
    benchmark(run, "reject_responses/ric/iter1", 0.25)
    assert method_cost(run, ["steerlm", "ric/iter1"]) == (300, 9, 110, 24)
    # 9 samples' labels, and those of SteerLM's 6 originals.
    assert method_budget(run, ["steerlm", "ric/iter1"]) == (1, 10, 15)


def test_budgets_by_hand(run):
    # DPA: 10 responses, 9 labels, and the 3 originals of iteration 0.
    assert method_budget(run, ["dpa/iter0", "dpa/iter1"]) == (1, 10, 12)
    loop(run, "rsf/100_0", "finetune_policy")
    experts = ["rsf/100_0/iter1", "rsf/0_-100/iter1"]
    assert method_budget(run, experts) == (1, 20, 18)
    assert method_budget(run, ["steerlm"]) == (0, 0, 6)
    iterations, *responses_and_labels = method_budget(run, ["ppo/100_0"])
    assert math.isnan(iterations)  # it samples in every step
    assert responses_and_labels == [24, 24]
    sidecar(run, "dpo/policy", rows=5)
    assert method_budget(run, ["dpo"]) == (0, 0, 10)
    # Ratings of samples are labels too, and no iterations.
    sidecar(run, "feedback/iter1/ratings.jsonl", rated=7, asked=8)
    stages = ["dpa/iter0", "dpa/iter1", "feedback/iter1"]
    assert method_budget(run, stages) == (1, 10, 19)
    # From DPA's first pool: its samples, and its SteerLM, but an iteration of its own.
    pool = ["dpa/iter0", "dpa/iter1/sampled", "dpa/iter1/scored", "rsf/100_0/iter1"]
    assert method_budget(run, pool) == (1, 20, 21)
    assert all(map(math.isnan, method_budget(run, [])))


def test_files_that_are_not_counted_cost_nothing(run):
    assert method_cost(run, ["steerlm"]) == (0, 0, 70, 7.5)


def test_what_is_not_known_is_nan(run):
    (run / "benchmarks/train_steerlm.tsv").unlink()
    cost = method_cost(run, ["steerlm"])
    assert cost.tokens_trained == 70
    assert math.isnan(cost.seconds)
    sidecar(run, "steerlm/policy", rows=6)
    assert math.isnan(method_cost(run, ["steerlm"]).tokens_trained)
    assert all(map(math.isnan, method_cost(run, [])))


def test_errors_name_the_place(run):
    with pytest.raises(InputError, match=r"dpo.*--stages"):
        method_cost(run, ["dpo"])
    (run / "benchmarks/train_steerlm.tsv").write_text("seconds\n1\n")
    with pytest.raises(InputError, match=r"train_steerlm\.tsv"):
        method_cost(run, ["steerlm"])
    (run / "steerlm/policy.meta.json").write_text("{")
    with pytest.raises(InputError, match=r"policy\.meta\.json"):
        method_cost(run, ["steerlm"])


def test_stored_models():
    counts = {
        m: stored_models(m, 3, 10)
        for m in (
            "dpa",
            "directional_dpo",
            "online_dpo",
            "steerlm",
            "sft",
            "dpo",
            "reward_soup",
            "ppo",
            "rsf",
            "best_of_n_sft",
            "ric",
        )
    }
    assert counts == {
        "dpa": 1, "directional_dpo": 1, "online_dpo": 1, "steerlm": 1, "sft": 1, "dpo": 1,
        "reward_soup": 3, "ppo": 10, "rsf": 10, "best_of_n_sft": 1, "ric": 1,
    }  # fmt: skip


def test_bytes_of_a_policy(run):
    for iteration, size in ((0, 10), (1, 12)):
        folder = run / f"dpa/iter{iteration}/policy"
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * size)
        (folder / "tokenizer/t.json").write_bytes(b"{}")
    assert policy_bytes(run, ["dpa"]) == 14
    assert policy_bytes(run, ["dpa/iter0"]) == 12
    assert math.isnan(policy_bytes(run, []))
