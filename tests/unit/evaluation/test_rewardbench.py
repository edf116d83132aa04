import math
from pathlib import Path

import msgspec
import pytest
import torch

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.config.benchmarks import BenchmarkSectionConfig
from dpa.config.data import SourceConfig
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.evaluation.preference_judge import PreferenceJudge
from dpa.evaluation.rewardbench import rates, win_rates
from dpa.evaluation.rewardbench_data import prepare_rewardbench, subsets_of
from dpa.evaluation.rewardbench_judging import judge_samples
from dpa.records import Choice, JudgedSample, Prompt, Sample
from dpa.text.prompts import prompt_id

SECTIONS = [
    BenchmarkSectionConfig(name="One", subsets={"a": 2, "b": 4}),
    BenchmarkSectionConfig(name="Two", subsets={"c": 1}),
]


def choices():
    return [
        {"prompt": f"{s} {i}", "chosen": "x", "rejected": "y", "subset": s, "id": f"{s}{i}"}
        for section in SECTIONS
        for s, n in section.subsets.items()
        for i in range(n)
    ]


def prepared(tmp_path: Path, rows) -> tuple[Path, Path]:
    write_jsonl(tmp_path / "raw.jsonl", rows)
    items, prompts = tmp_path / "items.jsonl", tmp_path / "prompts.jsonl"
    prepare_rewardbench(SourceConfig(path=str(tmp_path / "raw.jsonl")), SECTIONS, items, prompts)
    return items, prompts


def test_the_default_sections_are_rewardbenchs():
    sections = load_config(
        {"experiment": "mistral-7b", "allow_floating": True}
    ).rewardbench.sections
    assert {s.name: sum(s.subsets.values()) for s in sections} == {
        "Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431,
    }  # fmt: skip
    assert len(subsets_of(sections)) == 23
    assert sum(subsets_of(sections).values()) == 2985


def test_subsets_must_be_complete(tmp_path):
    rows = choices()
    with pytest.raises(InputError, match="a: 1, not 2; d: not expected"):
        prepared(tmp_path, [*rows[1:], {**rows[0], "subset": "d"}])


def test_shared_prompts_are_asked_once(tmp_path):
    rows = choices()
    rows[3]["prompt"] = rows[0]["prompt"]
    items, prompts = prepared(tmp_path, rows)
    assert len(read_jsonl(items, Choice)) == 7
    assert [p.prompt for p in read_jsonl(prompts, Prompt)] == [
        row["prompt"] for i, row in enumerate(rows) if i != 3
    ]


def test_averages_worked_by_hand():
    found = {
        (r.level, r.name): r for r in rates({"a": [1, 0.5], "b": [1, 0, 0, 0], "c": [1]}, SECTIONS)
    }
    a, b = found["subset", "a"], found["subset", "b"]
    assert (a.rate, a.wins, a.ties, a.n) == (0.75, 1, 1, 2)
    assert a.error == pytest.approx(0.25)
    assert b.error == pytest.approx(0.25)
    one = found["section", "One"]
    assert one.rate == found["average_macro", "One"].rate == 0.5
    assert one.error == pytest.approx(math.sqrt(2 * 0.25**2) / 2)
    assert found["average_weighted", "One"].rate == pytest.approx(2.5 / 6)
    assert found["average_macro", "all"].rate == pytest.approx((0.75 + 0.25 + 1) / 3)
    assert found["average_weighted", "all"].rate == pytest.approx(3.5 / 7)
    assert (found["average_macro", "all"].n, found["average_macro", "all"].ties) == (7, 1)


def sample(prompt: str, response: str, direction=None) -> Sample:
    return Sample(
        prompt_id=prompt_id(prompt), direction_index=-1 if direction is None else 0,
        direction=direction, sample_index=0, seed=0, response=response, finish_reason="stop",
        prompt_tokens=1, response_tokens=1,
    )  # fmt: skip


def test_win_rates_against_a_reference(tmp_path):
    items, _ = prepared(tmp_path, choices())

    def judged(name, scores, direction):
        write_jsonl(
            tmp_path / name,
            [
                JudgedSample(
                    **msgspec.structs.asdict(sample(row["prompt"], "r", direction)), score=score
                )
                for row, score in zip(choices(), scores, strict=True)
            ],
        )
        return tmp_path / name

    ours = judged("dpa-3.jsonl", [2, 1, 5, 0, 0, 0, 1], [0.6, -0.8])
    theirs = judged("dpo.jsonl", [1] * 7, None)
    rows = win_rates([ours], theirs, items, SECTIONS, ["h", "v"], 4)
    by_name = {(row["level"], row["name"]): row for row in rows}
    a = by_name["subset", "a"]
    assert (a["method"], a["iteration"], a["seed"], a["v_h"], a["v_v"]) == ("dpa", 3, 4, 0.6, -0.8)
    assert (a["reference"], a["win_rate"], a["ties"]) == ("dpo", 75.0, 1)
    assert by_name["subset", "b"]["win_rate"] == 25.0
    assert by_name["subset", "c"]["win_rate"] == 50.0
    with pytest.raises(InputError, match="takes no direction"):
        win_rates([ours], ours, items, SECTIONS, ["h", "v"], 4)
    write_jsonl(theirs, read_jsonl(theirs, JudgedSample)[1:])
    with pytest.raises(InputError, match=r"dpo.jsonl: no response to a prompt of a, 'a 0'"):
        win_rates([ours], theirs, items, SECTIONS, ["h", "v"], 4)


@pytest.mark.parametrize("pad_is_end", [False, True])
def test_a_judge_scores_as_transformers_does_one_by_one(tmp_path, pad_is_end):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from tests.support.tiny_models import make_config, make_tokenizer

    torch.manual_seed(0)
    config = make_config("mistral", num_labels=1)
    tokenizer = make_tokenizer()
    config.pad_token_id = tokenizer.eos_token_id if pad_is_end else tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.mul_(100)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    pairs = [("Tell me.", "an otter swims far"), ("Tell me.", "fish"), ("the river", "otter swims")]
    judge = PreferenceJudge.load(str(tmp_path))
    found = judge.scores(pairs)
    assert len(set(found)) == 3
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    own = AutoTokenizer.from_pretrained(tmp_path)
    for (prompt, response), score in zip(pairs, found, strict=True):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        ids = own.apply_chat_template(turns, return_tensors="pt", return_dict=False)
        with torch.no_grad():
            assert score == pytest.approx(plain(ids).logits[0, 0].item(), abs=2e-4)
        assert judge.scores([(prompt, response)]) == pytest.approx([score], abs=2e-4)


def test_a_judge_has_one_output(tmp_path):
    from tests.support.tiny_models import make_reward_model

    with pytest.raises(InputError, match="has 3 outputs; a judge has one"):
        PreferenceJudge.load(make_reward_model(tmp_path / "model"))


class Counting:
    """A judge that stops after some calls; longer responses score higher."""

    def __init__(self, calls: int) -> None:
        self.left, self.scored = calls, 0

    def scores(self, pairs):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.scored += len(pairs)
        return [float(len(response)) for _, response in pairs]


@pytest.mark.parametrize(("letters", "said"), [("r", True), ("rs", False)])
def test_a_judge_that_scores_all_alike_is_said_to(tmp_path, caplog, letters, said):
    _, prompts = prepared(tmp_path, choices())
    responses = (letters * 2 if i % 2 else letters[0] * 2 for i in range(len(choices())))
    write_jsonl(
        tmp_path / "s.jsonl",
        [sample(r["prompt"], text) for r, text in zip(choices(), responses, strict=True)],
    )
    judge_samples(
        Counting(9), tmp_path / "s.jsonl", prompts, tmp_path / "judged.jsonl", {"code": "a"}, print
    )
    assert ("the same score by the judge" in caplog.text) is said


def test_a_killed_judge_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("dpa.evaluation.rewardbench_judging.RESPONSES_PER_CHUNK", 3)
    _, prompts = prepared(tmp_path, choices())
    write_jsonl(
        tmp_path / "s.jsonl", [sample(r["prompt"], "r" * i) for i, r in enumerate(choices())]
    )
    arguments = (tmp_path / "s.jsonl", prompts, tmp_path / "judged.jsonl", {"code": "a"})
    sidecars: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        judge_samples(Counting(1), *arguments, sidecars.append)
    assert sidecars == []
    rest = Counting(9)
    judge_samples(rest, *arguments, sidecars.append)
    assert sidecars == [7]
    assert rest.scored == 4
    assert [r.score for r in read_jsonl(arguments[2], JudgedSample)] == [0, 1, 2, 3, 4, 5, 6]
