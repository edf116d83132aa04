"""Stages, policies and targets of two experiments, written down by hand."""

import json
from types import SimpleNamespace

import pytest

from dpa.config.load import load_config
from dpa.plan.stages import stage_jobs
from dpa.workflow.adapters import Adapters
from dpa.workflow.layout import Layout, files_of, loops_trained_by, shard_files
from dpa.workflow.stamps import Stamps

SCORED = "evaluation/scored_by/reward_model"
DPA = [f"dpa/iter{t}" for t in range(5)]
RIC = [f"ric/iter{t}" for t in (1, 2, 3, 4)]
DIRECTIONAL = [f"directional_dpo/iter{t}" for t in (1, 2, 3)]


@pytest.fixture(scope="module")
def quickstart():
    return Layout(load_config({"experiment": "quickstart"}))


@pytest.fixture(scope="module")
def comparison():
    return Layout(load_config({"experiment": "quickstart-comparison"}))


def test_stages_of_the_quickstart(quickstart):
    assert quickstart.method_stages() == {
        "dpa": DPA, "sft": ["sft"], "steerlm": ["steerlm"], "dpo": ["dpo"]
    }  # fmt: skip
    assert quickstart.trained_stages() == [*DPA, "sft", "steerlm", "dpo"]


def test_stages_of_the_comparison(comparison):
    assert comparison.soup_experts() == ["rsf/100_0/iter4", "rsf/0_-100/iter4"]
    assert comparison.method_stages() == {
        "dpa": DPA,
        "sft": ["sft"],
        "steerlm": ["steerlm"],
        "dpo": ["dpo"],
        "ppo": ["ppo/100_0"],
        "rsf": [f"rsf/100_0/iter{t}" for t in (1, 2, 3, 4)],
        "reward_soup": [
            f"rsf/{name}/iter{t}" for name in ("100_0", "0_-100") for t in (1, 2, 3, 4)
        ],
        "directional_dpo": [*DPA[:2], *DIRECTIONAL],
        "ric": ["steerlm", *RIC],
        "online_dpo": ["online_dpo"],
        # Best of n costs what the policy did that it samples.
        "best_of_n_sft": ["sft"],
        "best_of_n_steerlm": ["steerlm"],
    }
    # Reward Soup's first expert is RSF's, and Directional DPO starts from DPA's.
    assert comparison.trained_stages() == [
        *DPA, "sft", "steerlm", "dpo", "ppo/100_0",
        *(f"rsf/{name}/iter{t}" for name in ("100_0", "0_-100") for t in (1, 2, 3, 4)),
        *DIRECTIONAL, *RIC, "online_dpo",
    ]  # fmt: skip


def test_policies(quickstart, comparison):
    dpa = [f"dpa-{t}" for t in range(5)]
    assert quickstart.policies() == [*dpa, "sft", "steerlm", "dpo"]
    assert comparison.policies() == [
        *dpa, "sft", "steerlm", "dpo", "ppo", "rsf", "reward_soup",
        *(f"directional_dpo-{t}" for t in (1, 2, 3)), *(f"ric-{t}" for t in (1, 2, 3, 4)),
        "online_dpo", "best_of_n_sft", "best_of_n_steerlm",
    ]  # fmt: skip
    assert [p for p in comparison.policies() if comparison.takes_conditions(p)] == [
        "dpa-0", "steerlm"
    ]  # fmt: skip
    assert [p for p in comparison.policies() if comparison.takes_directions(p)] == [
        *dpa[1:], *(f"directional_dpo-{t}" for t in (1, 2, 3)),
        *(f"ric-{t}" for t in (1, 2, 3, 4)), "online_dpo", "best_of_n_steerlm",
    ]  # fmt: skip
    assert [comparison.reads_ranges(p) for p in ("ric-1", "best_of_n_steerlm")] == [True, False]
    chosen = {p: comparison.sampled_policy(p) for p in ("dpa-2", "best_of_n_sft")}
    assert chosen == {"dpa-2": "dpa-2", "best_of_n_sft": "sft"}
    assert comparison.samples_per_answer("best_of_n_steerlm") == 16
    assert comparison.last_policies(["directional_dpo", "dpa", "ppo"]) == [
        "directional_dpo-3", "dpa-4", "ppo"
    ]  # fmt: skip
    made = {p: comparison.stage_of_policy(p) for p in ("dpa-2", "rsf", "ppo", "sft")}
    assert made == {
        "dpa-2": "dpa/iter2", "rsf": "rsf/100_0/iter4", "ppo": "ppo/100_0", "sft": "sft"
    }  # fmt: skip


def test_targets_of_the_quickstart(quickstart):
    results = "results/quickstart"
    expected = {
        "reward_model": ["reward_model/metrics.csv", "reward_model/ranking.csv"],
        "dpa": [f"{stage}/policy" for stage in DPA],
        "baselines": [f"{SCORED}/{name}.jsonl" for name in ("sft", "steerlm", "dpo")],
        "alpacaeval": ["alpacaeval/results.csv"],
        "rewardbench": ["rewardbench/reward_model_accuracy.csv", "rewardbench/win_rates.csv"],
        "report": ["report.html"],
        "provenance": ["provenance.json"],
        "figures": [
            f"figures/{name}.{kind}"
            for name in ("figure1", "figure4", "figure5", "overoptimisation", "response_length",
                         "reward_against_length", "training_curves", "costs", "reward_model")
            for kind in ("pdf", "svg", "png")
        ],
        "tables": [
            f"tables/{name}.{kind}"
            for name in ("figure1", "table1", "comparison", "table2", "rewardbench_reward_model",
                         "costs", "reward_model")
            for kind in ("csv", "md", "tex")
        ],
    }  # fmt: skip
    for name, files in expected.items():
        assert quickstart.targets(name) == [f"{results}/{file}" for file in files], name
    with pytest.raises(ValueError, match="no target 'tabels'"):
        quickstart.targets("tabels")


def test_targets_of_the_comparison(comparison):
    others = ("sft", "steerlm", "dpo", "ppo", "rsf", "reward_soup",
              *(f"directional_dpo-{t}" for t in (1, 2, 3)), *(f"ric-{t}" for t in (1, 2, 3, 4)),
              "online_dpo", "best_of_n_sft", "best_of_n_steerlm")  # fmt: skip
    assert comparison.targets("baselines") == [
        f"results/quickstart-comparison/{SCORED}/{name}.jsonl" for name in others
    ]
    assert comparison.online_histories() == [
        "results/quickstart-comparison/ppo/100_0/history.csv",
        "results/quickstart-comparison/online_dpo/history.csv",
    ]
    assert "policy_gradient" in comparison.figure_names()


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"methods": ["dpa", "ppo", "rsf", "reward_soup", "directional_dpo"]},
        {"methods": ["dpa"], "sft": {"path": "mine"}, "reward_model": {"path": "mine"},
         "feedback": {"annotator": {"kind": "gold"}}},
        {"methods": ["sft"], "sft": {"path": "mine"}, "reward_model": {"path": "mine"}},
        {"reward_model": {"members": 3}, "evaluation": {"judge": {"share": 0.2}},
         "feedback": {"annotator": {"kind": "gold"}}},
        {"reward_model": {"members": 3, "average": True}},
    ],
)  # fmt: skip
def test_every_training_is_drawn(overlay):
    """As many models and histories as there are jobs that train, and no others."""
    config = load_config({"alpacaeval": None, "rewardbench": None, **overlay})
    layout = Layout(config)
    trains = ("pretrain_base", "train_", "retrain_", "finetune_")
    jobs = stage_jobs(config, layout.trained_stages(), layout.policies())
    expected = sum(job.rule.startswith(trains) for job in jobs)
    models = layout.trained_models()
    if not any(m.startswith(("base", "reward_", "judge", "feedback", "sft")) for m in models):
        expected -= 1  # stage_jobs has a base model that nothing starts from
    assert len({*models, *layout.histories()}) == expected
    assert len(models) == len(set(models))
    assert not any(model.startswith("ppo/") for model in models)


def test_trained_models_by_hand(quickstart, comparison):
    assert quickstart.trained_models() == [
        "base_model", "reward_model/model",
        *(f"{stage}/policy" for stage in ("sft", *DPA, "steerlm", "dpo")),
    ]  # fmt: skip
    assert comparison.histories() == ["ppo/100_0/history.csv", "online_dpo/history.csv"]


def test_several_seeds_have_a_run_each():
    layout = Layout(load_config({"seed": [3, 5]}))
    assert layout.runs == ["results/quickstart/seed3", "results/quickstart/seed5"]
    assert layout.seed_of == {"quickstart/seed3": 3, "quickstart/seed5": 5}
    assert layout.targets("reward_model") == [
        f"{run}/reward_model/{table}.csv" for run in layout.runs for table in ("metrics", "ranking")
    ]
    assert layout.targets("report") == ["results/quickstart/report.html"]


def test_without_prompts_there_is_a_reward_model_only():
    nothing = {"train_prompts": [], "validation_prompts": [], "unseen_prompts": []}
    layout = Layout(load_config({"data": nothing, "alpacaeval": None}))
    assert (
        layout.targets("dpa") == layout.targets("baselines") == layout.targets("alpacaeval") == []
    )
    assert layout.figure_names() == ["training_curves", "reward_model"]
    assert layout.trained_models() == ["base_model", "reward_model/model"]


@pytest.mark.parametrize(
    ("loop", "iteration", "half", "sampled"),
    [
        ("dpa", 1, "d1", "dpa/iter0"),
        ("dpa", 2, "d2", "dpa/iter1"),
        ("rsf/100_0", 1, "d1", "sft"),
        ("rsf/100_0", 2, "d2", "rsf/100_0/iter1"),
        # It starts from DPA's first iteration, which D1 was for.
        ("directional_dpo", 1, "d2", "dpa/iter1"),
        ("directional_dpo", 2, "d1", "directional_dpo/iter1"),
        ("ric", 1, "d1", "steerlm"),
        ("ric", 2, "d2", "ric/iter1"),
    ],
)
def test_the_loops_turns(comparison, loop, iteration, half, sampled):
    assert comparison.prompt_half(loop, iteration) == half
    assert comparison.sampled_stage(loop, iteration) == sampled
    assert comparison.samples_steerlm(loop, iteration) == ((loop, iteration) == ("dpa", 1))


def test_rsf_from_dpas_first_pool():
    methods = {"methods": ["dpa", "rsf", "reward_soup"], "rsf": {"first_candidates": "dpa"}}
    layout = Layout(load_config(methods))
    assert layout.candidates_stage("rsf/100_0", 1) == "dpa/iter1"
    assert layout.candidates_stage("rsf/100_0", 2) == "rsf/100_0/iter2"
    assert layout.candidates_stage("dpa", 1) == "dpa/iter1"
    # What its first candidates took is a cost of its own; it trains what it trained.
    first = ["dpa/iter0", "dpa/iter1/sampled", "dpa/iter1/scored"]
    assert layout.method_stages()["rsf"] == [*layout.stages_of("rsf"), *first]
    assert layout.method_stages()["reward_soup"][-3:] == first
    assert layout.method_stages()["dpa"] == layout.stages_of("dpa")
    own = Layout(load_config({"methods": ["dpa", "rsf"]}))
    assert own.method_stages()["rsf"] == own.stages_of("rsf")
    assert own.candidates_stage("rsf/100_0", 1) == "rsf/100_0/iter1"


def test_experts_at_the_ends_of_the_arc():
    layout = Layout(
        load_config({"methods": ["dpa", "reward_soup"], "reward_soup": {"experts_at": "ends"}})
    )
    assert layout.soup_experts() == ["rsf/100_0/iter4", "rsf/71_-71/iter4"]
    assert layout.distribution_of_loop("rsf/71_-71")["direction"] == [0.707107, -0.707107]


def test_directions_outside_of_the_arc_come_after_the_grid():
    evaluation = {"evaluation": {"directions": 2, "outside_degrees": [-90, 45]}}
    layout = Layout(load_config(evaluation))
    assert layout.asked_grid == [
        [1.0, 0.0], [0.707107, -0.707107], [0.0, -1.0], [0.707107, 0.707107],
    ]  # fmt: skip
    assert Layout(load_config({})).asked_grid == 10
    # What is not told a direction is asked for no more of them; benchmarks keep their own.
    of = Adapters(layout, Stamps())

    def grid(policy, benchmark="evaluation"):
        asked = SimpleNamespace(experiment="quickstart", policy=policy, benchmark=benchmark)
        flags = of.evaluation_flags(asked)
        return json.loads(flags[flags.index("--grid") + 1])

    assert grid("dpa-1") == layout.asked_grid
    assert grid("steerlm") == 2
    assert grid("dpa-1", "alpacaeval") == 5


def test_a_loops_directions(comparison):
    arc = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
    assert comparison.distribution_of_loop("dpa") == arc
    fixed = comparison.distribution_of_loop("rsf/0_-100")
    assert (fixed["distribution"], fixed["direction"]) == ("fixed", [0.0, -1.0])


def test_a_published_policy_is_not_trained():
    given = {"path": "org/policy", "revision": "0" * 40}
    layout = Layout(load_config({"sft": given, "dpo": given}))
    assert layout.stages_of("sft") == layout.stages_of("dpo") == []
    assert layout.is_given("sft")
    assert not layout.is_given("steerlm")


def test_patterns_and_files():
    assert loops_trained_by("finetune_policy") == r"dpa|rsf/[\d_-]+"
    assert loops_trained_by("train_directional_dpo") == "directional_dpo"
    assert shard_files("a/{shard}.jsonl", 2) == ["a/0.jsonl", "a/1.jsonl"]
    assert files_of(["r", "s"], "x", "y") == ["r/x", "r/y", "s/x", "s/y"]


def test_members_are_first_none_then_numbered():
    layout = Layout(load_config({"reward_model": {"members": 3}}))
    assert layout.members == ["", "/member1", "/member2"]
    pattern = "scored{member}/{shard}.jsonl"
    assert shard_files(pattern, 2, layout.members[:2]) == [
        "scored/0.jsonl", "scored/1.jsonl", "scored/member1/0.jsonl", "scored/member1/1.jsonl",
    ]  # fmt: skip
    assert list(layout.scorers()) == [
        "reward_model",
        "reward_model/member1",
        "reward_model/member2",
    ]


def test_who_selected_where_it_is_not_the_shown_scorer():
    def scores(**settings):
        layout = Layout(load_config({"dpa": {"iterations": 2}} | settings))
        return [name.removeprefix("evaluation/scored_by/") for name in layout.selector_scores()]

    members, feedback = {"members": 2}, {"annotator": {"kind": "gold"}}
    assert scores() == scores(reward_model=members) == []
    assert scores(feedback=feedback) == ["reward_model/dpa-1.jsonl", "selector/dpa-2.jsonl"]
    minimum = {"iterations": 1, "pessimism": "min"}
    assert scores(reward_model=members, dpa=minimum) == [
        "reward_model/dpa-1.jsonl", "reward_model/member1/dpa-1.jsonl"
    ]  # fmt: skip
    assert scores(reward_model=members, feedback=feedback)[2:] == [
        "selector/dpa-2.jsonl", "selector/member1/dpa-2.jsonl"
    ]  # fmt: skip


def test_feedbacks_cost_is_dpas_but_it_trains_no_policy():
    settings = {"feedback": {"annotator": {"kind": "gold"}}, "dpa": {"iterations": 2}}
    layout = Layout(load_config(settings))
    assert layout.method_stages()["dpa"][-2:] == ["feedback/iter1", "feedback/iter2"]
    assert not any(stage.startswith("feedback") for stage in layout.trained_stages())
