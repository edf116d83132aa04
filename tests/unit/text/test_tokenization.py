"""From messages to tokens and back, on the kinds of tokenizers and templates that are published."""

from datetime import date, datetime

import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.chat import ModelsConfig
from dpa.config.sampling import SamplingConfig
from dpa.errors import InputError
from dpa.models import ModelRef
from dpa.records import Prompt, Sample, Turn
from dpa.text.chat_template import ConversationError
from dpa.text.prompts import messages
from dpa.text.tokenization import ChatTokenizer
from tests.support.chat_tokenizers import (
    ANSWERS,
    FAMILIES,
    GEMMA,
    HEADERS,
    IM,
    LLAMA_3,
    MISTRAL,
    QWEN_2_5,
    ZEPHYR,
    byte_level,
    make_tokenizer,
    save_policy,
    sentencepiece,
)
from tests.support.training_jobs import schedule, training

SAMPLING = SamplingConfig(
    engine="transformers", kv_cache_dtype="auto", temperature=1.0, max_new_tokens=4,
    max_prompt_tokens=80, prompts_per_chunk=1, rows_per_batch=4, max_truncated_fraction=1.0,
)  # fmt: skip
QUESTION = messages("Tell me.", "Be brief.")
TODAY = date(2001, 2, 3)


def models(**changes) -> ModelsConfig:
    return ModelsConfig(**{"add_bos": "auto", "chat_template_date": TODAY} | changes)


@pytest.fixture(scope="module", params=FAMILIES)
def chat(request):
    return ChatTokenizer(make_tokenizer(request.param), models())


def answered(answer: str) -> list[dict]:
    return [*QUESTION, {"role": "assistant", "content": answer}]


def whole(chat: ChatTokenizer, turns: list[dict]) -> list[int]:
    """Tokens of the whole text at once, behind a BOS where one is added."""
    ids = chat.tokenizer(chat.render(turns), add_special_tokens=False)["input_ids"]
    return [chat.tokenizer.bos_token_id] * chat.adds_bos + ids


def check_whole(chat: ChatTokenizer, turns: list[dict]) -> None:
    """The conversation's tokens are those of the whole text, up to the last answer's end token."""
    ids, text = chat.conversation_ids(turns)[0], whole(chat, turns)
    assert text[: len(ids)] == ids
    assert ids[-1] == chat.tokenizer.eos_token_id
    assert not chat.tokenizer.decode(text[len(ids) :]).strip()


# --- The seam ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answers_tokens_give_it_back_behind_the_prompts(chat, kind):
    answer = chat.controls.escape(ANSWERS[kind])
    prompt, [own] = chat.answer_ids(QUESTION, [answer])
    assert prompt == chat.prompt_ids(QUESTION)
    ids, mask = chat.conversation_ids(answered(answer))
    assert (ids, mask) == (prompt + own, [0] * len(prompt) + [1] * len(own))
    end = own.index(chat.tokenizer.eos_token_id)
    assert own.count(chat.tokenizer.eos_token_id) == 1
    assert chat.decode(own[:end]) == answer
    # In place, too: nothing is between the template's prompt and the answer but the template's own.
    before, text = (chat.tokenizer.decode(i) for i in (prompt, prompt + own[:end]))
    assert text.removeprefix(before).removeprefix(chat._lead) == answer


@pytest.mark.parametrize("kind", ["plain", "only a letter", "emoji", "CJK", "right to left"])
def test_where_nothing_merges_the_tokens_are_those_of_the_whole_text(chat, kind):
    turns = answered(ANSWERS[kind])
    check_whole(chat, turns)
    longer = [*turns, {"role": "user", "content": "And then?"}]
    text = chat.render(longer, generation_prompt=True)
    ids = chat.prompt_ids(longer)
    assert ids[: len(chat.conversation_ids(turns)[0])] == chat.conversation_ids(turns)[0]
    assert chat.tokenizer.decode(ids).replace(" ", "") == (
        ("<s>" if chat.adds_bos else "") + text
    ).replace(" ", "")
    last = [*longer, {"role": "assistant", "content": ANSWERS["plain"]}]
    check_whole(chat, last)


def test_no_space_is_invented_before_an_answer():
    for family in ("zephyr", "gemma", "mistral"):
        chat = ChatTokenizer(make_tokenizer(family), models())
        _, [own] = chat.answer_ids(QUESTION, ["Hello there."])
        text = "".join(chat.tokenizer.convert_ids_to_tokens(own))
        # Mistral's template itself writes a space there, which a policy has to write, too.
        assert text.startswith("▁Hello" if family == "mistral" else "Hello")
    # A policy that writes a space nevertheless is taken at its word.
    chat = ChatTokenizer(make_tokenizer("zephyr"), models())
    _, [own] = chat.answer_ids(QUESTION, [" Hello there."])
    assert chat.decode(own).startswith(" Hello there.")


def test_a_template_that_ends_in_two_line_ends():
    chat = ChatTokenizer(make_tokenizer("llama3"), models())
    assert chat.render(QUESTION, generation_prompt=True).endswith("\n\n")
    prompt, [own] = chat.answer_ids(QUESTION, ["\nYes."])
    assert chat.tokenizer.convert_ids_to_tokens(own)[0] == "Ċ"
    # The whole text has other tokens there, which no policy is asked with.
    text = chat.render(QUESTION, generation_prompt=True) + "\nYes."
    merged = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert merged[: len(prompt)] != prompt


def test_what_the_template_writes_behind_the_end_token_is_not_learnt(chat):
    """A policy is not asked for more there: Zephyr's, Gemma's and ChatML's line end."""
    turns = [*answered("Yes."), {"role": "user", "content": "Go on."}, *answered("No.")[-1:]]
    ids, mask = chat.conversation_ids(turns)
    end = chat.tokenizer.eos_token_id
    ends = [
        i
        for i, (token, learnt) in enumerate(zip(ids, mask, strict=True))
        if learnt and token == end
    ]
    assert len(ends) == 2
    assert mask[ends[0] + 1] == 0
    assert ends[1] == len(ids) - 1
    _, answers = chat.answer_ids(QUESTION, ["Yes.", "No."])
    assert {answer[-1] for answer in answers} == {end}


def test_the_last_answer_alone_is_learnt_where_the_others_are_part_of_the_prompt(chat):
    turns = [*answered("Yes."), {"role": "user", "content": "Go on."}]
    ids, mask = chat.conversation_ids(
        [*turns, {"role": "assistant", "content": "No."}], last_answer_only=True
    )
    prompt, [answer] = chat.answer_ids(turns, ["No."])
    assert (ids, mask) == (prompt + answer, [0] * len(prompt) + [1] * len(answer))


@pytest.mark.parametrize("family", ["llama3", "qwen2.5", "zephyr"])
def test_earlier_answers_are_the_same_tokens_when_sampled_from_and_when_trained_on(family):
    chat = ChatTokenizer(make_tokenizer(family), models())
    turns = [*answered("\n\nA list:\n"), {"role": "user", "content": "Go on."}]
    ids, mask = chat.conversation_ids([*turns, {"role": "assistant", "content": "\nNo."}])
    prompt = chat.prompt_ids(turns)
    assert ids[: len(prompt)] == prompt
    first, [own] = chat.answer_ids(QUESTION, ["\n\nA list:\n"])
    assert mask[: len(first + own)] == [0] * len(first) + [1] * len(own)


def test_rendering_and_tokenising_take_time_in_proportion_to_turns(monkeypatch):
    chat = ChatTokenizer(make_tokenizer("chatml"), models())
    calls = {"tokens": 0}
    encode = chat._encode

    def counting(text):
        calls["tokens"] += len(text)
        return encode(text)

    monkeypatch.setattr(chat, "_encode", counting)
    found = []
    for turns in (4, 8, 16):
        calls["tokens"] = 0
        pair = [{"role": "user", "content": "a" * 50}, {"role": "assistant", "content": "b" * 50}]
        chat.conversation_ids(pair * turns)
        found.append(calls["tokens"])
    assert found[2] < 2.2 * found[1] < 2.2**2 * found[0]


def test_what_cannot_be_laid_out_is_dropped_and_counted(tmp_path):
    from dpa.generation.sample import Steering, always, sample_file
    from dpa.methods.dpo import PairTraining
    from dpa.methods.sft import tokenise_conversations
    from dpa.training.trainer import TrainingJob

    policy = save_policy(tmp_path / "policy", "gemma")
    chat = ChatTokenizer.load(policy)
    good = answered("Yes.")
    twice = [{"role": "user", "content": "a"}, *messages("b", None, "c")]
    lone = [{"role": "assistant", "content": "c"}]
    row_counts = RowCounts()
    rows = tokenise_conversations(chat, [good, twice, lone, good], 100, row_counts)
    assert len(rows) == row_counts.kept == 2
    assert row_counts.dropped == {"refused by the chat template": 2}
    with pytest.raises(ConversationError) as error:
        chat.conversation_ids(twice)
    assert error.value.detail == "roles must alternate"

    row_counts = RowCounts()
    job = TrainingJob(ModelRef(str(policy)), tmp_path / "dpo", training(), schedule(), seed=0)
    pairs = [(QUESTION, "Yes.", "No."), (twice, "Yes.", "No.")]
    assert len(PairTraining(job, pairs, 0.1, row_counts).rows) == 1
    assert row_counts.dropped == {"refused by the chat template": 1}

    prompts = tmp_path / "prompts.jsonl"
    turns = [Turn("user", "a"), Turn("user", "b")]
    write_jsonl(
        prompts,
        [
            Prompt(prompt_id="0", prompt="Tell me.", source="test"),
            Prompt(prompt_id="1", prompt=turns, source="test"),
        ],
    )
    sample_file(
        tmp_path / "sampled.jsonl", policy=policy, prompts=prompts, names=[], seed=0, iteration=0,
        steer=always([Steering(0)]), sampling=SAMPLING,
    )  # fmt: skip
    assert [r.prompt_id for r in read_jsonl(tmp_path / "sampled.jsonl", Sample)] == ["0"]
    counts = read_sidecar(tmp_path / "sampled.jsonl")["counts"]
    assert counts["dropped"] == {"refused by the chat template": 1}


@pytest.mark.slow
def test_answers_that_begin_with_line_ends_are_trained_on(tmp_path):
    from dpa.methods.dpo import PairTraining
    from dpa.methods.sft import finetune_conversations
    from dpa.training.trainer import TrainingJob, run_training

    policy = save_policy(tmp_path / "start", "chatml")
    answers = ["Hello there", "\n\nA list:\n\n1. one"]
    job = TrainingJob(
        ModelRef(str(policy)), tmp_path / "sft", training(), schedule(epochs=1), seed=0
    )
    finetune_conversations(job, [answered(answer) for answer in answers] * 4)
    assert read_sidecar(tmp_path / "sft")["counts"] == {"read": 8, "kept": 8, "dropped": {}}
    job = TrainingJob(
        ModelRef(str(policy)), tmp_path / "dpo", training(), schedule(epochs=1), seed=0
    )
    run_training(PairTraining(job, [(QUESTION, *answers)] * 8, 0.1, RowCounts()))
    assert read_sidecar(tmp_path / "dpo")["counts"] == {"read": 8, "kept": 8, "dropped": {}}


# --- BOS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("add_bos", "template", "begins"),
    [
        ("auto", ZEPHYR, True),
        (True, ZEPHYR, True),
        (False, ZEPHYR, False),
        # Their templates write it.
        ("auto", MISTRAL, True),
        (True, GEMMA, True),
        (False, GEMMA, True),
    ],
)
def test_a_bos_is_there_once_or_not_at_all(add_bos, template, begins):
    tokenizer = sentencepiece(template, [], "</s>", "legacy")
    chat = ChatTokenizer(tokenizer, models(add_bos=add_bos))
    for ids in (chat.prompt_ids(QUESTION), chat.conversation_ids(answered("Yes."))[0]):
        assert ids.count(tokenizer.bos_token_id) == begins
        assert (ids[0] == tokenizer.bos_token_id) == begins
    adds = begins and template is ZEPHYR
    assert chat.adds_bos == chat.details()["bos_added"] == adds


def test_tokenizers_that_begin_with_no_bos_get_none():
    chatml = byte_level(QWEN_2_5, IM, "<|im_end|>", "<|im_start|>")
    # SmolLM2's BOS is what its template begins with; a second one would open a turn.
    plain = ChatTokenizer(chatml, models(add_bos=False)).prompt_ids(QUESTION)
    for add_bos in ("auto", True):
        assert ChatTokenizer(chatml, models(add_bos=add_bos)).prompt_ids(QUESTION) == plain
    chat = ChatTokenizer(make_tokenizer("qwen2.5"), models(add_bos=True))
    with pytest.raises(InputError, match=r"models\.add_bos: the tokenizer of .* has no BOS token"):
        chat.prompt_ids(QUESTION)


def test_sampling_and_training_begin_alike_and_say_so(tmp_path):
    from dpa.generation.engine import Request
    from dpa.generation.load import load_engine
    from dpa.generation.sample import Steering, always, sample_file
    from dpa.methods.dpo import PairTraining
    from dpa.methods.rloo import fitting_prompts
    from dpa.methods.sft import finetune_conversations
    from dpa.training.trainer import TrainingJob

    policy = save_policy(tmp_path / "start", "zephyr")
    prompts = tmp_path / "prompts.jsonl"
    asked = Prompt(prompt_id="0", prompt="Tell me.", source="test")
    write_jsonl(prompts, [asked])
    lengths = {}
    for add_bos in (True, False):
        output = tmp_path / f"{add_bos}"
        sample_file(
            output.with_suffix(".jsonl"), policy=policy, prompts=prompts, names=[], seed=0,
            iteration=0, steer=always([Steering(0)]), sampling=SAMPLING,
            models=models(add_bos=add_bos),
        )  # fmt: skip
        [record] = read_jsonl(output.with_suffix(".jsonl"), Sample)
        job = TrainingJob(
            ModelRef(str(policy)), output, training(), schedule(epochs=1), seed=0,
            models=models(add_bos=add_bos),
        )  # fmt: skip
        [row, *_] = PairTraining(job, [(messages("Tell me.", None), "a", "b")], 1, RowCounts()).rows
        assert len(row["prompt_ids"]) == record.prompt_tokens
        lengths[add_bos] = record.prompt_tokens
        finetune_conversations(job, [answered("Yes.")] * 8)
        for path in (output, output.with_suffix(".jsonl")):
            sidecar = read_sidecar(path)
            assert sidecar["bos_added"] is add_bos
            assert sidecar["models"] == {"add_bos": add_bos, "chat_template_date": str(TODAY)}
        chat = ChatTokenizer.load(policy, models(add_bos=add_bos))

        def ids(prompt, chat=chat):
            return chat.prompt_ids(messages(prompt.prompt, None))

        assert fitting_prompts([asked], ids, record.prompt_tokens, RowCounts())
        assert not fitting_prompts([asked], ids, record.prompt_tokens - 1, RowCounts())
    assert lengths[True] == lengths[False] + 1
    # The engine decodes as training encodes: a space that a policy begins with is not lost.
    engine = load_engine(
        "transformers", policy, temperature=1.0, max_new_tokens=4, max_model_len=100,
        rows_per_batch=4, models=models(),
    )  # fmt: skip
    [[completions]] = engine.generate(
        [[Request(engine.chat.prompt_ids(QUESTION), list(range(40)))]]
    )
    for text in {completion.text for completion in completions}:
        if "\ufffd" not in text:
            assert engine.chat.decode(engine.chat.part_ids(text)) == text


# --- The date ----------------------------------------------------------------------------------


class NoClock(datetime):
    @classmethod
    def now(cls, tz=None):
        raise AssertionError("a rendering has read the clock")


@pytest.mark.parametrize("way", ["strftime_now", "date_string"])
def test_a_template_gets_the_constant_date_and_no_rendering_reads_the_clock(way, monkeypatch):
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", NoClock)
    template = LLAMA_3
    if way == "strftime_now":
        template = template.replace("date_string | default(today)", "strftime_now('%d %b %Y, %H')")
    tokenizer = byte_level(template, HEADERS, "<|eot_id|>", HEADERS[0])
    chat = ChatTokenizer(tokenizer, models())
    for ids in (chat.prompt_ids(QUESTION), chat.conversation_ids(answered("Yes."))[0]):
        assert "Today Date: 03 Feb 2001" in tokenizer.decode(ids)
    chat.check_system_prompt()
    later = ChatTokenizer(tokenizer, models(chat_template_date="2001-02-04"))
    assert "Today Date: 04 Feb 2001" in tokenizer.decode(later.prompt_ids(QUESTION))
    # What the clock would be read for without the date.
    with pytest.raises(AssertionError, match="has read the clock"):
        tokenizer.apply_chat_template(QUESTION)
