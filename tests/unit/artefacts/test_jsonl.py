import gzip
import math
import os

import msgspec
import pytest

from dpa.artefacts.jsonl import ChunkedWriter, decode_lines, encode, read_jsonl, write_jsonl
from dpa.artefacts.sidecars import write_sidecar
from dpa.errors import InputError
from dpa.records import Annotation, Prompt, Rating, Sample, ScoredSample, Turn


def prompt(number: int) -> Prompt:
    return Prompt(prompt_id=f"{number:04x}", prompt="Why? " * number, source="test")


def rating(**changes) -> Rating:
    fields = {
        "prompt_id": "00",
        "prompt": "Why?",
        "response": "So.",
        "attributes": {"a": 50.0},
        "dataset": "test",
        "split": "train",
    }
    return Rating(**(fields | changes))


def sample(**changes) -> dict:
    fields = {
        "prompt_id": "00",
        "direction_index": 0,
        "sample_index": 0,
        "seed": 1,
        "response": "So.",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "response_tokens": 2,
    }
    return fields | changes


class TestReadAndWrite:
    def test_round_trip_keeps_order_and_content(self, tmp_path):
        turns = [Turn("system", "Be brief."), Turn("user", "Wéird \u2028 text\n")]
        records = [rating(), rating(prompt=turns, attributes={"b": 0.0})]
        assert write_jsonl(tmp_path / "a" / "ratings.jsonl", records) == 2
        assert read_jsonl(tmp_path / "a" / "ratings.jsonl", Rating) == records

    def test_absent_optional_fields_are_left_out(self):
        line = msgspec.json.decode(encode(Sample(**sample())))
        assert "direction" not in line
        assert "condition" not in line

    def test_gz(self, tmp_path):
        path = tmp_path / "prompts.jsonl.gz"
        path.write_bytes(gzip.compress(encode(prompt(1)) + encode(prompt(2))))
        assert read_jsonl(path, Prompt) == [prompt(1), prompt(2)]

    def test_a_broken_archive_is_named(self, tmp_path):
        path = tmp_path / "prompts.jsonl.gz"
        path.write_bytes(gzip.compress(encode(prompt(1)) * 100)[:-9])
        with pytest.raises(InputError, match=r"prompts\.jsonl\.gz: cannot be read"):
            read_jsonl(path, Prompt)

    def test_a_file_appears_complete_or_not_at_all(self, tmp_path):
        def interrupted():
            yield prompt(1)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_jsonl(tmp_path / "prompts.jsonl", interrupted())
        assert not (tmp_path / "prompts.jsonl").exists()

    def test_what_a_killed_writer_left_is_not_kept(self, tmp_path):
        (tmp_path / "prompts.jsonl.partial").write_bytes(encode(prompt(7)) * 3)
        (tmp_path / "prompts.jsonl.partial.for").write_text('{"stage": "select_responses"}')
        write_jsonl(tmp_path / "prompts.jsonl", [prompt(1)])
        assert read_jsonl(tmp_path / "prompts.jsonl", Prompt) == [prompt(1)]
        assert [path.name for path in tmp_path.iterdir()] == ["prompts.jsonl"]

    def test_a_file_that_another_is_writing_is_refused(self, tmp_path):
        def meanwhile():
            yield prompt(1)
            with pytest.raises(InputError, match="another process is writing it"):
                write_jsonl(tmp_path / "prompts.jsonl", [prompt(2)])

        write_jsonl(tmp_path / "prompts.jsonl", meanwhile())
        assert read_jsonl(tmp_path / "prompts.jsonl", Prompt) == [prompt(1)]

    def test_missing_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
            read_jsonl(tmp_path / "none.jsonl", Prompt)

    def test_reading_streams(self, tmp_path):
        (tmp_path / "prompts.jsonl").write_bytes(encode(prompt(1)) + b"garbage\n")
        assert next(decode_lines(tmp_path / "prompts.jsonl", Prompt)) == prompt(1)


class TestValidationOnRead:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"prompt_id": "0", "prompt": "x"}\n', "missing required field `source`"),
            (b'{"prompt_id": "0", "prompt": "x", "source": "s", "z": 1}\n', "unknown field `z`"),
            (b'{"prompt_id": 0, "prompt": "x", "source": "s"}\n', r"Expected `str`, got `int`"),
            (b"\n", "the line is blank"),
            (b'{"prompt_id": "0", "prompt": NaN}\n', "JSON has no NaN or Infinity: write null"),
            (b'{"prompt_id": "0", "pro', "the line is truncated"),
            (b'{"prompt_id": "0", "prompt": "\xff", "source": "s"}\n', "3: .*(?i:utf)"),
        ],
    )
    def test_names_file_and_line(self, tmp_path, line, message):
        path = tmp_path / "prompts.jsonl"
        path.write_bytes(encode(prompt(1)) + encode(prompt(2)) + line)
        with pytest.raises(InputError, match=message) as caught:
            read_jsonl(path, Prompt)
        assert str(caught.value).startswith(f"{path}:3: ")

    def test_the_remedy_depends_on_who_made_the_file(self, tmp_path):
        path = tmp_path / "prompts.jsonl"
        path.write_bytes(encode(prompt(1)) + b'{"prompt_id": \n')
        with pytest.raises(InputError, match=r"jsonl:2: .*; correct the line or leave it out$"):
            read_jsonl(path, Prompt)
        write_sidecar(path)
        with pytest.raises(InputError, match=r"jsonl:2: .*; a rule made this file: delete it and"):
            read_jsonl(path, Prompt)

    @pytest.mark.parametrize("score", ["100.5", "-1"])
    def test_scores_are_within_the_scale(self, tmp_path, score):
        path = tmp_path / "ratings.jsonl"
        path.write_bytes(encode(rating()).replace(b"50.0", score.encode()))
        with pytest.raises(InputError, match=r"ratings\.jsonl:1"):
            read_jsonl(path, Rating)

    def test_scored_samples_have_all_fields_of_samples(self):
        fields = sample(attributes={"a": 1.0}, rewards=[1.0, 2.0], direction=[1.0, 0.0])
        assert msgspec.convert(fields, ScoredSample).rewards == [1.0, 2.0]


class TestValidationOnWrite:
    @pytest.mark.parametrize("score", [math.nan, math.inf, 101.0, -0.5, "50"])
    def test_bad_scores_are_refused(self, tmp_path, score):
        with pytest.raises(ValueError, match="invalid Rating"):
            write_jsonl(tmp_path / "r.jsonl", [rating(attributes={"a": score})])

    def test_a_rating_without_attributes_is_none(self):
        with pytest.raises(ValueError, match=r"length >= 1 - at `\$\.attributes`"):
            encode(rating(attributes={}))

    def test_unknown_split_is_refused(self):
        with pytest.raises(ValueError, match="split"):
            encode(rating(split="test"))

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_rewards_are_finite(self, value):
        with pytest.raises(ValueError, match="NaN or infinite"):
            Annotation(
                prompt_id="0",
                prompt="x",
                response="y",
                attributes={"a": value},
                rewards=[1.0],
                split="train",
            )

    def test_a_dictionary_with_nan_is_refused(self):
        with pytest.raises(ValueError, match="NaN"):
            encode({"a": math.nan})


class TestChunkedWriter:
    SIZES = (2, 3, 1)

    def chunks(self) -> list[list[Prompt]]:
        numbers = iter(range(100))
        return [[prompt(next(numbers)) for _ in range(size)] for size in self.SIZES]

    def writer(self, path, code="f") -> ChunkedWriter:
        return ChunkedWriter(path, Prompt, list(self.SIZES), {"code": code})

    def complete(self, path, code="f") -> int:
        """Write what is missing; the number of chunks that were there."""
        writer = self.writer(path, code)
        found = writer.done
        for chunk in self.chunks()[found:]:
            writer.write(chunk)
        writer.finish()
        return found

    def test_a_kill_at_any_byte_loses_only_the_chunk_in_hand(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda file: None)  # nothing here outlives the test
        path = tmp_path / "sampled.jsonl"
        assert self.complete(path) == 0
        whole = path.read_bytes()
        ends = [0]
        for chunk in self.chunks():
            ends.append(ends[-1] + len(b"".join(map(encode, chunk))))
        for killed in range(len(whole) + 1):
            path.unlink()
            writer = self.writer(path)
            writer.close()
            writer.partial.write_bytes(whole[:killed])
            assert self.complete(path) == sum(end <= killed for end in ends) - 1
            assert path.read_bytes() == whole

    def test_a_partial_file_of_other_content_is_discarded(self, tmp_path):
        path = tmp_path / "sampled.jsonl"
        self.writer(path, "old").write(self.chunks()[0])
        assert self.complete(path, "new") == 0

    def test_what_follows_damage_is_discarded(self, tmp_path):
        path = tmp_path / "sampled.jsonl"
        writer = self.writer(path)
        for chunk in self.chunks()[:2]:
            writer.write(chunk)
        damaged = writer.partial.read_bytes().splitlines(keepends=True)
        damaged[3] = b'{"prompt_id": 3}\n'
        writer.partial.write_bytes(b"".join(damaged))
        writer.close()
        assert self.complete(path) == 1
        assert len(read_jsonl(path, Prompt)) == sum(self.SIZES)

    def test_leaves_nothing_behind(self, tmp_path):
        self.complete(tmp_path / "sampled.jsonl")
        assert [p.name for p in tmp_path.iterdir()] == ["sampled.jsonl"]

    def test_wrong_chunk_size_and_early_finish_are_refused(self, tmp_path):
        writer = self.writer(tmp_path / "sampled.jsonl")
        with pytest.raises(ValueError, match="has 1 records, expected 2"):
            writer.write([prompt(0)])
        with pytest.raises(ValueError, match="0 of 3 chunks"):
            writer.finish()


def test_lost_lines_are_noticed_by_the_exact_count(tmp_path):
    """The sidecar's `records` counts; rows of other kinds in it do not."""
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [Prompt(prompt_id=f"p{i}", prompt="?", source="s") for i in range(3)])
    write_sidecar(path, rows=99, prompts=1)
    assert len(read_jsonl(path, Prompt)) == 3
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="has 2 records, but its sidecar counts 3"):
        read_jsonl(path, Prompt)
