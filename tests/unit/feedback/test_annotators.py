"""What annotators say, and what becomes of it."""

import csv
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.outputs import command
from dpa.artefacts.sidecars import read_sidecar
from dpa.config.feedback import AnnotatorSectionConfig, GoldAnnotatorConfig
from dpa.data.rated import Tally
from dpa.errors import InputError
from dpa.feedback import checkpoint
from dpa.feedback.annotators import open_annotator
from dpa.feedback.choose import response_hash
from dpa.feedback.collect import collect_ratings
from dpa.feedback.rated_files import write_rating_sheet
from dpa.quickstart.world import SCORES, gold_scores, perfect_response
from dpa.records import Rating, ToRate
from dpa.reward.chat_scorer import ChatScorer
from dpa.text.prompts import prompt_id
from tests.support.tiny_models import make_chat_reward_model

PROMPT = "Describe the otter."
GOLD = GoldAnnotatorConfig(kind="gold")
#: What is not kept beside its output is kept nowhere.
NOWHERE = Path("ratings.jsonl")
NAMES = ["helpsteer-verbosity", "ultrafeedback-honesty", "style"]


def to_rate(response, prompt=PROMPT):
    return ToRate(
        prompt_id=prompt_id(prompt),
        response_hash=response_hash(response),
        prompt=prompt,
        response=response,
    )


def test_gold_rates_what_is_true_through_noise():
    items = [to_rate(perfect_response(PROMPT, n) + " " * k) for n in range(1, 7) for k in range(20)]
    rate = open_annotator(GOLD, SCORES, 1, 0, NOWHERE)
    rated = rate(items, Tally())
    assert rated == rate(items, Tally())
    assert rated != open_annotator(GOLD, SCORES, 1, 1, NOWHERE)(items, Tally())
    errors = {name: [] for name in SCORES}
    for item, found in zip(items, rated, strict=True):
        assert set(found) == set(SCORES)
        truth = gold_scores(PROMPT, item.response)
        for name, value in found.items():
            assert value % 20 == 10 or name == "ultrafeedback-overall_score"
            errors[name].append(value - truth[name])
    # Noise of 9 points, and rounding to five levels: no label is above 90.
    spread = [abs(sum(some) / len(some)) for some in errors.values()]
    assert max(spread) < 12, spread
    assert all(max(map(abs, some)) < 60 for some in errors.values())


def test_only_attributes_of_the_reward_model_are_rated():
    names = ["helpsteer-verbosity", "style"]
    rated = open_annotator(GOLD, names, 1, 0, NOWHERE)([to_rate("Hi.")], Tally())
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
            tmp_path / "to_rate.jsonl", some, ["helpsteer-verbosity"], 3, minimum, output, GOLD
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


# --- People ----------------------------------------------------------------------------------


def people(folder, **options):
    config = AnnotatorSectionConfig.validate_python(
        {"kind": "file", "path": str(folder), "scales": {"style": [1, 7]}, **options}
    )
    return open_annotator(config, NAMES, 2, 0, NOWHERE)


def put(folder, rows, name="mine.jsonl"):
    (folder / "iter2").mkdir(exist_ok=True)
    (folder / "iter2" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_people_are_told_what_to_do_first(tmp_path):
    with pytest.raises(InputError) as caught:
        people(tmp_path)([to_rate("Hi.")], Tally())
    message = str(caught.value)
    assert f"{tmp_path}/iter2: no ratings yet; rate the 1 responses of to_rate.csv" in message
    assert "helpsteer-verbosity (0 to 4), ultrafeedback-honesty (1 to 5), style (1 to 7)" in message
    assert "\n" not in message


def test_rows_are_matched_by_prompt_and_response(tmp_path):
    items = [to_rate("Hi."), to_rate("Ho."), to_rate("He.")]
    rows = [
        {"prompt_id": items[0].prompt_id, "response_hash": items[0].response_hash,
         "helpsteer-verbosity": 3, "ultrafeedback-honesty": "", "style": 4},
        # A labelling tool that keeps the text; two raters, of whom the mean counts.
        {"prompt_id": items[1].prompt_id, "response": "Ho.", "ultrafeedback-honesty": "5"},
        {"prompt_id": items[1].prompt_id, "response": "Ho.", "ultrafeedback-honesty": 3},
        {"prompt_id": items[1].prompt_id, "response": "Another.", "style": 1},
        {"prompt_id": items[2].prompt_id, "response": "He.", "style": None},
    ]  # fmt: skip
    put(tmp_path, rows)
    tally = Tally()
    assert people(tmp_path)(items, tally) == [
        {"helpsteer-verbosity": 70, "style": 50}, {"ultrafeedback-honesty": 70}, {}
    ]  # fmt: skip
    assert tally.row_counts.dropped == {
        "matches no response that was asked for": 1, "not rated": 1
    }  # fmt: skip
    assert tally.notes["further ratings of a response"] == 1
    assert (tmp_path / "iter2/mine.jsonl").exists()


@pytest.mark.parametrize("value", [6, "good", "nan", 1e400])
def test_nonsense_names_its_cell(tmp_path, value):
    item = to_rate("Hi.")
    rows = [{"prompt_id": item.prompt_id, "response": "Hi.", "ultrafeedback-honesty": str(value)}]
    put(tmp_path, rows)
    with pytest.raises(InputError, match=r"mine.jsonl:1: column 'ultrafeedback-honesty' is .*corr"):
        people(tmp_path)([item], Tally())


def test_files_of_something_else_are_refused(tmp_path):
    put(tmp_path, [{"prompt_id": "p", "response": "Hi.", "honesty": 3}])
    with pytest.raises(InputError, match="no column of an attribute; it may have: helpsteer-verb"):
        people(tmp_path)([to_rate("Hi.")], Tally())


def test_a_filled_in_sheet_is_read_back(tmp_path):
    items = [to_rate('=HYPERLINK("x")'), to_rate("- one,\n- two"), to_rate("NUL \0 \x07.")]
    write_rating_sheet(tmp_path / "to_rate.csv", items, NAMES)
    with open(tmp_path / "to_rate.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["response"] for row in rows] == [
        "'=HYPERLINK(\"x\")", "'- one,\n- two", "NUL \ufffd \ufffd."
    ]  # fmt: skip
    (tmp_path / "iter2").mkdir()
    with open(tmp_path / "iter2/a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"style": str(n)} for n, row in enumerate(rows, 1))
    rated = people(tmp_path)(items, Tally())
    assert [round(found["style"], 3) for found in rated] == [0, 16.667, 33.333]


# --- Another reward model --------------------------------------------------------------------


def other_model(folder, **outputs):
    path = make_chat_reward_model(folder)
    return AnnotatorSectionConfig.validate_python(
        {"kind": "reward_model", "model": {"path": path}, "outputs": outputs}
    )


def test_another_model_rates_by_its_outputs(tmp_path):
    config = other_model(
        tmp_path,
        style={"output": "style", "from": [-1000, 1000]},
        **{"helpsteer-verbosity": {"output": 1, "from": [1000, -1000]}},
    )
    items = [to_rate(text) for text in ("the otter", "fish", "a badger digs")]
    tally = Tally()
    rated = open_annotator(config, NAMES, 1, 0, tmp_path / "ratings.jsonl")(items, tally)
    [alone] = open_annotator(config, NAMES, 1, 0, tmp_path / "ratings.jsonl")(items[1:2], Tally())
    assert rated[1] == alone
    assert all(0 < value < 100 for found in rated for value in found.values())
    assert len({found["style"] for found in rated}) == 3
    assert tally.row_counts.read == 3


def test_what_is_no_number_is_no_rating(tmp_path):
    config = other_model(tmp_path, style={"output": "style", "from": [-1000, 1000]})
    weights = load_file(tmp_path / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    fish, otter = (set(tokenizer(f"assistant: {what}")["input_ids"]) for what in ("fish", "otter"))
    broken = fish - otter
    weights["model.embed_tokens.weight"][list(broken)] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    tally = Tally()
    items = [to_rate("otter"), to_rate("fish")]
    [whole, nothing] = open_annotator(config, NAMES, 1, 0, tmp_path / "ratings.jsonl")(items, tally)
    assert 0 < whole["style"] < 100
    assert nothing == {}
    assert tally.row_counts.dropped == {"an output that is not a number": 1}


def test_a_killed_rating_resumes(tmp_path, monkeypatch):
    """What was scored is not scored again, and the ratings are an undisturbed run's."""
    monkeypatch.setattr(checkpoint, "SAMPLES_PER_CHUNK", 2)
    config = other_model(tmp_path / "rater", style={"output": "style", "from": [-1000, 1000]})
    weights = load_file(tmp_path / "rater/model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rater")
    fish, otter = (set(tokenizer(f"assistant: {what}")["input_ids"]) for what in ("fish", "otter"))
    weights["model.embed_tokens.weight"][list(fish - otter)] = float("nan")
    save_file(weights, tmp_path / "rater/model.safetensors", {"format": "pt"})
    items = [to_rate(text) for text in ("otter", "fish", "otter " * 2, "otter " * 3, "otter " * 4)]
    write_jsonl(tmp_path / "to_rate.jsonl", items)
    scored = []

    def collect(name, dies_at=None):
        outputs = ChatScorer.outputs

        def watched(self, pairs):
            if len(scored) == dies_at:
                raise KeyboardInterrupt
            scored.append([response for _, response in pairs])
            return outputs(self, pairs)

        output = tmp_path / name / "ratings.jsonl"
        given = [tmp_path / "to_rate.jsonl"]
        with monkeypatch.context() as patch, command([(output, False)], given, [], False):
            patch.setattr(ChatScorer, "outputs", watched)
            rate = open_annotator(config, NAMES, 1, 0, output)
            collect_ratings(given[0], rate, ["style"], 1, 0.5, output, config)
        assert sorted(path.name for path in output.parent.iterdir()) == [
            "ratings.jsonl", "ratings.jsonl.meta.json"
        ]  # fmt: skip
        sidecar = read_sidecar(output)
        return output.read_bytes(), sidecar["annotation"], sidecar["labels"]

    with pytest.raises(KeyboardInterrupt):
        collect("killed", dies_at=2)
    assert not (tmp_path / "killed/ratings.jsonl").exists()
    del scored[:]
    resumed = collect("killed")
    assert scored == [["otter otter otter otter "]]
    assert resumed == collect("whole")
    assert resumed[1]["dropped"] == {"an output that is not a number": 1}


def test_a_scale_of_another_model_is_refused(tmp_path):
    config = other_model(tmp_path, style={"output": "style", "from": [1e6, 2e6]})
    with pytest.raises(InputError) as caught:
        open_annotator(config, NAMES, 1, 0, tmp_path / "ratings.jsonl")(
            [to_rate("the otter"), to_rate("fish")], Tally()
        )
    message = str(caught.value)
    assert "feedback.annotator.outputs.style.from: [1e+06, 2e+06], and the outputs of" in message
    assert "2 of 2 outside; correct it" in message


def test_outputs_that_are_not_there_are_refused(tmp_path):
    config = other_model(tmp_path, style={"output": "charm", "from": [0, 1]})
    with pytest.raises(InputError, match=r"outputs.style: .* no output 'charm'; it has 3: quality"):
        open_annotator(config, NAMES, 1, 0, tmp_path / "ratings.jsonl")
