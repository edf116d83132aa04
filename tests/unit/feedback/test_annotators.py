"""What annotators say, and what becomes of it."""

import json

import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.feedback import GoldAnnotatorConfig
from dpa.data.rated import Tally
from dpa.errors import InputError
from dpa.feedback.annotators import open_annotator
from dpa.feedback.choose import response_hash
from dpa.feedback.collect import collect_ratings
from dpa.quickstart.world import SCORES, gold_scores, perfect_response
from dpa.records import Rating, ToRate
from dpa.text.prompts import prompt_id

PROMPT = "Describe the otter."


def to_rate(response, prompt=PROMPT):
    return ToRate(
        prompt_id=prompt_id(prompt),
        response_hash=response_hash(response),
        prompt=prompt,
        response=response,
    )


def test_gold_rates_what_is_true_through_noise():
    items = [to_rate(perfect_response(PROMPT, n) + " " * k) for n in range(1, 7) for k in range(20)]
    rate = open_annotator(GoldAnnotatorConfig(kind="gold"), SCORES, 0)
    rated = rate(items, Tally())
    assert rated == rate(items, Tally())
    assert rated != open_annotator(GoldAnnotatorConfig(kind="gold"), SCORES, 1)(items, Tally())
    errors = {name: [] for name in SCORES}
    for item, found in zip(items, rated, strict=True):
        assert set(found) == set(SCORES)
        truth = gold_scores(PROMPT, item.response)
        for name, value in found.items():
            assert value % 20 == 10 or name == "ultrafeedback-overall_score"
            errors[name].append(value - truth[name])
    # Noise of 9 points, and rounding to five levels: nobody is given more than 90.
    spread = [abs(sum(some) / len(some)) for some in errors.values()]
    assert max(spread) < 12, spread
    assert all(max(map(abs, some)) < 60 for some in errors.values())


def test_only_attributes_of_the_reward_model_are_rated():
    names = ["helpsteer-verbosity", "style"]
    rated = open_annotator(GoldAnnotatorConfig(kind="gold"), names, 0)([to_rate("Hi.")], Tally())
    assert [set(found) for found in rated] == [{"helpsteer-verbosity"}]


@pytest.mark.parametrize("minimum", [0.5, 0.9])
def test_ratings_are_counted_and_must_be_enough(tmp_path, minimum):
    items = [to_rate(f"Response {n}.") for n in range(4)]
    write_jsonl(tmp_path / "to_rate.jsonl", items)

    def some(asked, tally):
        tally.row_counts.read += len(asked)
        tally.row_counts.drop("silence", rows=1)
        return [{}, *({"helpsteer-verbosity": 30.0} for _ in asked[1:])]

    output = tmp_path / "ratings.jsonl"

    def collect():
        collect_ratings(
            tmp_path / "to_rate.jsonl", some, ["helpsteer-verbosity"], 3, minimum, output
        )

    if minimum == 0.9:
        with pytest.raises(InputError, match=r"3 of 4 responses have a rating \(.*1 silence\)"):
            collect()
        assert not output.exists()
        return
    collect()
    ratings = read_jsonl(output, Rating)
    assert [r.response for r in ratings] == [item.response for item in items[1:]]
    assert {(r.dataset, r.split) for r in ratings} == {("feedback-3", "train")}
    sidecar = read_sidecar(output)
    assert (sidecar["asked"], sidecar["rated"]) == (4, 3)
    assert sidecar["labels"] == {"helpsteer-verbosity": 3}
    assert json.dumps(sidecar["annotation"]).count("silence") == 1
