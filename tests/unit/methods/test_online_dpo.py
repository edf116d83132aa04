"""Online DPO: pairs and both terms by hand, what it learns, and what a kill changes: nothing."""

import csv
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from dpa.artefacts.sidecars import read_sidecar
from dpa.config.trainer import LoraConfig, ScheduleConfig
from dpa.directions import from_degrees, sample_direction
from dpa.errors import InputError
from dpa.generation.engine import Completion
from dpa.methods.online_dpo import (
    DrawnHistory,
    OnlineDpo,
    contrast_terms,
    response_log_probabilities,
)
from dpa.methods.online_pairs import DrawnCounts, OnlinePair, PairSource, compare
from dpa.models import ModelRef
from dpa.records import Prompt
from dpa.seeds import sample_seed
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from dpa.training.trainer import TrainingJob, run_training
from tests.support.training_jobs import RULED, Ruler, sampling, struck, training

TRAINER = training(per_device_batch_size=8)
NAMES = ["quality", "verbosity"]
#: All but verbosity alone, less of it: nothing else tells responses apart.
TERSE = {"distribution": "arc", "from_degrees": -90.0, "to_degrees": -60.0}
PROMPTS = [
    Prompt(prompt_id=str(number), prompt=f"{prompt} {number}", source="test")
    for number, prompt in enumerate(["Describe the otter.", "Where does the fox live?"] * 8)
]
SEED = 7


def train(policy, output, *, trainer=TRAINER, schedule=None, prompts=PROMPTS, **changes):
    """Six visits to each of 16 prompts, eight pairs a step; returns the history's columns."""
    values = {
        "learning_rate": 1e-4, "epochs": 6, "batch_size": 8, "warmup_steps": 1,
        "lr_scheduler": "constant_with_warmup", "max_length": 128,
    }  # fmt: skip
    options = {
        "seed": SEED, "distribution": TERSE, "objectives": RULED, "reward_model": Ruler(),
        "beta": 0.1, "contrast_beta": None, "sampling": sampling(),
    } | changes  # fmt: skip
    stage = ScheduleConfig(**(values | (schedule or {})))
    job = TrainingJob(ModelRef(str(policy)), output, trainer, stage, 2**40 + 1, (policy,))
    history = output.with_name("history.csv")
    run_training(OnlineDpo(job, prompts, history, **options))
    with open(history, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


# --- Pairs, by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "truncated", "expected"),
    [
        ([1.0, 2.0], [False, False], (1, 0)),
        ([2.0, 1.0], [False, False], (0, 1)),
        ([1.0, 2.0], [True, True], (1, 0)),
        ([1.0, 2.0], [False, True], "one_is_truncated"),
        ([1.5, 1.5], [True, False], "one_is_truncated"),
        ([1.5, 1.5], [False, False], "rewards_are_equal"),
        ([0.1 + 0.2, 0.3], [False, False], "rewards_are_equal"),  # up to rounding
    ],
)
def test_which_of_two_is_chosen(rewards, truncated, expected):
    assert compare(rewards, truncated) == expected


class Script:
    """Stands in for the engine: writes what it is told for each request, and notes the seeds."""

    def __init__(self, texts):
        self.texts, self.asked = texts, []

    def sample_tokens(self, chunk):
        self.asked += chunk
        written = [self.texts[len(self.asked) - len(chunk) + i] for i in range(len(chunk))]
        return [[[ord(c) for c in text] for text in pair] for pair in written]

    def completion(self, ids):
        text = "".join(map(chr, ids))
        return Completion(text, "length" if text.endswith("…") else "stop", len(ids))


def source(tiny_tokenizer, reward_model, **changes):
    options = {
        "distribution": {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0},
        "objectives": RULED, "reward_model": reward_model, "seed": SEED,
        "max_prompt_tokens": 96, "contrasted": False,
    } | changes  # fmt: skip
    return PairSource(PROMPTS, ChatTokenizer(tiny_tokenizer), **options)


def test_pairs_of_a_visit_by_hand(tiny_tokenizer):
    """v.r decides, as in 50 v1 + 10 v2 against 40 v1 + 0 v2: equal at 45 degrees below only."""
    scores = {"ab": [50.0, 10.0], "c": [40.0, 0.0], "de…": [90.0, 0.0], "f": [40.0, 0.0]}
    ruler = Ruler(scores)
    engine = Script([("c", "ab"), ("c", "f"), ("de…", "ab"), ("ab", "de…")])
    made = source(tiny_tokenizer, ruler)
    pairs, drawn = made.pairs(engine, [3, 0, 5, 1], visit=2)
    chat, arc = made.chat, made.distribution
    v = sample_direction(arc, SEED, 2, "3", 0)
    prompt = chat.prompt_ids(messages(PROMPTS[3].prompt, direction_system_prompt(NAMES, v)))
    assert pairs == {3: OnlinePair(prompt, [97, 98], [99], [])}  # 10 v1 + 10 v2 > 0
    # Each sample's seed is its own, and says what it is for.
    first = sample_seed(SEED, 2, "3", 0, 0)
    assert engine.asked[0] == (prompt, [first, first + 1])
    assert ruler.groups[0] == (PROMPTS[3].prompt, ["c", "ab"])
    directions = [sample_direction(arc, SEED, 2, str(n), 0) for n in (3, 0, 5, 1)]
    texts = [("c", "ab"), ("c", "f"), ("de…", "ab"), ("ab", "de…")]
    reward = sum(
        v[0] * scores[t][0] + v[1] * scores[t][1]
        for v, pair in zip(directions, texts, strict=True) for t in pair
    )  # fmt: skip
    assert drawn == DrawnCounts(
        responses=8, reward=pytest.approx(reward), response_tokens=3 + 2 + 5 + 5, truncated=2,
        pairs=1, trained_tokens=3, rewards_are_equal=1, one_is_truncated=2,
    )  # fmt: skip


def test_what_is_drawn_does_not_depend_on_what_was(tiny_tokenizer):
    made = source(tiny_tokenizer, Ruler(), contrasted=True)
    texts = [("a", "bc")] * 4
    one, other = Script(texts), Script(texts)
    together, _ = made.pairs(one, [0, 1], visit=1)
    alone, _ = made.pairs(other, [1], visit=1)
    assert alone[1] == together[1]
    assert other.asked == one.asked[1:]
    again, _ = made.pairs(Script(texts), [1], visit=2)
    assert again[1].prompt != alone[1].prompt
    # The other direction is the visit's second.
    w = sample_direction(made.distribution, SEED, 1, "1", 1)
    asked = messages(PROMPTS[1].prompt, direction_system_prompt(NAMES, w))
    assert alone[1].elsewhere == made.chat.prompt_ids(asked) != alone[1].prompt


def test_prompts_that_a_direction_makes_too_long_are_counted(tiny_tokenizer):
    made = source(tiny_tokenizer, Ruler(), max_prompt_tokens=5)
    assert made.pairs(Script([]), [0, 1], visit=1) == ({}, DrawnCounts(prompt_too_long=2))


# --- The contrast, by hand ------------------------------------------------------------------------


def test_the_contrast_by_hand():
    """At beta 0.5 and log ratios 2 and 0: -log sigmoid(1) = 0.313262."""
    asked = torch.tensor([2.0, -1.0], requires_grad=True)
    other = torch.tensor([0.0, 1.0], requires_grad=True)
    terms = contrast_terms(asked, other, 0.5)
    assert terms.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.e)])
    assert terms[0].item() == pytest.approx(0.313262, abs=1e-6)
    terms.sum().backward()
    assert asked.grad is None
    # d/d other = beta sigmoid(-beta (asked - other)): less likely elsewhere is a smaller loss.
    expected = [0.5 / (1 + math.e), 0.5 / (1 + math.exp(-1))]
    assert other.grad.tolist() == pytest.approx(expected)


def test_log_probabilities_of_responses_by_hand():
    """A model that gives token t after token s the logit log(1 + s + t): 3 tokens, two of them
    the response."""
    ids = torch.tensor([[0, 1, 2], [2, 0, 0]])

    def model(input_ids, attention_mask, use_cache):
        table = torch.log(torch.tensor([[1.0, 2, 3], [2, 3, 4], [3, 4, 5]]))
        return SimpleNamespace(logits=table[input_ids])

    mask = torch.tensor([[0, 1, 1], [0, 1, 0]])
    found = response_log_probabilities(
        model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
    )
    # After 0 comes 1 (2 of 6), then 2 (4 of 9); after 2 comes 0 (3 of 12).
    assert found.tolist() == pytest.approx([math.log(2 / 6 * 4 / 9), math.log(3 / 12)])


# --- Training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def terse(tiny_policy, tmp_path_factory):
    """A policy that was asked for few words, and its history."""
    output = tmp_path_factory.mktemp("terse") / "policy"
    return output, train(tiny_policy, output)


def test_it_learns_what_directions_ask_for(terse):
    history = terse[1]
    assert history["step"].tolist() == list(range(1, 13))
    assert history["reward"][-4:].mean() > history["reward"][:3].mean() + 10
    assert history["response_tokens"][-4:].mean() < history["response_tokens"][:3].mean() - 3


def test_the_history_starts_at_the_reference(terse):
    history = terse[1]
    assert history["kl"][0] == pytest.approx(0, abs=1e-4)
    assert history["loss"][0] == pytest.approx(math.log(2), abs=1e-4)
    assert np.nanmax(history["kl"]) > 0.2
    unpaired = history["rewards_are_equal"] + history["one_is_truncated"]
    assert (2 * (history["pairs"] + unpaired) == history["responses"]).all()


def test_the_sidecar_accounts_for_what_was_sampled(terse):
    sidecar, history = read_sidecar(terse[0]), terse[1]
    assert sidecar["counts"] == {"read": 16, "kept": 16, "dropped": {}}
    assert (sidecar["steps"], sidecar["responses"], sidecar["rows"]) == (12, 6 * 16 * 2, 16)
    tokens = (history["response_tokens"] * history["responses"]).sum()
    assert sidecar["response_tokens"] == pytest.approx(tokens, rel=1e-4)
    assert 0 < sidecar["trained_tokens"] < sidecar["response_tokens"]
    pairs = sidecar["pairs"]
    assert pairs["read"] == 6 * 16 == pairs["kept"] + sum(pairs["dropped"].values())
    assert pairs["kept"] == history["pairs"].sum()


@pytest.mark.parametrize("contrast_beta", [None, 0.1])
def test_a_kill_changes_nothing(tiny_policy, tmp_path, contrast_beta):
    options = {
        "trainer": TRAINER.model_copy(update={"save_steps": 2, "per_device_batch_size": 4}),
        "schedule": {"epochs": 4},
        "contrast_beta": contrast_beta,
    }
    train(tiny_policy, tmp_path / "whole/policy", **options)
    killed = tmp_path / "killed/policy"
    # At once, after a checkpoint was saved; and asked to end, which saves one.
    with pytest.raises(KeyboardInterrupt), struck(signal.SIGINT, 0, 3):
        train(tiny_policy, killed, **options)
    with struck(signal.SIGTERM, 0, 5):
        train(tiny_policy, killed, **options)
    assert not killed.exists()
    train(tiny_policy, killed, **options)
    for name in ("policy/model.safetensors", "history.csv"):
        found, expected = (tmp_path / f"{run}/{name}" for run in ("killed", "whole"))
        assert found.read_bytes() == expected.read_bytes(), name


def test_the_contrast_tells_directions_apart(tiny_policy, tmp_path):
    """Without any preference to learn, a response is likelier under its own direction."""
    arc = {"distribution": "arc", "from_degrees": -90.0, "to_degrees": 90.0}
    steps = {"epochs": 6, "learning_rate": 1e-3}
    plain = train(tiny_policy, tmp_path / "plain/policy", distribution=arc, schedule=steps)
    train(
        tiny_policy, tmp_path / "told/policy", distribution=arc, schedule=steps, contrast_beta=1.0
    )
    assert plain["loss"][0] == pytest.approx(math.log(2), abs=1e-4)
    gaps = [_gap(tmp_path / run / "policy") for run in ("plain", "told")]
    assert gaps[1] > gaps[0] + 0.5


@torch.no_grad()
def _gap(policy):
    """How much likelier an answer sampled under a direction is there than under the opposite."""
    from transformers import AutoModelForCausalLM

    model, chat = AutoModelForCausalLM.from_pretrained(policy).eval(), ChatTokenizer.load(policy)
    gaps = []
    for index, prompt in enumerate(PROMPTS):
        ends = [from_degrees(80), from_degrees(-80)]
        asked, other = (
            chat.prompt_ids(messages(prompt.prompt, direction_system_prompt(NAMES, v)))
            for v in (ends if index % 2 else ends[::-1])
        )
        torch.manual_seed(index)
        ids = torch.tensor([asked])
        answer = model.generate(ids, do_sample=True, max_new_tokens=24)[0, len(asked) :].tolist()
        logs = []
        for start in (asked, other):
            tokens = torch.tensor([start + answer])
            mask = torch.zeros_like(tokens)
            mask[:, len(start) :] = 1
            batch = {
                "input_ids": tokens,
                "attention_mask": torch.ones_like(tokens),
                "completion_mask": mask,
            }
            logs.append(float(response_log_probabilities(model, batch)))
        gaps.append(logs[0] - logs[1])
    return np.mean(gaps)


def test_adapters_learn_too(tiny_policy, tmp_path):
    lora = LoraConfig(rank=4, alpha=8, dropout=0.1)
    trainer = TRAINER.model_copy(update={"lora": lora})
    history = train(tiny_policy, tmp_path / "policy", trainer=trainer, schedule={"epochs": 2},
                    contrast_beta=0.1)  # fmt: skip
    assert history["kl"][0] == pytest.approx(0, abs=1e-4)
    old, new = (load_file(p / "model.safetensors") for p in (tiny_policy, tmp_path / "policy"))
    assert [n for n in new if "proj" in n and torch.equal(old[n], new[n])] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "no prompts to train on"),
        ({"sampling": sampling(max_prompt_tokens=500)}, "holds 512 tokens, fewer than .* = 524"),
        ({"reward_model": Ruler({})}, "of no two responses was one better .* rewards were equal"),
        ({"schedule": {"learning_rate": 1e10}}, "diverged: .*; lower|predicts NaN"),
    ],
)
def test_what_cannot_be_trained_is_refused(tiny_policy, tmp_path, changes, message):
    if isinstance(changes.get("reward_model"), Ruler):
        changes = {"reward_model": Dead(), "schedule": {"epochs": 1}}
    with pytest.raises(InputError, match=message):
        train(tiny_policy, tmp_path / "policy", **changes)
    assert not (tmp_path / "policy").exists()
    assert not (tmp_path / "history.csv").exists()


class Dead(Ruler):
    """A reward model that gives everything the same scores."""

    def score_chunk(self, groups):
        return [np.full((len(some), 2), 50.0) for _, some in groups]


def test_divergence_stops_with_a_remedy(tmp_path):
    history = DrawnHistory(tmp_path / "policy", 0.1)
    history.on_train_begin(None, TrainerState(global_step=7, max_steps=10), None)
    logs = {f"drawn/{name}": 1.0 for name in DrawnCounts._fields}
    logs |= {
        "rows": 1,
        "loss": 0.5,
        "grad_norm": math.nan,
        "rewards/chosen": 0.0,
        "rewards/rejected": 0.0,
    }
    with pytest.raises(InputError, match="nan at step 7; lower"):
        history.on_log(None, TrainerState(global_step=7), None, logs=logs)
