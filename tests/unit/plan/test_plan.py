"""The plan's arithmetic against numbers worked by hand, and against the models themselves."""

import json
import re

import pytest
import yaml

from dpa.config.base import ModelConfig
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.feedback.questions import describe_task
from dpa.feedback.rubrics import rubrics_of
from dpa.plan.assumptions import device, load_assumptions, shape_from_config, shape_of
from dpa.plan.costs import FAST, SLOW, CostModel, JobCost, critical_path, decoding_rate, simulate
from dpa.plan.fit import needs, recomputed
from dpa.plan.memory import sampling_memory, scoring_memory
from dpa.plan.table import annotation_note, as_csv, as_text, make_plan, price_note
from dpa.plan.work import Experiment, Job, Work, work_of_job
from dpa.runtime.sections import merge
from dpa.training.memory import GIB, Shape, training_memory
from tests.support.plan_example import OVERLAY, ROUND, hub

NUMBERS = load_assumptions()
MISTRAL = NUMBERS.models["mistralai/Mistral-7B-v0.1"]
GEMMA = NUMBERS.models["google/gemma-2b"]
#: Start of a job with one model of Mistral's 28.967 GB: 90 + 5 x 28.967 s, and 30 + 0.5 x 28.967.
STARTS = {SLOW: 234.835, FAST: 44.483}


def make_experiment(tmp_path, **overlay):
    file, numbers = tmp_path / "mine.yaml", tmp_path / "numbers.yaml"
    file.write_text(yaml.safe_dump(merge(OVERLAY, overlay)))
    numbers.write_text(yaml.safe_dump(ROUND))
    config = load_config({"experiment": str(file)})
    return Experiment(config, load_assumptions(numbers))


def job(rule, gpus=1, needs=(), **wildcards):
    return Job(rule, wildcards, gpus, 1, tuple(needs))


# --- Models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the hub's pages count them
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("google/gemma-2b", 2_506_172_416),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1_711_376_384),
    ],
)
def test_parameters_of_the_named_models(name, parameters):
    assert NUMBERS.models[name].parameters == parameters


def test_parameters_are_those_that_transformers_makes(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, MistralConfig

    small = {"vocab_size": 320, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
    for config in (MistralConfig(**small), GemmaConfig(**small),
                   LlamaConfig(**small, tie_word_embeddings=True)):  # fmt: skip
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        config.save_pretrained(tmp_path)
        shape = shape_from_config(tmp_path / "config.json")
        assert shape.parameters == model.num_parameters()


def test_a_local_folder_is_read_and_an_unknown_model_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 768}))
    with pytest.raises(InputError, match=r"config\.json: no shape .*--assumptions"):
        shape_of(ModelConfig(path=str(tmp_path), revision=None), None, NUMBERS)
    with pytest.raises(InputError, match="not known offline; add it under `models`"):
        shape_of(ModelConfig(path="nobody/nothing", revision="0" * 40), None, NUMBERS)
    with pytest.raises(InputError, match=r"plan\.gpu: 'a1000'"):
        device(NUMBERS, "a1000")


# --- Memory ---------------------------------------------------------------------------------------


def test_training_memory_by_hand():
    memory = training_memory(MISTRAL, tokens=4096, shards=8, recompute=True)
    parts = {name: round(size * GIB / 1e9, 2) for name, size in memory.parts.items()}
    assert parts == {
        "states": 14.48,  # 16 x 7.2417e9 / 8
        "gathered": 1.4,  # 2 x (2 x 218,103,808 + 2 x 131,072,000)
        "activations": 2.01,  # 2 x 4096 x (4096 x 32 + 114,688)
        "loss": 1.31,  # 10 x 4096 x 32,000
        "frozen": 0.0,
        "overhead": 3.22,
    }


def test_training_memory_of_lora_and_of_references():
    full = training_memory(GEMMA, tokens=1000, shards=1, recompute=False)
    # Without sharding and recomputation: 16 P, 2 P, and all insides of 18 layers:
    # w = 8 x 2048 + 2 x 2048 + 2 x 256 + 5 x 16384 = 102,912.
    assert full.parts["states"] * GIB == 16 * 2_506_172_416
    assert full.parts["gathered"] * GIB == 2 * 2_506_172_416
    assert full.parts["activations"] * GIB == 2 * 1000 * 18 * 102_912
    lora = training_memory(GEMMA, tokens=1000, shards=1, recompute=False, trained=10**7)
    assert lora.parts["states"] * GIB == 16 * 10**7 + 2 * (2_506_172_416 - 10**7)
    dpo = training_memory(
        GEMMA, tokens=1000, shards=2, recompute=False, references=1, reward=MISTRAL
    )
    assert dpo.parts["frozen"] * GIB == 4 * 2_506_172_416 / 2 + 2 * 7_241_732_096


@pytest.mark.parametrize(
    ("gpu_memory_gb", "expected"),
    [(80, {"finetune_policy": False, "train_reward_model": True, "train_directional_dpo": True}),
     (48, {"finetune_policy": True, "train_reward_model": True}),
     (320, {"finetune_policy": False, "train_reward_model": False})],
)  # fmt: skip
def test_activations_are_recomputed_where_they_do_not_fit(gpu_memory_gb, expected):
    """The paper's fine-tuning fills 46 of 80 GiB without, and takes a quarter less time."""
    plan = {"gpu_memory_gb": gpu_memory_gb}
    experiment = Experiment(load_config({"experiment": "mistral-7b", "plan": plan}), NUMBERS)
    assert {rule: recomputed(experiment, rule) for rule in expected} == expected
    for rule, recompute in expected.items():
        [need] = needs(experiment, [rule])
        if gpu_memory_gb > 48:
            assert need.fits
        always = load_config(
            {"experiment": "mistral-7b", "plan": plan, "trainer": {"gradient_checkpointing": True}}
        )
        hours = [
            CostModel(Experiment(config, NUMBERS), NUMBERS.devices["h100"], True, FAST)
            .cost(job(rule, gpus=8), Work(trained=1e9)).seconds - STARTS[FAST]
            for config in (experiment.config, always)
        ]  # fmt: skip
        assert hours[0] / hours[1] == pytest.approx(1 if recompute else 6 / 8)


def test_adapters_are_those_that_peft_makes():
    # rank 8 on 32 layers: 2 x (4096 + 4096) + 2 x (4096 + 1024) + 3 x (4096 + 14336)
    assert MISTRAL.adapters(8) == 8 * 32 * (16_384 + 10_240 + 55_296) == 20_971_520


@pytest.mark.parametrize("method", ["ppo", "online_dpo"])
def test_what_samples_as_it_trains_is_not_sharded(tmp_path, method):
    (need,) = needs(make_experiment(tmp_path), [f"train_{method}"])
    assert need.memory.parts["states"] * GIB == 16 * MISTRAL.parameters
    assert not need.fits
    assert f"leave {method} out" in str(need)


def test_sampling_and_scoring_memory_by_hand():
    memory = sampling_memory(MISTRAL, longest=3072)
    assert memory.parts["cache"] * GIB == 3072 * 131_072  # 4 x 32 layers x 8 heads x 128
    assert memory.parts["prefill"] * GIB == 2 * 8192 * 114_688
    memory = scoring_memory(MISTRAL, tokens=65_536)
    assert round(memory.total - 3, 1) == 35.5  # 13.5 + 8.0 + 14.0


@pytest.mark.parametrize(
    ("overlay", "rule", "remedy"),
    [
        ({"compute": {"training_processes": 1}}, "finetune_policy", "training_processes"),
        ({"trainer": {"per_device_batch_size": 64}, "dpa": {"schedule": {"batch_size": 512}}},
         "finetune_policy", "per_device_batch_size"),
        ({"trainer": {"sharding": "none"}}, "finetune_policy", "sharding to fsdp"),
        ({"plan": {"gpu_memory_gb": 24}}, "score_responses", "tokens_per_batch"),
        ({"plan": {"gpu_memory_gb": 16}}, "sample_responses", "max_prompt_tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_remedy(tmp_path, overlay, rule, remedy):
    (need,) = needs(make_experiment(tmp_path, **overlay), [rule])
    assert not need.fits
    assert remedy in str(need)
    (need,) = needs(make_experiment(tmp_path), [rule])
    assert need.fits, str(need)


# --- Tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        # 4 responses to each of 2,500 prompts, 50 + 100 + 250 tokens, 2 epochs
        (("train_reward_model", {}), {"trained": 10_000 * 400 * 2}),
        # of 2,020 prompts a quarter, 4 responses: what a prompt's share, then each
        (("annotate_responses", {}), {"scored": 505 * 150 + 505 * 4 * 250}),
        (("train_initial_policy", {}), {"trained": 1000 * 4 * (180 + 250) * 2}),
        (("train_steerlm", {}), {"trained": 2000 * 4 * (180 + 250) * 2}),
        # 250 prompts x 80, each condition read; then 5 directions read, 16 responses each
        (("sample_responses", {"loop": "dpa", "iteration": "1"}),
         {"read": 250 * 80 * 180, "sampled": 250 * 80 * 200}),
        (("sample_responses", {"loop": "dpa", "iteration": "2"}),
         {"read": 250 * 5 * 180, "sampled": 250 * 80 * 200}),
        (("score_responses", {"loop": "dpa", "iteration": "2"}),
         {"scored": 250 * 150 + 250 * 80 * 200}),
        # 5,000 rows are 85 %; 180 + 200 tokens, 2 epochs
        (("finetune_policy", {"loop": "dpa", "iteration": "2"}),
         {"trained": 5000 / 0.85 * 380 * 2}),
        # Rewards-in-Context asks every sample for rewards of its own, 80 of each of 250 prompts.
        (("sample_responses", {"loop": "ric", "iteration": "2"}),
         {"read": 250 * 80 * 180, "sampled": 250 * 80 * 200}),
        # 1 - 0.7 ** 2 of the samples of two iterations, and of the 4 originals of each prompt
        (("train_ric", {"loop": "ric", "iteration": "2"}),
         {"trained": 0.51 * (2 * 80_000 + 2 * 1000 * 4) * 380}),
        # 2,000 pairs of 2 x (100 + 250), 3 epochs of zephyr's recipe
        (("train_dpo", {}), {"trained": 2000 * 700 * 3, "referred": 2000 * 700 * 3}),
        # 80 visits to 2,000 prompts, 2 responses of 200 tokens behind 180 each
        (("train_online_dpo", {}),
         {"read": 160_000 * 180, "sampled": 320_000 * 200, "trained": 320_000 * 380,
          "referred": 320_000 * 380, "scored": 160_000 * 150 + 320_000 * 200}),
        # 20 prompts, 10 directions (or conditions), 2 responses; SFT: none
        (("sample_evaluation", {"benchmark": "evaluation", "policy": "dpa-3"}),
         {"read": 200 * 180, "sampled": 400 * 200, "scored": 0}),
        (("sample_evaluation", {"benchmark": "evaluation", "policy": "dpa-0"}),
         {"sampled": 400 * 200}),
        (("sample_evaluation", {"benchmark": "evaluation", "policy": "sft"}),
         {"sampled": 40 * 200}),
        (("sample_soup", {}), {"sampled": 400 * 200}),
        # Best of 16: of SFT all directions choose among the same, of SteerLM among their own.
        (("sample_candidates", {"benchmark": "evaluation", "policy": "best_of_n_sft"}),
         {"read": 20 * 180, "sampled": 640 * 200}),
        (("sample_candidates", {"benchmark": "evaluation", "policy": "best_of_n_steerlm"}),
         {"read": 200 * 180, "sampled": 6400 * 200}),
        (("score_candidates", {"scorer": "reward_model", "policy": "best_of_n_sft"}),
         {"scored": 20 * 150 + 640 * 200}),
        (("score_evaluation", {"scorer": "reward_model", "policy": "best_of_n_sft"}),
         {"scored": 20 * 150 + 400 * 200}),
        (("score_evaluation", {"scorer": "reward_model", "policy": "dpa-3"}),
         {"sampled": 0, "scored": 20 * 150 + 400 * 200}),
        # 400 responses, after 180 tokens of a prompt with a direction and 100 of one without
        (("measure_divergence", {"policy": "dpa-3"}), {"referred": 400 * (180 + 100 + 2 * 200)}),
        # 805 instructions, 7 directions; 2,985 responses of the reference policy, 2,985 pairs
        (("sample_evaluation", {"benchmark": "alpacaeval", "policy": "dpa-4"}),
         {"read": 805 * 7 * 180, "sampled": 805 * 7 * 200}),
        (("judge_rewardbench", {"policy": "dpo"}), {"scored": 2985 * 300}),
        (("score_rewardbench", {}), {"scored": 2 * 2985 * 400}),
    ],
)  # fmt: skip
def test_tokens_by_hand(tmp_path, work, expected):
    rule, wildcards = work
    found = work_of_job(job(rule, **wildcards), make_experiment(tmp_path))
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)


def test_shards_share_the_work_out(tmp_path):
    works = [
        work_of_job(
            job("sample_responses", loop="dpa", iteration="3"),
            make_experiment(tmp_path, shards=shards),
        )
        for shards in (1, 7)
    ]
    assert works[0].sampled == pytest.approx(7 * works[1].sampled)
    assert works[0].keeps == pytest.approx(7 * works[1].keeps)


def test_a_slice_of_a_split_counts_its_rows(tmp_path):
    sliced = {"validation_prompts": [hub("me/prompts", "validation[:15]")]}
    assert make_experiment(tmp_path, data=sliced).sizes.validation == 15


def test_what_is_not_known_is_refused(tmp_path):
    experiment = make_experiment(tmp_path)
    with pytest.raises(InputError, match="rule fly asks for 2 GPUs"):
        work_of_job(job("fly", gpus=2), experiment)
    assert work_of_job(job("fly", gpus=0), experiment).light
    with pytest.raises(InputError, match=r"me/prompts, split tset.*data_sets"):
        make_experiment(tmp_path, data={"validation_prompts": [hub("me/prompts", "tset")]})
    (tmp_path / "numbers.yaml").write_text("utilisation: {training: 2}")
    with pytest.raises(InputError, match=r"utilisation\.training"):
        load_assumptions(tmp_path / "numbers.yaml")


# --- Time -----------------------------------------------------------------------------------------


def test_gpu_hours_by_hand(tmp_path):
    experiment = make_experiment(tmp_path)
    model = CostModel(experiment, NUMBERS.devices["a6000"], gpu=True, end=FAST)
    finetuning = job("finetune_policy", gpus=8, loop="dpa", iteration="2")
    cost = model.cost(finetuning, work_of_job(finetuning, experiment))
    # 8 x 7,110,393,856 multiplied weights x 4,470,588 tokens / (154.8e12 x 0.45) = 3,650.6 s of a
    # GPU, an eighth of it on eight, and the start.
    assert cost.seconds == pytest.approx(3650.6 / 8 + STARTS[FAST], rel=1e-4)
    assert cost.device_hours == pytest.approx((3650.6 + 8 * STARTS[FAST]) / 3600, rel=1e-4)
    # Scoring: 2 x 7,110,393,856 a token.
    scoring = job("score_responses", loop="dpa", iteration="2")
    cost = model.cost(scoring, work_of_job(scoring, experiment))
    busy = 4_037_500 * 14_220_787_712 / (154.8e12 * 0.5)
    assert cost.seconds - STARTS[FAST] == pytest.approx(busy, rel=1e-4)
    # At the other end, at 0.28 and 0.35 of the peak:
    model = CostModel(experiment, NUMBERS.devices["a6000"], gpu=True, end=SLOW)
    slow = model.cost(finetuning, work_of_job(finetuning, experiment))
    assert slow.seconds == pytest.approx(3650.6 / 8 * 0.45 / 0.28 + STARTS[SLOW], rel=1e-4)
    slow = model.cost(scoring, work_of_job(scoring, experiment))
    assert slow.seconds - STARTS[SLOW] == pytest.approx(busy * 0.5 / 0.35, rel=1e-4)


@pytest.mark.parametrize(
    ("light", "least", "most"),
    [
        # 4 x 2,500 ratings and 2,020 prompts are read; or 1,000 prompts' 80 samples
        (job("prepare_data", gpus=0), 0.3 + 12_020e-5, 6 + 12_020 * 2e-4),
        (job("select_responses", gpus=0, loop="dpa", iteration="2"), 0.3 + 0.8, 6 + 16),
        # Two responses under ten directions to 20 prompts of DPA from t = 0 to 2, and SFT's alone
        (job("make_report", gpus=0), 0.3 + 1240e-5, 6 + 1240 * 2e-4),
        # The only one with a GPU, which starts like any
        (job("preflight"), 30.3 + 1240e-5, 96 + 1240 * 2e-4),
    ],
    ids=lambda value: value.rule if isinstance(value, Job) else "",
)
def test_a_job_without_a_model_takes_seconds_and_its_rows(tmp_path, light, least, most):
    """Each counted as five minutes, which were most of a small experiment's hour."""
    few = {"methods": ["dpa", "sft"], "dpa": {"iterations": 2}}
    experiment = make_experiment(tmp_path, **few)
    work = work_of_job(light, experiment)
    found = [
        CostModel(experiment, NUMBERS.devices["a6000"], True, end).cost(light, work)
        for end in (FAST, SLOW)
    ]
    assert [cost.seconds for cost in found] == pytest.approx([least, most])
    assert [cost.devices for cost in found] == [light.gpus, light.gpus]


def test_a_small_model_is_loaded_sooner_than_a_large_one(tmp_path):
    small = {"path": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "0" * 40}
    for experiment, least in (
        (make_experiment(tmp_path), STARTS[FAST]),
        (make_experiment(tmp_path, sft=small), 30.27),
    ):
        model = CostModel(experiment, NUMBERS.devices["h200"], True, FAST)
        assert model.cost(job("sample_soup"), Work(sampled=1, sequence=2)).seconds == (
            pytest.approx(least, abs=0.02)
        )


def test_decoding_by_hand():
    share = {"peak": 154.8e12 * 0.4, "bandwidth": 768e9 * 0.6}
    # Bound by memory, as in the module's docstring; and by arithmetic when the cache is short.
    assert decoding_rate(MISTRAL, **share, batch=256, length=412.5) == pytest.approx(4165, rel=1e-3)
    assert decoding_rate(MISTRAL, **share, batch=256, length=10) == pytest.approx(4354, rel=1e-3)
    # And the engine's 10 us for each sequence of a step.
    rate = decoding_rate(MISTRAL, **share, batch=256, length=412.5, between=1e-5)
    assert rate == pytest.approx(3998, rel=1e-3)
    # A measured point: A100-40GB, an 8B model, batch 1: 75 tokens/s at 0.77 of the bandwidth.
    llama = Shape(vocabulary=128256, hidden=4096, intermediate=14336, layers=32, heads=32,
                  kv_heads=8, head_dim=128, tied=False, positions=131072)  # fmt: skip
    rate = decoding_rate(llama, peak=312e12, bandwidth=1555e9 * 0.77, batch=1, length=1088)
    assert rate == pytest.approx(75, rel=0.02)


def test_measured_rates_replace_the_model(tmp_path):
    experiment = make_experiment(tmp_path)
    measured = NUMBERS.measured.model_copy(update={"training": 1000.0, "sampling": 500.0})
    numbers = experiment.assumptions.model_copy(update={"measured": measured})
    for end in (SLOW, FAST):
        model = CostModel(
            Experiment(experiment.config, numbers), NUMBERS.devices["h100"], True, end
        )
        assert model.busy_seconds(Work(trained=4000), 2) == 2
        assert model.busy_seconds(Work(sampled=4000, sequence=380), 1) == 8


def test_sampling_on_a_fast_card_is_not_what_its_memory_would_allow():
    """Without the engine's own seconds an H100 came out twice as fast as any that was measured."""
    experiment = Experiment(load_config({"experiment": "mistral-7b"}), NUMBERS)
    work = Work(sampled=1e6, sequence=565)
    slow, fast = (
        CostModel(experiment, NUMBERS.devices["h100"], True, end).sampling_rate(work)
        for end in (SLOW, FAST)
    )
    assert slow < 14_000 < 18_000 < fast < 23_000


@pytest.mark.parametrize(
    ("given", "read"),
    [("0.5", (0.5, 0.5)), ("[0.3, 0.6]", (0.3, 0.6)), ("[0.6, 0.3]", None), ("[0.3, 2]", None),
     ("[0.3]", None), ("0", None)],
)  # fmt: skip
def test_a_share_is_a_range_or_one_number(tmp_path, given, read):
    (tmp_path / "numbers.yaml").write_text(f"utilisation: {{scoring: {given}}}")
    if read is None:
        with pytest.raises(InputError, match=r"utilisation\.scoring"):
            load_assumptions(tmp_path / "numbers.yaml")
    else:
        assert load_assumptions(tmp_path / "numbers.yaml").utilisation.scoring == read


def test_a_plan_states_both_ends(tmp_path):
    experiment = make_experiment(tmp_path, plan={"gpu_memory_gb": 200})
    jobs = [job("sample_responses", loop="dpa", iteration="2"),
            job("finetune_policy", gpus=8, needs=[0], loop="dpa", iteration="2")]  # fmt: skip
    plan = make_plan(experiment, jobs, experiment.assumptions, device_name="a6000", devices=8)
    for row in plan.rows:
        assert 0 < row["device_hours_least"] < row["device_hours_most"]
    assert plan.wall_seconds[0] < plan.wall_seconds[1] == pytest.approx(plan.path_seconds[1])
    text = as_text(plan)
    assert re.search(r"finetune_policy +1 +8 +\d+\.\d - \d+\.\d ", text)
    assert re.search(r"Wall time .*: [\d.]+ \w+ - [\d.]+ \w+", text)
    header, first, *_ = as_csv(plan).splitlines()
    assert header.split(",")[3:5] == ["device_hours_least", "device_hours_most"]
    assert len(first.split(",")) == len(header.split(","))


def test_ratings_of_a_language_model_are_money(tmp_path):
    """80 tokens of rationale and 15 a rating; the texts, and a task of so many characters."""
    annotator = {"kind": "endpoint", "model": "org/rater", "base_url": "http://localhost/v1",
                 "price": {"input": 1000, "output": 5000}, "max_cost": 7,
                 "responses_per_call": 3}  # fmt: skip
    feedback = {"annotator": annotator, "prompts_per_iteration": 10,
                "best_per_prompt": 2, "random_per_prompt": 2}  # fmt: skip
    experiment = make_experiment(tmp_path, feedback=feedback)
    jobs = [job("annotate_feedback", 0, iteration=str(t)) for t in (1, 2)]
    assert all(work_of_job(one, experiment).light for one in jobs)
    use = experiment.rating_use(experiment.config.feedback.annotator)
    rated, sizes = experiment.config.rated_attributes, experiment.sizes
    task = describe_task(rubrics_of(rated, {}))
    texts = 20 * sizes.prompt + 40 * sizes.sampled_response
    assert use.calls == 20
    assert use.answered == 40 * (80 + 15 * len(rated))
    assert use.asked == pytest.approx(20 * (len(task) / 4 + 60) + texts)
    each = (use.asked * 1000 + use.answered * 5000) / 1e6
    note = annotation_note(experiment, jobs)
    assert "Ratings by org/rater: 2 jobs of about 20 calls" in note
    assert f"${each:.2f} each (limit $7.00), ${2 * each:.2f} in all" in note
    assert annotation_note(experiment, jobs[:0]) is None
    judged = {"judge": {"kind": "gpt4_turbo"}, "prompts": 100, "directions": 5}
    dear = make_experiment(tmp_path, feedback=feedback, alpacaeval=judged)
    jobs += [job("sample_responses", loop="dpa", iteration="2"), job("judge_alpacaeval", 0)]
    plan = make_plan(dear, jobs, dear.assumptions, device_name="a6000", devices=8)
    judge = 500 * 952e-5  # comparisons, tokens of one, the list price of a token
    ends = [[hours * 2.5 for hours in some]
            for some in (plan.device_hours, [8 * s / 3600 for s in plan.wall_seconds])]  # fmt: skip
    used, rented = (" - ".join(f"${end:,.2f}" for end in both) for both in ends)
    note = price_note(plan, 2.5, dear, jobs)
    assert f"$2.50 per GPU-hour: {used} for the GPU-hours in use; {rented}\nwhere 8 GPUs" in note
    assert f"${2 * each:,.2f} for ratings between iterations" in note
    assert f"${judge:.2f} for AlpacaEval's judge." in note
    free = price_note(plan, 2.5, make_experiment(tmp_path), jobs[2:3])
    assert "besides" not in free


def toy(costs):
    return [JobCost(seconds, devices, Work(keeps=10, scratch=4)) for seconds, devices in costs]


def test_critical_path_and_schedule_by_hand():
    # a -> b, c, d -> e; d takes both of 2 devices, and goes first after b, which is longer, when
    # both are free: what waits for more devices is not overtaken.
    jobs = [job("a"), job("b", needs=[0]), job("c", needs=[0]), job("d", needs=[0]),
            job("e", needs=[1, 2, 3])]  # fmt: skip
    costs = toy([(5, 1), (7, 1), (3, 1), (4, 2), (1, 1)])
    assert critical_path(jobs, costs) == [0, 1, 4]
    run = simulate(jobs, costs, devices=2, stored=100)
    assert run.seconds == 5 + 7 + 4 + 3 + 1
    assert run.peak_bytes == 100 + 5 * 10
    assert simulate(jobs, costs, devices=4, stored=0).seconds == 5 + 7 + 1


def test_wall_time_falls_with_devices_to_the_critical_path():
    jobs = [job("a"), *(job("b", needs=[0]) for _ in range(6)), job("c", needs=range(1, 7))]
    costs = toy([(2, 1)] + [(10, 1)] * 6 + [(3, 1)])
    walls = [simulate(jobs, costs, devices=n, stored=0).seconds for n in (1, 2, 3, 6, 99)]
    assert walls == [65, 35, 25, 15, 15]
    assert sum(costs[i].seconds for i in critical_path(jobs, costs)) == 15
