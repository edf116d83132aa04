import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpa.config.data import DataConfig, TableConfig
from dpa.data.formats import (
    read_beavertails,
    read_helpsteer,
    read_ultrafeedback,
    repair_overall_score,
)
from dpa.data.rated import Rated, Tally
from dpa.data.ratings import read_ratings, validation_prompt_ids
from dpa.data.user_table import Linear, Quantiles, read_table, table_scales
from dpa.errors import InputError
from dpa.records import Rating
from dpa.text.prompts import prompt_id

Row = dict[str, Any]


def placed(rows: list[Row]) -> list[tuple[str, Row]]:
    return [(f"rows.jsonl:{number}", row) for number, row in enumerate(rows, 1)]


def write_jsonl(path: Path, rows: list[Row]) -> dict[str, str]:
    """Write the rows; the file as a source."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def helpsteer_row(**changes: Any) -> Row:
    """A row of nvidia/HelpSteer."""
    row = {
        "prompt": "What is it?",
        "response": "It is so.",
        "helpfulness": 0,
        "correctness": 1,
        "coherence": 2,
        "complexity": 3,
        "verbosity": 4,
    }
    return row | changes


def completion(
    ratings: tuple[str, str, str, str] = ("1", "2", "4", "5"), **changes: Any
) -> dict[str, Any]:
    """A completion in openbmb/UltraFeedback, as first released."""
    following, honesty, truthfulness, helpfulness = ratings
    long = {"Type": ["1"], "Rationale": "r", "Rationale For Rating": "r"}
    row = {
        "annotations": {
            "instruction_following": {"Rating": following, "Rationale": "r"},
            "honesty": {"Rating": honesty, "Rationale": "r"},
            "truthfulness": {**long, "Rating": truthfulness},
            "helpfulness": {**long, "Rating": helpfulness},
        },
        "custom_system_prompt": "As an AI assistant, be brief.",
        "model": "alpaca-7b",
        "principle": "helpfulness",
        "response": "It is so.",
        "critique": "Good.",
        "overall_score": 7.5,
    }
    return row | changes


def ultrafeedback_row(*completions: Row, **changes: Any) -> Row:
    """A row of openbmb/UltraFeedback."""
    row = {
        "source": "sharegpt",
        "instruction": "What is it?",
        "models": [c["model"] for c in completions],
        "completions": list(completions),
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }
    return row | changes


class TestHelpSteer:
    def read(self, *rows: Row) -> tuple[list[Rated], Tally]:
        tally = Tally()
        return list(read_helpsteer(placed(list(rows)), tally)), tally

    def test_scale(self):
        [rated], _ = self.read(helpsteer_row())
        assert rated == Rated(
            "What is it?",
            "It is so.",
            {
                "helpsteer-helpfulness": 10,
                "helpsteer-correctness": 30,
                "helpsteer-coherence": 50,
                "helpsteer-complexity": 70,
                "helpsteer-verbosity": 90,
            },
        )

    def test_losses_are_counted_by_reason(self):
        none = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"))
        rated, tally = self.read(
            helpsteer_row(),
            helpsteer_row(prompt=" "),
            helpsteer_row(response=""),
            helpsteer_row(response=None),
            helpsteer_row(verbosity=5),
            helpsteer_row(verbosity="good"),
            helpsteer_row(verbosity=math.nan),
            helpsteer_row(**none),
        )
        assert len(rated) == 1
        assert tally.row_counts.as_dict() == {
            "read": 8,
            "kept": 1,
            "dropped": {
                "empty prompt": 1,
                "empty response": 2,
                "malformed verbosity": 3,
                "no rating": 1,
            },
        }

    def test_a_rating_that_was_not_given_is_absent(self):
        [rated], _ = self.read(helpsteer_row(coherence=None))
        assert len(rated.attributes) == 4
        assert "helpsteer-coherence" not in rated.attributes

    def test_a_column_renamed_upstream(self):
        row = helpsteer_row()
        row["brevity"] = row.pop("verbosity")
        with pytest.raises(InputError) as caught:
            self.read(row)
        assert str(caught.value) == (
            "rows.jsonl:1: no column 'verbosity'; columns found: "
            "prompt, response, helpfulness, correctness, coherence, complexity, brevity"
        )


class TestUltraFeedback:
    def read(self, *rows: Row, drop: tuple[str, ...] = ()) -> tuple[list[Rated], Tally]:
        tally = Tally()
        return list(read_ultrafeedback(placed(list(rows)), tally, drop)), tally

    def test_scale(self):
        [rated], _ = self.read(ultrafeedback_row(completion()))
        assert rated.prompt == "What is it?"
        assert rated.response == "It is so."
        assert rated.attributes == {
            "ultrafeedback-instruction_following": 10,
            "ultrafeedback-honesty": 30,
            "ultrafeedback-truthfulness": 70,
            "ultrafeedback-helpfulness": 90,
            "ultrafeedback-overall_score": 70,
        }

    def test_overall_scale_ends(self):
        rated, _ = self.read(
            ultrafeedback_row(
                completion(overall_score=1.0), completion(("5",) * 4, overall_score=10.0)
            )
        )
        assert [r.attributes["ultrafeedback-overall_score"] for r in rated] == [5, 95]

    def test_not_rated(self):
        [rated], _ = self.read(
            ultrafeedback_row(completion(("N/A", "3", "N/A", "3"), overall_score=None))
        )
        assert rated.attributes == {"ultrafeedback-honesty": 50, "ultrafeedback-helpfulness": 50}

    def test_nothing_rated(self):
        rated, tally = self.read(ultrafeedback_row(completion(("N/A",) * 4, overall_score=None)))
        assert rated == []
        assert tally.row_counts.dropped == {"no rating": 1}

    def test_completions_are_counted_not_assumed(self):
        rated, tally = self.read(
            ultrafeedback_row(*[completion()] * 4),
            ultrafeedback_row(completion()),
            ultrafeedback_row(),
        )
        assert len(rated) == 5
        assert tally.row_counts.as_dict() == {
            "read": 6,
            "kept": 5,
            "dropped": {"prompt without completions": 1},
        }
        assert tally.notes == {
            "prompts with 4 completions": 1,
            "prompts with 1 completions": 1,
            "prompts with 0 completions": 1,
        }

    def test_sources_are_dropped_as_asked_for(self):
        rated, tally = self.read(
            ultrafeedback_row(*[completion()] * 4, source="truthful_qa"),
            ultrafeedback_row(completion()),
            drop=("truthful_qa",),
        )
        assert len(rated) == 1
        assert tally.row_counts.dropped == {"source truthful_qa": 4}
        tally.row_counts.check(0.0, "ultrafeedback")

    @pytest.mark.parametrize(
        ("ratings", "repaired", "upstream"),
        [
            (("1", "1", "2", "1"), 5, False),  # mean 1.25: 10 was a 1
            (("2", "2", "2", "2"), 5, False),
            (("1", "1", "2", "1"), 5, True),
            (("3", "N/A", "4", "4"), None, False),  # mean 3.7: could be either
            (("3", "N/A", "4", "4"), 95, True),  # GPT-4 was asked again
            (("4", "4", "5", "5"), 95, False),  # mean 4.5: meant
        ],
    )
    def test_overall_score_10_is_repaired(self, ratings, repaired, upstream):
        extra = {"fine-grained_score": 0.0} if upstream else {}
        [rated], tally = self.read(
            ultrafeedback_row(completion(ratings, overall_score=10.0, **extra))
        )
        assert rated.attributes.get("ultrafeedback-overall_score") == repaired
        notes = {5: "overall_score 10 repaired to 1", None: "overall_score 10 repaired to missing"}
        assert [note for note in tally.notes if note.startswith("overall")] == [
            notes[value] for value in notes if value == repaired
        ]

    def test_a_null_fine_grained_score_is_none(self):
        """Where some completions have the column, a table gives it to all."""
        row = completion(("3", "N/A", "4", "4"), overall_score=10.0)
        [rated], _ = self.read(ultrafeedback_row(row | {"fine-grained_score": None}))
        assert "ultrafeedback-overall_score" not in rated.attributes

    def test_only_the_highest_score_is_repaired(self):
        assert repair_overall_score(9, [1, 1, 1, 1], False) == 9
        assert repair_overall_score(1, [5, 5, 5, 5], False) == 1

    def test_without_ratings_a_10_cannot_be_judged(self):
        assert repair_overall_score(10, [], False) is None
        assert repair_overall_score(10, [], True) == 10

    @pytest.mark.parametrize("rating", ["6", "0", "Rating: 3", ""])
    def test_single_bad_ratings_are_counted(self, rating):
        rated, tally = self.read(
            ultrafeedback_row(completion((rating, "3", "3", "3")), completion())
        )
        assert len(rated) == 1
        assert tally.row_counts.dropped == {"malformed instruction_following": 1}

    def test_a_schema_changed_upstream(self):
        changed = completion()
        changed["annotations"]["honesty"] = {"Score": "3"}
        with pytest.raises(InputError, match=r"^rows\.jsonl:1, completion 2, annotations\.honesty"):
            self.read(ultrafeedback_row(completion(), changed))
        with pytest.raises(InputError, match="no column 'annotations'; columns found: response"):
            self.read(ultrafeedback_row({"response": "x", "model": "m"}))
        with pytest.raises(InputError, match=r"no column 'completions'; columns found: source, in"):
            self.read({"source": "s", "instruction": "i"})


class TestBeaverTails:
    def read(self, *rows: tuple[str | None, str | None, Any]) -> tuple[list[Rated], Tally]:
        tally = Tally()
        fields = "prompt", "response", "is_safe"
        made = [dict(zip(fields, row, strict=True)) | {"category": {}} for row in rows]
        return list(read_beavertails(placed(made), tally)), tally

    def test_judgements_of_a_response_are_averaged_wherever_they_stand(self):
        rated, tally = self.read(
            ("Why?", "So.", True),
            ("Why?", "Thus.", False),
            ("How?", "So.", True),
            (" Why?", "So.", False),  # the same prompt, normalised
            ("Why?", "So.", True),
        )
        assert [(r.prompt, r.response) for r in rated] == [
            ("Why?", "So."),
            ("Why?", "Thus."),
            ("How?", "So."),
        ]
        shares = [r.attributes["beavertails-is_safe"] for r in rated]
        assert shares == [pytest.approx(200 / 3), 0, 100]
        assert tally.row_counts.as_dict() == {
            "read": 5,
            "kept": 3,
            "dropped": {"merged with the response's other judgements": 2},
        }
        tally.row_counts.check(0.0, "merged judgements are not lost")
        assert tally.notes == {
            "responses with 1 judgements": 2,
            "responses with 3 judgements": 1,
            "responses whose judges disagree": 1,
        }

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.booleans())))
    def test_shares_are_those_of_the_group(self, rows):
        rated, tally = self.read(*rows)
        assert tally.row_counts.kept == len(rated) == len({row[:2] for row in rows})
        for prompt, response, attributes in rated:
            votes = [safe for *pair, safe in rows if pair == [prompt, response]]
            assert attributes["beavertails-is_safe"] == 100 * sum(votes) / len(votes)

    def test_losses_are_counted_by_reason(self):
        rated, tally = self.read(
            ("Why?", "", True),
            (" ", "So.", True),
            ("Why?", "So.", None),
            ("Why?", "So.", "yes"),
            ("Why?", "So.", 0.5),
            ("Why?", "So.", "false"),
        )
        assert [r.attributes for r in rated] == [{"beavertails-is_safe": 0}]
        assert tally.row_counts.dropped == {
            "empty response": 1,
            "empty prompt": 1,
            "no rating": 1,
            "malformed is_safe": 2,
        }

    def test_a_column_renamed_upstream(self):
        with pytest.raises(
            InputError, match="no column 'is_safe'; columns found: prompt, response"
        ):
            list(read_beavertails(placed([{"prompt": "a", "response": "b"}]), Tally()))


def table(**changes: Any) -> TableConfig:
    fields = {
        "name": "mine",
        "format": "table",
        "train": {"path": "rows.jsonl"},
        "attributes": {"quality": {"column": "stars", "from": [1, 5]}},
    }
    return TableConfig.model_validate(fields | changes)


def table_row(**changes: Any) -> Row:
    return {"prompt": "Why?", "response": "So.", "stars": 4} | changes


class TestTable:
    def read(self, *rows: Row, **changes: Any) -> tuple[list[Rated], Tally]:
        tally, mapping = Tally(), table(**changes)
        return list(read_table(placed(list(rows)), tally, mapping, table_scales(mapping))), tally

    def values(self, *cells: Any, **changes: Any) -> list[float | None]:
        rated, _ = self.read(*[table_row(stars=c, other=1) for c in cells], **changes)
        return [r.attributes.get("quality") for r in rated]

    def test_linear_scale(self):
        assert self.values(1, 2, 3.0, "4", " 5 ") == [0, 25, 50, 75, 100]

    def test_a_scale_may_run_backwards(self):
        scale = {"quality": {"column": "stars", "from": [5, 1]}}
        assert self.values(1, 2, 5, attributes=scale) == [100, 75, 0]

    @pytest.mark.parametrize("yes", [True, 1, "true", "True", "1"])
    def test_truth_values(self, yes):
        scale = {"quality": {"column": "stars", "from": [0, 1]}}
        assert self.values(yes, attributes=scale) == [100]

    @given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(0, 1, allow_subnormal=False))
    def test_values_stay_within_0_and_100(self, low, high, share):
        if low == high:
            return
        value = min(max(low + share * (high - low), min(low, high)), max(low, high))
        assert 0 <= Linear(low, high)(value) <= 100

    @pytest.mark.parametrize("nothing", [None, math.nan, "", "  ", "NaN", -1, "-1", "n/a"])
    def test_missing_values_leave_the_attribute_out(self, nothing):
        mapping = {
            "quality": {"column": "stars", "from": [1, 5]},
            "clarity": {"column": "other", "from": [0, 1]},
        }
        assert self.values(nothing, 3, attributes=mapping, missing=[-1, "n/a"]) == [None, 50]

    def test_a_row_without_any_rating_is_dropped(self):
        rated, tally = self.read(table_row(), table_row(stars=None))
        assert len(rated) == 1
        assert tally.row_counts.dropped == {"no rating": 1}

    def test_columns_of_other_names(self):
        row = {"instruction": "Why?", "output": "So.", "stars": 5}
        [rated], _ = self.read(row, prompt="instruction", response="output")
        assert rated == Rated("Why?", "So.", {"quality": 100.0})

    def test_filters(self):
        rows = [
            table_row(language="en", checked=True),
            table_row(language="de", checked=True),
            table_row(language="en", checked=False),
            table_row(language="en", checked="true"),
            table_row(language=None, checked=True),
        ]
        rated, tally = self.read(*rows, keep={"language": ["en"], "checked": [True]})
        assert len(rated) == 2
        assert tally.row_counts.dropped == {"filter language": 2, "filter checked": 1}
        tally.row_counts.check(0.0, "mine")

    @pytest.mark.parametrize(
        ("cell", "allowed", "kept"),
        [
            (1, [1], True),
            (1.0, [1], True),
            ("1", [1], True),
            ("1", ["1"], True),
            (1, [True], False),
            ("en ", ["en"], True),
            (2, [1, 3], False),
            ("nan", ["nan"], True),
        ],
    )
    def test_filters_ignore_how_a_value_is_stored(self, cell, allowed, kept):
        rated, _ = self.read(table_row(language=cell), keep={"language": allowed})
        assert bool(rated) == kept

    def test_out_of_range(self):
        with pytest.raises(InputError) as caught:
            self.read(table_row(), table_row(stars=7))
        assert str(caught.value) == (
            "rows.jsonl:2: column 'stars' is 7, outside the scale from 1 to 5 (data.ratings: "
            "mine: attributes.quality.from); correct the value, widen the scale, or list the "
            "value under `missing`"
        )

    @pytest.mark.parametrize("cell", ["good", [1], {"a": 1}, math.inf, "-inf"])
    def test_not_a_number(self, cell):
        with pytest.raises(InputError, match=r"rows\.jsonl:1: column 'stars' is .*not a number"):
            self.read(table_row(stars=cell))

    def test_missing_columns(self):
        found = "columns found: prompt, response, stars$"
        with pytest.raises(InputError, match=f":1: no column 'question'; {found}"):
            self.read(table_row(), prompt="question")
        with pytest.raises(InputError, match=f"rows.jsonl .*mine.*no column 'score'; {found}"):
            self.read(table_row(), attributes={"quality": {"column": "score", "from": [0, 1]}})
        with pytest.raises(InputError, match=f"no column 'lang'; {found}"):
            self.read(table_row(), keep={"lang": ["en"]})

    def test_a_jsonl_row_may_lack_a_column_that_others_have(self):
        row = table_row()
        del row["stars"]
        rated, _ = self.read(table_row(), row)
        assert len(rated) == 1


RANKED = {"attributes": {"quality": {"column": "stars", "from": "rank"}}}


class TestRank:
    def test_mean_ranks_of_ties(self):
        quantile = Quantiles([1.0, 2.0, 2.0, 5.0])
        assert [quantile(v) for v in (1, 2, 5)] == [12.5, 50, 87.5]

    def test_values_that_training_lacks_fall_between(self):
        quantile = Quantiles([1.0, 2.0, 2.0, 5.0])
        assert [quantile(v) for v in (0, 1.5, 3, 9)] == [0, 25, 75, 100]

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
    def test_mean_is_50_and_order_is_kept(self, values):
        quantile = Quantiles(sorted(values))
        mapped = [quantile(v) for v in sorted(values)]
        assert mapped == sorted(mapped)
        assert sum(mapped) / len(mapped) == pytest.approx(50)
        assert 0 < mapped[0] <= mapped[-1] < 100

    def test_quantiles_are_of_the_training_files_kept_values(self, tmp_path):
        stars = [3, 1, None, 2, 99]
        rows = [table_row(stars=s, ok=s != 99) for s in stars]
        source = write_jsonl(tmp_path / "train.jsonl", rows)
        mapping = table(train=source, keep={"ok": [True]}, **RANKED)
        [quantiles] = table_scales(mapping).values()
        assert isinstance(quantiles, Quantiles)
        assert quantiles.ordered == [1, 2, 3]

    def test_a_column_without_values(self, tmp_path):
        source = write_jsonl(tmp_path / "train.jsonl", [table_row(stars=None)])
        with pytest.raises(InputError, match="column 'stars' has no value to rank"):
            table_scales(table(train=source, **RANKED))

    def test_a_misspelt_column(self, tmp_path):
        source = write_jsonl(tmp_path / "train.jsonl", [table_row()])
        mapping = {"quality": {"column": "score", "from": "rank"}}
        with pytest.raises(InputError, match="no column 'score'; columns found: prompt, response"):
            table_scales(table(train=source, attributes=mapping))


class TestReadRatings:
    def data(self, *ratings: dict[str, Any], **changes: Any) -> DataConfig:
        fields = {
            "ratings": list(ratings),
            "train_prompts": [],
            "validation_prompts": [],
            "unseen_prompts": [],
            "sft": [],
            "pretraining": [],
            "prompts_per_half": None,
            "original_responses": "ultrafeedback",
            "drop_sources": ["truthful_qa"],
            "max_dropped_fraction": 0.0,
        }
        return DataConfig.model_validate(fields | changes)

    def read(self, data: DataConfig, held_out: set[str] | None = None) -> tuple[list[Rating], dict]:
        tallies: dict[str, Tally] = {}
        held = validation_prompt_ids(data) | (held_out or set())
        return list(read_ratings(data, held, tallies)), tallies

    def test_splits(self, tmp_path):
        rows = [helpsteer_row(prompt=p) for p in ("a", " b", "c", "d")]
        source = {
            "name": "hs",
            "format": "helpsteer",
            "train": write_jsonl(tmp_path / "train.jsonl", rows),
            "validation": write_jsonl(tmp_path / "validation.jsonl", [helpsteer_row(prompt="b ")]),
        }
        ratings, tallies = self.read(self.data(source), {prompt_id("d")})
        assert [(r.prompt, r.split) for r in ratings] == [
            ("a", "train"),
            (" b", "validation"),
            ("c", "train"),
            ("d", "validation"),
            ("b ", "validation"),
        ]
        assert tallies["hs"].notes == {"moved to validation: prompt held out": 2}
        assert all(r.prompt_id == prompt_id(r.prompt) for r in ratings)

    def test_files_that_were_split_by_rows_are_refused(self, tmp_path):
        source = {
            "name": "hs",
            "format": "helpsteer",
            "train": write_jsonl(tmp_path / "t.jsonl", [helpsteer_row(prompt=p) for p in "aab"]),
            "validation": write_jsonl(tmp_path / "v.jsonl", [helpsteer_row(prompt="a")]),
        }
        with pytest.raises(
            InputError, match=r"hs: 2 of 3 training responses .* held out .*by rows"
        ):
            self.read(self.data(source))

    def test_validation_files_of_one_data_set_hold_out_of_all(self, tmp_path):
        hs = {
            "name": "hs",
            "format": "helpsteer",
            "train": write_jsonl(tmp_path / "hs.jsonl", [helpsteer_row(prompt=p) for p in "ab"]),
        }
        uf = {
            "name": "uf",
            "format": "ultrafeedback",
            "train": write_jsonl(
                tmp_path / "uf.jsonl", [ultrafeedback_row(completion(), instruction="c")]
            ),
            "validation": write_jsonl(
                tmp_path / "uv.jsonl", [ultrafeedback_row(completion(), instruction="a")]
            ),
        }
        ratings, _ = self.read(self.data(hs, uf))
        assert [(r.prompt, r.dataset, r.split) for r in ratings] == [
            ("a", "hs", "validation"),
            ("b", "hs", "train"),
            ("c", "uf", "train"),
            ("a", "uf", "validation"),
        ]

    def test_validation_values_are_mapped_with_the_training_quantiles(self, tmp_path):
        source = {
            "name": "mine",
            "format": "table",
            "train": write_jsonl(
                tmp_path / "t.jsonl", [table_row(prompt=str(s), stars=s) for s in (1, 2, 3, 4)]
            ),
            "validation": write_jsonl(
                tmp_path / "v.jsonl", [table_row(prompt=f"v{s}", stars=s) for s in (2, 3, 10)]
            ),
            **RANKED,
        }
        ratings, _ = self.read(self.data(source))
        values = [r.attributes["quality"] for r in ratings]
        assert values == [12.5, 37.5, 62.5, 87.5, 37.5, 62.5, 100]

    def test_the_limit_is_for_each_data_set(self, tmp_path):
        rows = [helpsteer_row(prompt=str(i)) for i in range(8)]
        good = write_jsonl(tmp_path / "good.jsonl", rows)
        bad = write_jsonl(tmp_path / "bad.jsonl", [*rows, *[helpsteer_row(response="")] * 2])
        data = self.data(
            {"name": "good", "format": "helpsteer", "train": good},
            {"name": "bad", "format": "helpsteer", "train": bad},
            max_dropped_fraction=0.15,
        )
        with pytest.raises(InputError, match=r"data\.ratings: bad: dropped 2 of 10 rows"):
            self.read(data)

    def test_nothing_left_to_train_on(self, tmp_path):
        row = ultrafeedback_row(completion(), source="truthful_qa")
        source = write_jsonl(tmp_path / "rows.jsonl", [row])
        data = self.data({"name": "uf", "format": "ultrafeedback", "train": source})
        with pytest.raises(InputError, match="no ratings left to train on"):
            self.read(data)

    def test_chat_turns(self, tmp_path):
        turns = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
        rows = [table_row(prompt=turns), table_row(prompt=turns[:1]), table_row(prompt="a")]
        source = write_jsonl(tmp_path / "rows.jsonl", rows)
        ratings, _ = self.read(self.data(table(train=source).model_dump(by_alias=True)))
        assert len({r.prompt_id for r in ratings}) == 2
        assert ratings[1].prompt_id == ratings[2].prompt_id
