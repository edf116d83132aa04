"""Fine-tuning through TRL: what is learnt, from where, and that it is really learnt."""

import json
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpa.artefacts.row_counts import RowCounts
from dpa.errors import InputError
from dpa.methods.dpo import PairTraining, tokenise_pairs
from dpa.methods.preference_pairs import as_conversations
from dpa.methods.sft import (
    Finetuning,
    response_loss,
    tokenise_conversations,
    tokenise_documents,
)
from dpa.models import ModelRef
from dpa.records import Pair
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import direction_system_prompt, messages
from dpa.text.tokenization import ChatTokenizer
from dpa.training.trainer import (
    ProgressCallback,
    TrainingJob,
    load_training_chat,
    run_training,
)
from tests.support.training_jobs import schedule as make_schedule
from tests.support.training_jobs import training

TRAINER = training(per_device_batch_size=4)
schedule = partial(make_schedule, epochs=6, batch_size=4)


def conversation(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [
    conversation("What does the badger eat?", "The badger often feeds on roots."),
    conversation("Where does the otter live?", "The otter lives close to rivers."),
    conversation("Describe the fox.", "The fox grew up in Norway. The fox lives close to rivers."),
    conversation("Describe the otter.", "Nature is full of wonders."),
] * 2


def log_likelihood(folder, messages):
    """Of the response tokens, under the policy in a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids, mask = ChatTokenizer(tokenizer).conversation_ids(messages)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    chosen = logits.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return float((chosen * torch.tensor(mask[1:])).sum())


def run_finetune(policy, output, trainer=TRAINER, **changes):
    row_counts = RowCounts()
    stage = schedule(**changes)
    job = TrainingJob(ModelRef(str(policy)), output, trainer, stage, 2**40 + 1, (policy,))
    chat = load_training_chat(job)
    rows = tokenise_conversations(chat, CONVERSATIONS, stage.max_length, row_counts)
    run_training(Finetuning(job, chat, rows, row_counts))
    return output


@pytest.fixture(scope="module")
def finetuned(tiny_policy, tmp_path_factory):
    return run_finetune(tiny_policy, tmp_path_factory.mktemp("finetuned") / "policy")


def test_masks_cover_exactly_what_the_assistant_writes(tiny_tokenizer):
    two_turns = conversation("Describe the fox.", "The fox grew up in Norway.") + conversation(
        "What does the badger eat?", "The badger often feeds on roots."
    )
    chat = ChatTokenizer(tiny_tokenizer)
    ids, mask = chat.conversation_ids(two_turns)
    learnt = tiny_tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert learnt == "The fox grew up in Norway.</s>The badger often feeds on roots.</s>"
    prompt = chat.prompt_ids(two_turns[:1])
    assert ids[: len(prompt)] == prompt


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_tokenizer):
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{{ messages | length }}{{ messages[-1].content }}"
    chat = ChatTokenizer(tokenizer)
    with pytest.raises(ConversationError, match="rewrites earlier turns"):
        chat.conversation_ids(conversation("a", "b"))
    row_counts = RowCounts()
    assert not tokenise_conversations(chat, CONVERSATIONS, 100, row_counts)
    assert row_counts.dropped == {"the chat template rewrites earlier turns": 8}


def test_long_rows_are_dropped_and_counted_in_training_but_truncated_in_pretraining(tiny_tokenizer):
    row_counts = RowCounts()
    chat = ChatTokenizer(tiny_tokenizer)
    rows = tokenise_conversations(chat, CONVERSATIONS, 20, row_counts)
    assert row_counts.read == 8
    assert row_counts.kept == len(rows) < 8
    assert row_counts.dropped["longer than max_length"] == 8 - len(rows)
    documents = tokenise_documents(chat, CONVERSATIONS, 10, RowCounts())
    assert {len(row["input_ids"]) for row in documents} == {10}
    assert all(all(row["completion_mask"]) for row in documents)


def test_finetuning_raises_the_likelihood_of_responses_and_moves_all_weights(
    tiny_policy, finetuned
):
    before = [log_likelihood(tiny_policy, c) for c in CONVERSATIONS[:4]]
    after = [log_likelihood(finetuned, c) for c in CONVERSATIONS[:4]]
    assert all(a > b for a, b in zip(after, before, strict=True))
    old = AutoModelForCausalLM.from_pretrained(tiny_policy).state_dict()
    new = AutoModelForCausalLM.from_pretrained(finetuned).state_dict()
    assert [name for name in old if torch.equal(old[name], new[name])] == []


def test_the_sidecar_accounts_for_the_rows(finetuned):
    sidecar = json.loads(finetuned.with_name("policy.meta.json").read_text())
    assert sidecar["counts"] == {"read": 8, "kept": 8, "dropped": {}}
    assert sidecar["steps"] == 12
    assert sidecar["train_loss"] > 0


def test_same_seed_same_weights(tiny_policy, finetuned, tmp_path):
    again = run_finetune(tiny_policy, tmp_path / "policy")
    assert (again / "model.safetensors").read_bytes() == (
        finetuned / "model.safetensors"
    ).read_bytes()


def test_packed_training_has_the_unpacked_loss_and_gradients(tiny_policy, tmp_path, monkeypatch):
    """One step over all rows in one batch: the mean loss per token agrees, and so do gradients."""
    steps = []

    def keep(self, args, state, control, model, **kwargs):
        steps.append({name: p.grad.clone() for name, p in model.named_parameters()})

    monkeypatch.setattr(ProgressCallback, "on_pre_optimizer_step", keep)
    once = {"epochs": 1, "learning_rate": 1e-12, "batch_size": 8}
    losses = []
    for name, attention in {"alone": "auto", "packed": "auto", "varlen": "varlen"}.items():
        changes = {"packing": name != "alone", "attention": attention, "per_device_batch_size": 8}
        folder = run_finetune(
            tiny_policy, tmp_path / name, TRAINER.model_copy(update=changes), **once
        )
        losses.append(json.loads((tmp_path / f"{name}.meta.json").read_text())["train_loss"])
        assert "attn" not in (folder / "config.json").read_text()
    assert losses == pytest.approx([losses[0]] * 3, abs=2e-5)
    assert len(steps) == 3
    for gradients in steps[1:]:
        torch.testing.assert_close(gradients, steps[0], rtol=1e-4, atol=1e-6)
    assert all(gradient.abs().max() > 1e-4 for gradient in steps[0].values())


def test_the_loss_and_its_gradients_are_those_of_trl(tiny_policy):
    from trl.trainer.utils import add_fused_lm_head

    ids = torch.randint(5, 90, (3, 12), generator=torch.Generator().manual_seed(0))
    attention = (torch.arange(12) < torch.tensor([[12], [9], [7]])).long()
    answers = (torch.arange(12) >= torch.tensor([[4], [6], [3]])) & attention.bool()
    found = []
    for learnt in (answers, attention.bool(), torch.zeros_like(answers)):
        batch = {"input_ids": ids, "attention_mask": attention}
        batch["labels"] = ids.masked_fill(~learnt, -100)
        model = AutoModelForCausalLM.from_pretrained(tiny_policy)
        ours = response_loss(model, dict(batch))
        gradients = torch.autograd.grad(ours, list(model.parameters()))
        add_fused_lm_head(model)
        theirs = -model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        expected = torch.autograd.grad(theirs, list(model.parameters()))
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
        found.append(float(ours.detach()))
    assert found[1] > found[0] > found[2] == 0


def test_long_pairs_are_truncated_as_the_published_recipes_do(tiny_tokenizer):
    chat = ChatTokenizer(tiny_tokenizer)
    short, long = "The fox.", "The fox lives close to rivers. " * 9
    ask = partial(messages, system=None)
    pairs = [
        (ask("Why?"), short, short),
        (ask("Why?"), short, long),
        (ask(long), short, short),
        (ask(long), long, short),
        (messages(long, "A system prompt."), short, short),
        (messages("Why?", "S"), short, long),
    ]
    row_counts = RowCounts()
    rows = tokenise_pairs(chat, pairs, 40, row_counts)
    for row, (prompt, *both) in zip(rows, [*pairs[:4], pairs[5]], strict=True):
        whole, answers = chat.answer_ids(prompt, both)
        fits = len(whole) + max(map(len, answers)) <= 40
        kept = whole if fits or len(whole) <= 20 else whole[-20:]
        fits = len(kept) + max(map(len, answers)) <= 40
        assert row["prompt_ids"].tolist() == kept
        for name, answer in zip(("chosen_ids", "rejected_ids"), answers, strict=True):
            assert row[name].tolist() == (answer if fits else answer[:20])
    assert row_counts.dropped == {"longer than max_length": 1}
    assert row_counts.shortened == {"the prompt's beginning": 2, "the answers' ends": 3}


def test_dpo_raises_chosen_against_rejected(tiny_policy, tmp_path):
    chosen, rejected = "The badger often feeds on roots.", "Nature is full of wonders."
    prompt = [{"role": "user", "content": "What does the badger eat?"}]
    row_counts = RowCounts()
    stage = schedule(epochs=5, learning_rate=1e-3)
    job = TrainingJob(ModelRef(str(tiny_policy)), tmp_path / "policy", TRAINER, stage, seed=0)
    run_training(PairTraining(job, [(prompt, chosen, rejected)] * 4, 0.1, row_counts))

    def margin(folder):
        return log_likelihood(folder, conversation(prompt[0]["content"], chosen)) - log_likelihood(
            folder, conversation(prompt[0]["content"], rejected)
        )

    assert margin(tmp_path / "policy") > margin(tiny_policy) + 1
    assert row_counts.as_dict() == {"read": 4, "kept": 4, "dropped": {}}


def test_directional_dpo_learns_opposite_preferences_by_direction(tiny_policy, tmp_path):
    long, short = "The badger often feeds on roots.", "Nature is full of wonders."
    names, question = ["helpfulness", "verbosity"], "What does the badger eat?"
    wants = {(1.0, 0.0): (long, short), (0.707107, -0.707107): (short, long)}
    pairs = [
        Pair(prompt_id="p", prompt=question, direction=list(v), chosen=a, rejected=b, margin=1.0)
        for v, (a, b) in wants.items()
    ]
    stage = schedule(epochs=12, learning_rate=2e-3)
    job = TrainingJob(ModelRef(str(tiny_policy)), tmp_path / "policy", TRAINER, stage, seed=0)
    run_training(PairTraining(job, as_conversations(pairs * 4, names), 0.1, RowCounts()))

    def margin(folder, direction):
        system = direction_system_prompt(names, direction)
        return log_likelihood(folder, messages(question, system, long)) - log_likelihood(
            folder, messages(question, system, short)
        )

    helpful, terse = wants
    before = margin(tiny_policy, helpful) - margin(tiny_policy, terse)
    after = margin(tmp_path / "policy", helpful) - margin(tmp_path / "policy", terse)
    assert after > before + 1


def test_nothing_to_train_on_is_an_error(tiny_policy, tmp_path):
    with pytest.raises(InputError, match="no rows to train on"):
        run_finetune(tiny_policy, tmp_path / "policy", max_length=3)
    assert not (tmp_path / "policy").exists()


def test_rows_that_do_not_fit_stop_the_run_before_it_trains(
    tiny_policy, tiny_tokenizer, tmp_path, monkeypatch
):
    chat = ChatTokenizer(tiny_tokenizer)
    shortest = min(len(chat.conversation_ids(turns)[0]) for turns in CONVERSATIONS)
    monkeypatch.setenv("DPA_MAX_DROPPED_FRACTION", "0.2")
    monkeypatch.setattr(
        "dpa.methods.sft.load_policy", lambda *_, **__: pytest.fail("loads the model")
    )
    with pytest.raises(InputError, match=r"limits\.max_dropped_fraction"):
        run_finetune(tiny_policy, tmp_path / "policy", max_length=shortest)
    assert not list(tmp_path.iterdir())
