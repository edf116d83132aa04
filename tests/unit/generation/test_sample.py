"""Sampling a file: sharding, resuming, steering, row_counts, truncation."""

from itertools import chain, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.sidecars import read_sidecar
from dpa.conditions import Conditions, draw_condition
from dpa.config.sampling import SamplingConfig
from dpa.directions import sample_direction
from dpa.errors import InputError
from dpa.generation import sample as sampling
from dpa.generation.sample import (
    Steering,
    drawn_conditions,
    drawn_directions,
    request_for,
    sample_file,
    shard_chunks,
)
from dpa.records import Prompt, Sample, Turn
from dpa.seeds import sample_seed
from dpa.text.prompts import direction_system_prompt, messages, prompt_id
from dpa.text.tokenization import ChatTokenizer

LAW = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}
NAMES = ["helpfulness", "verbosity"]
SETTINGS = SamplingConfig(
    engine="transformers",
    kv_cache_dtype="auto",
    temperature=1.0,
    max_new_tokens=24,
    max_prompt_tokens=80,
    prompts_per_chunk=3,
    rows_per_batch=16,
    max_truncated_fraction=1.0,
)
LONG = "What does the badger eat? " * 20
DIRECTIONS = drawn_directions(LAW, 0, 2, directions=2, samples=3)


@pytest.fixture
def prompts(tmp_path) -> Path:
    """Eleven prompts, one of them a conversation; the second and the eighth are too long."""
    texts = [f"Describe the otter {n}." for n in range(11)]
    texts[1], texts[7] = LONG, LONG + "?"
    rows = [Prompt(prompt_id=prompt_id(t), prompt=t, source="test") for t in texts]
    turns = [Turn("user", "Where?"), Turn("assistant", "Norway."), Turn("user", "Why?")]
    rows[4] = Prompt(prompt_id=prompt_id(turns), prompt=turns, source="test")
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def sample(tiny_policy, prompts, tmp_path):
    """Samples a shard into a file of the given name."""

    def run(name="samples.jsonl", steer=DIRECTIONS, settings=SETTINGS, **options) -> Path:
        options = {"seed": 0, "iteration": 2, "prompts": prompts} | options
        sample_file(
            tmp_path / name,
            policy=tiny_policy,
            steer=steer,
            names=NAMES,
            sampling=settings,
            **options,
        )
        return tmp_path / name

    return run


@given(
    n_prompts=st.integers(0, 60),
    prompts_per_chunk=st.integers(1, 9),
    shards=st.integers(1, 12),
)
def test_shards_are_whole_chunks_in_order_and_balanced(n_prompts, prompts_per_chunk, shards):
    parts = [shard_chunks(n_prompts, prompts_per_chunk, s, shards) for s in range(shards)]
    assert [*chain(*parts)] == shard_chunks(n_prompts, prompts_per_chunk, 0, 1)
    assert [*chain(*chain(*parts))] == list(range(n_prompts))
    assert all(len(chunk) == prompts_per_chunk for chunk in [*chain(*parts)][:-1])
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shards", [2, 7])
def test_bytes_do_not_depend_on_the_number_of_shards(sample, shards):
    whole = sample("whole.jsonl").read_bytes()
    parts = [sample(f"{s}.jsonl", shard=s, shards=shards).read_bytes() for s in range(shards)]
    assert b"".join(parts) == whole
    assert whole.count(b"\n") == 9 * 2 * 3


@pytest.mark.vllm
def test_vllm_too_gives_the_same_bytes_for_any_number_of_shards(sample):
    pytest.importorskip("vllm")
    settings = SETTINGS.model_copy(update={"engine": "vllm"})
    whole = sample("whole.jsonl", settings=settings).read_bytes()
    parts = [
        sample(f"{s}.jsonl", settings=settings, shard=s, shards=2).read_bytes() for s in range(2)
    ]
    assert b"".join(parts) == whole
    assert whole.count(b"\n") == 54


def test_a_shard_that_does_not_exist_is_refused(sample):
    with pytest.raises(InputError, match="from 0 to 1"):
        sample(shard=2, shards=2)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("chunks", "left"), [(1, 1.0), (2, 0.99), (2, 0.2), (3, 1.0), (3, 0.5)])
def test_a_killed_run_resumes_to_the_same_bytes(sample, monkeypatch, chunks, left):
    """It is killed after some chunks; of what it wrote a share is left on the disk."""
    expected = sample("expected.jsonl")
    load_engine, made = sampling.load_engine, []

    class Recording:
        """The real engine, which stops after some chunks."""

        def __init__(self, *args, **options):
            self.engine = load_engine(*args, **options)
            self.limit = None if made else chunks

        def generate(self, wanted):
            for result in islice(self.engine.generate(wanted), self.limit):
                made.append(result)
                yield result
            if self.limit is not None:
                raise Interrupted

        def close(self):
            self.engine.close()

    monkeypatch.setattr(sampling, "load_engine", Recording)
    with pytest.raises(Interrupted):
        sample()
    partial = expected.with_name("samples.jsonl.partial")
    content = partial.read_bytes()
    assert expected.read_bytes().startswith(content)
    content = content[: round(left * len(content))]
    partial.write_bytes(content)
    complete = sum(end <= content.count(b"\n") for end in (12, 30, 42, 54))
    resumed = sample()
    assert resumed.read_bytes() == expected.read_bytes()
    assert len(made) == chunks + 4 - complete
    assert not partial.exists()
    ours, theirs = read_sidecar(resumed), read_sidecar(expected)
    assert {**ours, "artefact": ""} == {**theirs, "artefact": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"iteration": 4},
        {"steer": drawn_directions(LAW, 0, 2, directions=3, samples=2)},
        {"settings": SETTINGS.model_copy(update={"temperature": 0.5})},
    ],
)
def test_leftovers_of_another_run_are_discarded(sample, tmp_path, change):
    expected = sample("expected.jsonl", **change).read_bytes()
    partial = tmp_path / "samples.jsonl.partial"
    for stop in (None, partial):  # the second time there is a partial file of the first kind
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling.ChunkedWriter, "finish", _interrupt)
            with pytest.raises(Interrupted):
                sample(**({} if stop is None else change))
    assert partial.read_bytes() == expected


def _interrupt(self, *arguments):
    self.file.close()
    raise Interrupted


def test_records_of_directions(sample, prompts, tiny_policy):
    records = read_jsonl(sample(), Sample)
    chat = ChatTokenizer.load(tiny_policy)
    kept = [p for p in read_jsonl(prompts, Prompt) if LONG not in p.prompt]
    assert len(records) == len(kept) * 6
    everything = iter(records)
    for prompt in kept:
        for index in range(2):
            direction = sample_direction(LAW, 0, 2, prompt.prompt_id, index)
            system = direction_system_prompt(NAMES, direction)
            ids = chat.prompt_ids(messages(prompt.prompt, system))
            for number in range(3):
                record = next(everything)
                assert record.prompt_id == prompt.prompt_id
                assert (record.direction_index, record.sample_index) == (index, number)
                assert (record.direction, record.condition) == (direction, None)
                assert record.seed == sample_seed(0, 2, prompt.prompt_id, index, number)
                assert record.prompt_tokens == len(ids)
                assert 1 <= record.response_tokens <= 24
    assert len({r.seed for r in records}) == len(records)
    assert len({r.response for r in records}) > len(records) / 2


def test_records_of_conditions(sample, prompts):
    conditions = Conditions(targets=[[80.0, 20.0], [60.0, 70.0]], curve=[[80, 20]])
    steer = drawn_conditions(conditions, seed=5, samples=4, noise=8, uniform_share=0.3)
    records = read_jsonl(sample(steer=steer, seed=5, iteration=1), Sample)
    assert len(records) == 9 * 4
    for number, record in enumerate(records):
        index = number % 4
        expected = draw_condition(conditions, 5, record.prompt_id, index, 8, 0.3)
        assert (record.direction_index, record.sample_index) == (-1, index)
        assert (record.direction, record.condition) == (None, expected)
        assert record.seed == sample_seed(5, 1, record.prompt_id, -1, index)
    assert len({tuple(r.condition) for r in records}) > 20


def test_a_fixed_grid_serves_evaluation(sample):
    grid = [
        Steering(0, direction=[1.0, 0.0], samples=2),
        Steering(1, condition=[70, 30]),
        Steering(2),
    ]
    records = read_jsonl(sample(steer=lambda prompt_id: grid), Sample)
    assert len(records) == 9 * 4
    assert [(r.direction_index, r.sample_index) for r in records[:4]] == [
        (0, 0), (0, 1), (1, 0), (2, 0),
    ]  # fmt: skip
    assert [(r.direction, r.condition) for r in records[1:4]] == [
        ([1.0, 0.0], None), (None, [70, 30]), (None, None),
    ]  # fmt: skip


def test_a_direction_reaches_the_policy_in_the_system_prompt(tiny_tokenizer):
    prompt = Prompt(prompt_id="p", prompt="Where?", source="test")
    chat = ChatTokenizer(tiny_tokenizer)
    plain = request_for(prompt, Steering(0), chat, NAMES, 0, 1)
    steered = request_for(prompt, Steering(3, [0.8, -0.6], samples=2), chat, NAMES, 0, 1)
    assert tiny_tokenizer.decode(plain.prompt_ids) == "<s><|user|>Where?</s><|assistant|>"
    assert "helpfulness*80 + verbosity*-60</s><|user|>Where?" in tiny_tokenizer.decode(
        steered.prompt_ids
    )
    assert steered.seeds == [sample_seed(0, 1, "p", 3, i) for i in range(2)]


def test_long_prompts_are_counted_and_leave_the_others_alone(sample, prompts, tmp_path):
    output = sample()
    assert read_sidecar(output)["counts"] == {
        "read": 11,
        "kept": 9,
        "dropped": {"prompt_too_long": 2},
    }
    # With their chunk mates unchanged, the others' responses are the same to the byte.
    everyone = read_jsonl(prompts, Prompt)
    first_chunk = [everyone[0], everyone[2]]
    write_jsonl(tmp_path / "fewer.jsonl", first_chunk)
    fewer = sample("fewer-samples.jsonl", prompts=tmp_path / "fewer.jsonl")
    assert output.read_bytes().startswith(fewer.read_bytes())


def test_a_shard_without_work_needs_no_model(sample, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "load_engine", None)
    empty = sample("empty.jsonl", shard=0, shards=7)  # four chunks for seven shards
    assert empty.read_bytes() == b""
    everything = read_jsonl(prompts, Prompt)
    long = [prompt for prompt in everything if LONG in prompt.prompt][:1]
    write_jsonl(tmp_path / "long.jsonl", [*long, everything[0]])
    one = SETTINGS.model_copy(update={"prompts_per_chunk": 1})
    output = sample(prompts=tmp_path / "long.jsonl", shard=0, shards=2, settings=one)
    assert output.read_bytes() == b""
    assert read_sidecar(output)["counts"]["dropped"] == {"prompt_too_long": 1}
    write_jsonl(tmp_path / "long.jsonl", long)
    with pytest.raises(InputError, match=r"all 1 prompts are longer .*max_prompt_tokens.*raise it"):
        sample(prompts=tmp_path / "long.jsonl")


def test_sidecar_counts_tokens_and_cut_responses(sample, tiny_policy, prompts):
    output = sample(inputs=[prompts.parent / "conditions.json"])
    records, sidecar = read_jsonl(output, Sample), read_sidecar(output)
    assert sidecar["responses"] == len(records) == 54
    assert sidecar["response_tokens"] == sum(r.response_tokens for r in records)
    assert sidecar["truncated"] == sum(r.finish_reason == "length" for r in records) > 0
    assert set(sidecar["inputs"]) == {
        str(tiny_policy), str(prompts), str(prompts.parent / "conditions.json"),
    }  # fmt: skip


def test_too_many_cut_responses_stop_the_run_and_raising_the_limit_resumes_it(
    sample, monkeypatch, tmp_path
):
    strict = SETTINGS.model_copy(update={"max_new_tokens": 2, "max_truncated_fraction": 0.2})
    with pytest.raises(InputError, match=r"truncated at max_new_tokens.*max_truncated_fraction"):
        sample(settings=strict)
    assert not (tmp_path / "samples.jsonl").exists()
    # It stops as soon as the limit is certain to be passed: here before the last of four chunks.
    written = (tmp_path / "samples.jsonl.partial").read_bytes()
    assert 0 < written.count(b"\n") < 54
    lenient = strict.model_copy(update={"max_truncated_fraction": 1.0})
    output = sample(settings=lenient)
    assert output.read_bytes().startswith(written)
    assert output.read_bytes() == sample("again.jsonl", settings=lenient).read_bytes()
