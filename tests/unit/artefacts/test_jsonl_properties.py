"""Properties of records and resuming that hold for whatever hypothesis thinks of."""

import os
from itertools import accumulate, pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpa.artefacts.jsonl import ChunkedWriter, encode, read_jsonl, write_jsonl
from dpa.directions import from_degrees
from dpa.errors import InputError
from dpa.records import Prompt, Rating, Sample, Turn

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
#: Text of any kind: line separators, NUL, other planes; not lone surrogates, which are no text.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
identities = st.text("0123456789abcdef", min_size=16, max_size=16)
turns = st.builds(Turn, role=st.sampled_from(["system", "user", "assistant"]), content=texts)
prompts = st.builds(
    Prompt, prompt_id=identities, prompt=texts | st.lists(turns, max_size=3), source=texts
)
ratings = st.builds(
    Rating,
    prompt_id=identities,
    prompt=texts,
    response=texts,
    attributes=st.dictionaries(texts, st.floats(0, 100), min_size=1, max_size=3),
    dataset=texts,
    split=st.sampled_from(["train", "validation"]),
)
counts = st.integers(0, 2**62)
steering = {
    "prompt_id": identities,
    "direction_index": st.integers(-1, 99),
    "sample_index": counts,
    "seed": counts,
    "response": texts,
    "finish_reason": st.sampled_from(["stop", "length"]),
    "prompt_tokens": counts,
    "response_tokens": counts,
}
samples = st.builds(
    Sample, **steering, direction=st.none() | st.floats(-90, 90).map(from_degrees)
) | st.builds(Sample, **steering, condition=st.lists(st.integers(0, 100), max_size=3))


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """Nothing here outlives the test, and a sync takes longer than all the rest."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@quick
@given(st.lists(prompts | ratings | samples, min_size=1, max_size=5))
def test_records_survive_a_file(tmp_path, records):
    kind = type(records[0])
    records = [record for record in records if type(record) is kind]
    path = tmp_path / "records.jsonl"
    assert write_jsonl(path, records) == len(records)
    assert path.read_bytes().count(b"\n") == len(records)
    assert read_jsonl(path, kind) == records


@quick
@given(samples, st.data())
def test_a_damaged_line_is_named_or_is_another_record(tmp_path, record, data):
    """Whatever byte is changed, wherever it is truncated: an error that names it, never a crash."""
    line = bytearray(encode(record))
    at = data.draw(st.integers(0, len(line) - 2))
    if data.draw(st.booleans()):
        line[at] = data.draw(st.integers(0, 255))
    else:
        del line[at:]
    path = tmp_path / "sampled.jsonl"
    path.write_bytes(encode(record) + line)
    message = f"{path}:"
    try:
        read_jsonl(path, Sample)
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}:")


@quick
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.binary(max_size=30),
)
def test_resuming_repeats_at_most_the_chunk_in_hand(tmp_path, sizes, killed, garbage):
    """Killed after any byte, with anything after it in the disk block: the same file results."""
    rows = [
        Prompt(prompt_id=f"{i:016x}", prompt="Wéird " * i, source="s") for i in range(sum(sizes))
    ]
    ends = list(accumulate(sizes, initial=0))
    chunks = [rows[a:b] for a, b in pairwise(ends)]
    whole = b"".join(map(encode, rows))
    end_of_file = killed % (len(whole) + 1)
    path = tmp_path / "sampled.jsonl"
    path.unlink(missing_ok=True)
    writer = ChunkedWriter(path, Prompt, sizes, {"code": "f"})
    writer.file.write(whole[:end_of_file] + garbage)
    writer.close()

    resumed = ChunkedWriter(path, Prompt, sizes, {"code": "f"})
    complete = sum(len(b"".join(map(encode, rows[:end]))) <= end_of_file for end in ends[1:])
    assert resumed.done >= complete
    for chunk in chunks[resumed.done :]:
        resumed.write(chunk)
    resumed.finish()
    assert path.read_bytes() == whole
