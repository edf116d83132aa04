"""One file of ratings or comparisons becomes an experiment: columns, scales, hold-out, YAML."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from dpa.config.load import load_config
from dpa.data import new_experiment
from dpa.data.guess import scale_of
from dpa.data.new_experiment import Machine, held_out, read_file
from dpa.errors import InputError
from dpa.plan.assumptions import load_assumptions
from dpa.plan.sizes import choose_sizes, describe_sizes, run_hours
from dpa.plan.work import Experiment
from scripts.new_experiment import app

ANIMALS = [f"animal {i}" for i in range(40)]
UNNAMED = {"--prompt-column": None, "--response-column": None}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("stars", [1, 5, 3], (1, 5)),
        ("verbosity", [0, 4], (0, 4)),
        ("likert", [2, 7], (1, 7)),
        ("score", [1, 10], (1, 10)),
        ("score", [0, 10], (0, 10)),
        ("percent", [0, 62, 100], (0, 100)),
        ("safe", [0, 1], (0, 1)),
        ("probability", [0.2, 0.9], (0, 1)),
        ("score", [1.5, 4.2], "rank"),
        ("likes", [3, 4821], "rank"),
        ("rank", [1, 2, 4], (4, 1)),
    ],
)
def test_a_scale_is_the_smallest_usual_one(name, values, scale):
    assert scale_of(name, values) == scale


def test_several_raters_are_one_row_and_counted(tmp_path):
    rows = [
        {"id": i, "Question": a, "answer": f"about {a}", "stars": stars, "rater": r, "lang": "en"}
        for i, a in enumerate(ANIMALS)
        for r, stars in enumerate((2, 5) if i else ("n/a", 3))
    ]
    found = read_file(write(tmp_path / "a.jsonl", rows), UNNAMED, [])
    assert (found.columns.prompt, found.columns.response) == ("Question", "answer")
    assert [(c.name, c.scale, c.missing) for c in found.columns.ratings] == [
        ("stars", (1, 5), ("n/a",))
    ]
    assert found.columns.others == ("id", "rater", "lang")
    assert (found.merged, dict(found.dropped)) == (39, {"no rating": 1})
    assert [column.name for column in found.attributes] == ["stars", "length"]
    ratings = [r.ratings["stars"] for of in found.responses.values() for r in of.values()]
    assert ratings[:2] == [[3.0], [2.0, 5.0]]


def test_comparisons_and_lists_are_responses(tmp_path):
    def turns(prompt, answer):
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]

    pairs = [{"chosen": turns(a, "good"), "rejected": turns(a, "bad"), "margin": i}
             for i, a in enumerate(ANIMALS)]  # fmt: skip
    found = read_file(write(tmp_path / "pairs.jsonl", pairs), UNNAMED, [])
    of_one = next(iter(found.responses.values()))
    assert {r.response: r.ratings for r in of_one.values()} == {
        "good": {"preference": [1.0]},
        "bad": {"preference": [0.0]},
    }
    assert of_one["good"].prompt == "animal 0"
    lists = [{"prompt": a, "responses": ["x", "y"], "rank": [2, 1], "style": [1, 7]}
             for a in ANIMALS]  # fmt: skip
    found = read_file(write(tmp_path / "lists.jsonl", lists), UNNAMED, [])
    assert [(c.name, c.scale) for c in found.attributes] == [("rank", (2, 1)), ("style", (1, 7))]
    assert next(iter(found.responses.values()))["y"].ratings == {"rank": [1.0], "style": [7.0]}
    lists[3]["rank"] = [1]
    found = read_file(write(tmp_path / "lists.jsonl", lists), UNNAMED, [])
    assert dict(found.dropped) == {"rank is not a list as long as responses": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "x", "b": "y", "stars": 1}, "no column of responses; columns: a, b, stars"),
        ({"prompt": "x", "response": "y", "stars": "good"}, "no column of numbers"),
        ({"response": "y", "stars": 1}, "no column of prompts"),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_file(write(tmp_path / "a.jsonl", [row] * 3), UNNAMED, [])


def test_prompts_are_held_out_by_what_they_are(tmp_path):
    rows = [{"prompt": a, "response": a[::-1], "stars": i % 5} for i, a in enumerate(ANIMALS)]
    path = write(tmp_path / "a.jsonl", rows)
    first = held_out(read_file(path, UNNAMED, []), path, 0.25)
    turned = write(tmp_path / "b.jsonl", rows[::-1])
    assert held_out(read_file(turned, UNNAMED, []), turned, 0.25) == first
    assert len(first) == 10
    few = write(tmp_path / "c.jsonl", rows[:15])
    with pytest.raises(InputError, match="15 different prompts, too few"):
        held_out(read_file(few, UNNAMED, []), few, 0.25)


@pytest.fixture
def sized(tmp_path, monkeypatch):
    """Chooses sizes for a policy on a machine; gives the experiment with them as well."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"about {i}", "response": "word " * 400, "stars": i % 5, "tone": i % 3}
            for i in range(2000)]  # fmt: skip
    found = read_file(write(tmp_path / "a.jsonl", rows), UNNAMED, [])
    validation = held_out(found, "a.jsonl", 0.1)
    new_experiment.write_user_tables(tmp_path, found, validation)

    def choose(policy, machine, hours=8.0):
        def load(sizes):
            shown = new_experiment.answered(validation, sizes)
            new_experiment.write_prompts(tmp_path / "validation_prompts.jsonl", found, shown)
            text = new_experiment.experiment_text(
                ".", found, (policy, "locked"), "vllm" if machine.gpu else "transformers", machine,
                sizes,
            )  # fmt: skip
            (tmp_path / "mine.yaml").write_text(text)
            return load_config({"experiment": "mine.yaml"})

        usual = new_experiment.usual_sizes(found, policy, 1800, machine)
        chosen = choose_sizes(usual, machine, hours, load)
        return chosen, load(chosen.sizes)

    return choose


SMOLLM, MISTRAL = "HuggingFaceTB/SmolLM2-360M-Instruct", "mistralai/Mistral-7B-v0.1"
CARD = Machine("rtx-4090", 1, 24, 16)


@pytest.mark.slow
def test_sizes_are_what_a_machine_makes_in_time(sized):
    day, _ = sized(SMOLLM, CARD, 24)
    hour, config = sized(SMOLLM, CARD, 1)
    assert (day.sizes.prompts_per_half, day.sizes.iterations) == (900, 3)  # all there are
    assert hour.sizes.prompts_per_half < 900
    assert hour.hours[1] <= 1 < day.hours[1] <= 24
    experiment = Experiment(config, load_assumptions())
    assert run_hours(experiment, CARD) == hour.hours
    assert config.plan.gpu == "rtx-4090"
    assert experiment.sizes.validation == max(16, hour.sizes.prompts_per_half // 4)
    few, _ = sized(SMOLLM, CARD, 0.2)
    assert (few.sizes.prompts_per_half, few.sizes.iterations) == (16, 1)
    assert "less than that is no run, although it may take 0.2 h" in describe_sizes(
        few, CARD, 0.2, SMOLLM
    )


@pytest.mark.slow
def test_sizes_fit_the_memory_of_the_gpus(sized):
    small, _ = sized(SMOLLM, CARD)
    assert (small.sizes.lora, small.sizes.batch_size, small.too_large) == (False, 2, [])
    large, config = sized("HuggingFaceTB/SmolLM2-1.7B-Instruct", CARD)
    assert config.trainer.lora.rank == 16
    assert not large.too_large
    many, config = sized(MISTRAL, Machine("a100-80gb", 5, 80, 64))
    assert (many.too_large, many.sizes.lora) == ([], False)  # shared by fsdp
    assert (config.compute.training_processes, config.shards) == (4, 5)
    tiny, _ = sized(MISTRAL, Machine("l4", 1, 8, 4))
    assert tiny.too_large
    assert "needs" in describe_sizes(tiny, CARD, 8, MISTRAL)


@pytest.mark.slow
def test_without_a_gpu_or_without_the_policy_sizes_are_small(sized):
    cores = Machine(None, 0, 0, 8)
    on_cores, config = sized(SMOLLM, cores)
    assert on_cores.sizes.max_new_tokens < 400
    assert config.threads == config.reward_model.threads == 8
    unknown, _ = sized("org/chat", cores)
    assert unknown.hours is None
    assert (unknown.sizes.prompts_per_half, unknown.sizes.iterations) == (48, 1)
    assert "`hf download org/chat config.json`" in describe_sizes(unknown, cores, 8, "org/chat")


def test_the_experiment_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": a, "response": f"to {a}", "good-ness 2": i % 4, "tone": i % 7 + 1, "x": i % 2}
        for i, a in enumerate(ANIMALS)
    ]
    write(tmp_path / "a.jsonl", rows)
    done = CliRunner().invoke(
        app, ["--ratings", "a.jsonl", "--policy", "org/chat", "--output", "mine"]
    )
    assert done.exit_code == 0, done.output
    config = load_config({"experiment": "mine/mine.yaml"})
    assert [o.name for o in config.objectives] == ["good_ness", "tone", "x"]
    assert config.directions.model_dump()["signs"] == [1, 1, 1]
    assert config.evaluation.hypervolume_reference == [0, 0, 0]
    assert str(config.sft.path) == "org/chat"
    assert config.alpacaeval is None
    text = yaml.safe_load((tmp_path / "mine/mine.yaml").read_text())
    assert text["data"]["prompts_per_half"] == 18
    train, validation = ((tmp_path / f"mine/{n}.jsonl").read_text().splitlines()
                         for n in ("train", "validation"))  # fmt: skip
    assert (len(train), len(validation)) == (36, 4)
    prompts = {json.loads(line)["prompt"] for line in validation}
    assert prompts.isdisjoint(json.loads(line)["prompt"] for line in train)
    again = CliRunner().invoke(
        app, ["--ratings", "a.jsonl", "--policy", "org/chat", "--output", "mine"]
    )
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/config.json").write_text('{"max_position_embeddings": 128}')
    CliRunner().invoke(app, ["--ratings", "a.jsonl", "--policy", "chat", "--output", "short"])
    short = load_config({"experiment": "short/short.yaml"})
    assert short.dpa.schedule.max_length == short.reward_model.schedule.max_length == 128
    assert short.sampling.max_prompt_tokens + short.sampling.max_new_tokens == 128
    assert isinstance(again.exception, InputError), again.output
