import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpa.artefacts.row_counts import RowCounts
from dpa.config.data import SourceConfig
from dpa.data.splits import halve, trainable, unique_prompts
from dpa.errors import InputError
from dpa.records import Prompt, Turn
from dpa.text.prompts import prompt_id


def make(texts) -> list[Prompt]:
    return [Prompt(prompt_id=prompt_id(t), prompt=t, source="s") for t in texts]


def read_of(row_counts: RowCounts, path: Path, rows: list[dict]) -> list[Prompt]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(unique_prompts([SourceConfig(path=str(path))], row_counts).values())


class TestReadPrompts:
    def test_unique_in_file_order(self, tmp_path):
        row_counts = RowCounts()
        rows = [{"prompt": p, "chosen": []} for p in ("b", "a", " b\n", "", None, "c")]
        prompts = read_of(row_counts, tmp_path / "p.jsonl", rows)
        assert [p.prompt for p in prompts] == ["b", "a", "c"]
        assert prompts[0].source == str(tmp_path / "p.jsonl")
        assert row_counts.as_dict() == {
            "read": 6,
            "kept": 3,
            "dropped": {"duplicate": 1, "empty prompt": 2},
        }

    def test_messages(self, tmp_path):
        turns = [
            {"role": role, "content": content}
            for role, content in [("user", "a"), ("assistant", "b"), ("user", "c")]
        ]
        answer = {"role": "assistant", "content": "d"}
        rows = [
            {"messages": [turns[0], answer]},
            {"messages": [*turns, answer]},
            {"messages": turns},
        ]
        prompts = read_of(RowCounts(), tmp_path / "p.jsonl", rows)
        whole = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
        assert [p.prompt for p in prompts] == ["a", whole]

    def test_clusters(self, tmp_path):
        rows = [{"prompt": p, "cluster": c} for p, c in (("a", "otter"), ("b", 3), ("c", None))]
        prompts = read_of(RowCounts(), tmp_path / "p.jsonl", rows)
        assert [p.cluster for p in prompts] == ["otter", "3", None]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"prompt": "a", "cluster": [1]}, r":2: cluster \[1\] is neither text nor a whole"),
            ({"instruction": "a"}, r":2: no column 'prompt'; columns found: instruction"),
            ({"prompt": 3}, r":2: column 'prompt' is neither a string nor"),
            ({"messages": [1]}, r":2: column 'messages' is neither"),
        ],
    )
    def test_bad_rows(self, tmp_path, row, message):
        rows = [{"prompt": "x"}, row]
        with pytest.raises(InputError, match=r"p\.jsonl" + message):
            read_of(RowCounts(), tmp_path / "p.jsonl", rows)


class TestTrainable:
    def test_held_out_and_misses_are_counted(self):
        row_counts = RowCounts()
        a, b, c, d = make("abcd")
        held_out, rated = {a.prompt_id}, {a.prompt_id, b.prompt_id, d.prompt_id}
        assert trainable([a, b, c, d], held_out, rated, "mine", row_counts) == [b, d]
        assert row_counts.dropped == {
            "held out for validation": 1,
            "no rated response in mine": 1,
        }
        row_counts.read = 4
        with pytest.raises(InputError, match=r"dropped 1 of 3 rows.*no rated response"):
            row_counts.check(0.0, "data.train_prompts")


class TestHalve:
    @given(
        st.sets(st.text("abc", min_size=1, max_size=6), min_size=2, max_size=60),
        st.integers(0, 5),
        st.data(),
    )
    def test_equal_disjoint_and_from_the_prompts(self, texts, seed, data):
        prompts = make(texts)
        per_half = data.draw(st.none() | st.integers(1, len(prompts) // 2))
        row_counts = RowCounts()
        row_counts.read = len(prompts)
        d1, d2 = halve(prompts, seed, per_half, row_counts)
        first, second = ({p.prompt_id for p in half} for half in (d1, d2))
        assert len(d1) == len(d2) == len(first) == len(second) == (per_half or len(prompts) // 2)
        assert not first & second
        assert first | second <= {p.prompt_id for p in prompts}
        assert row_counts.kept == len(d1) + len(d2)
        # The order of the files does not matter.
        assert halve(prompts[::-1], seed, per_half, RowCounts()) == (d1, d2)

    def test_the_seed_matters(self):
        prompts = make(map(str, range(100)))
        assert halve(prompts, 0, None, RowCounts()) != halve(prompts, 1, None, RowCounts())

    def test_fewer_per_half_are_the_first_of_more(self):
        prompts = make(map(str, range(100)))
        assert halve(prompts, 0, 10, RowCounts())[0] == halve(prompts, 0, 20, RowCounts())[0][:10]

    def test_the_odd_one_out_is_counted(self):
        row_counts = RowCounts()
        halve(make("abc"), 0, None, row_counts)
        assert row_counts.dropped == {"odd one out": 1}
        assert row_counts.asked_for == {"odd one out": 1}

    @pytest.mark.parametrize(("texts", "per_half"), [("abc", 2), ("a", None), ("", None)])
    def test_too_few(self, texts, per_half):
        with pytest.raises(InputError, match=f"{len(texts)} usable prompts are too few"):
            halve(make(texts), 0, per_half, RowCounts())
