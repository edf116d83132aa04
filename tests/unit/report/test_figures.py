"""Figures: the tables of their marks worked by hand, and files that are the same each time."""

import re

import matplotlib.pyplot as plt
import msgspec
import numpy as np
import pandas as pd
import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.errors import InputError
from dpa.evaluation.costs import job_costs
from dpa.evaluation.given_points import read_given_points
from dpa.evaluation.rating_agreement import prediction_rows
from dpa.records import Prompt, ScoredSample
from dpa.registry import METHODS
from dpa.report.figures import (
    costs,
    fronts,
    overoptimisation,
    policy_gradient,
    reward_model,
    samples,
    training_curves,
)
from dpa.report.figures.style import drawn_in, keep_inside, label_end, page_width, write_figure
from tests.support.figure_data import (
    DIRECTIONS,
    OBJECTIVES,
    PUBLISHED,
    REFERENCE,
    STYLE,
    make_rewards,
)


def pick(marks, **where):
    for column, value in where.items():
        marks = marks[marks[column].isna() if value is None else marks[column] == value]
    return marks


def test_every_method_has_a_style():
    assert len({method.label for method in METHODS.values()}) == len(METHODS)
    assert len({(method.marker, method.colour) for method in METHODS.values()}) == len(METHODS)
    markers, colours = zip(*fronts.EXTRA_LOOKS, strict=True)
    assert not set(markers) & {method.marker for method in METHODS.values()}
    assert not set(colours) & {method.colour for method in METHODS.values()}


# --- Figure 4 --------------------------------------------------------------------------------


def test_figure4_marks_by_hand():
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    ours = pick(marks, source="ours", by="r", method="dpa", iteration=1)
    points = pick(ours, panel="front")
    assert points[["x", "y"]].to_numpy().tolist() == [[40, 80], [20, 70]]
    assert points[["v_helpfulness", "v_verbosity"]].to_numpy().tolist() == [[1, 0], [0.8, -0.6]]
    # The mean of three draws of +-4 has a standard error of 4 / sqrt(3); both rewards move alike.
    assert points[["x_se", "y_se"]].to_numpy() == pytest.approx(2.31, rel=0.1)
    assert points["correlation"].tolist() == pytest.approx([1.0, 1.0])
    [volume] = pick(ours, panel="hypervolume").to_dict("records")
    # Gains (0.8, 0.6) and (0.7, 0.8): 0.48 + 0.7 * 0.2.
    assert volume["y"] == pytest.approx(62)
    # Rewards that move by d together make it 62 - 100 d^2.
    assert volume["low"] < 61.9 < volume["high"] <= 62
    # By the gold scorer, for whom all prompts are alike, nothing is uncertain.
    gold = pick(marks, by="gold", panel="front")
    assert gold[["x_se", "y_se", "correlation"]].to_numpy().tolist() == [[0, 0, 0]] * 5


def test_directions_outside_of_the_trained_ones_are_hollow():
    table = make_rewards()
    last = (table["method"] == "dpa") & (table["iteration"] == 1) & (table["direction_index"] == 0)
    beyond = table[last].assign(
        direction_index=2, v_helpfulness=0.0, v_verbosity=-1.0, r_verbosity=5.0, outside=True
    )
    both = pd.concat([table.assign(outside=False), beyond])
    marks = fronts.figure4_marks([both], OBJECTIVES, REFERENCE, PUBLISHED)
    ours = pick(marks, source="ours", by="r", method="dpa", iteration=1)
    assert pick(ours, panel="front")["outside"].tolist() == [False, False, True]
    [volume] = pick(ours, panel="hypervolume")["y"]
    assert volume == pytest.approx(62)
    figure = fronts.draw_figure4(marks, OBJECTIVES, "")
    hollow = [
        line.get_xydata().tolist()
        for line in figure.axes[0].lines
        if line.get_markerfacecolor() is not None and str(line.get_markerfacecolor()) == "none"
        and len(line.get_xdata())
    ]  # fmt: skip
    assert hollow == [[[5.0, 80.0]]]
    assert "Hollow" in fronts.figure4_caption(marks, "x", OBJECTIVES, 4, "none")


def test_the_papers_conditions_are_ringed():
    table = make_rewards()
    steerlm = table[(table["method"] == "dpa") & (table["iteration"] == 0)]
    # Four conditions, of which the paper's three are the first, the third and the fourth.
    more = [
        steerlm[steerlm["direction_index"] == 0].assign(
            direction_index=i, c_helpfulness=60.0, c_verbosity=20.0 + i
        )
        for i in range(4)
    ]
    others = table.drop(steerlm.index)
    marks = fronts.figure4_marks(
        [pd.concat([others, *more])], OBJECTIVES, REFERENCE, PUBLISHED, curve_points=3
    )
    ours = pick(marks, source="ours", panel="front", by="r")
    assert pick(ours, method="dpa", iteration=0)["papers"].tolist() == [True, False, True, True]
    assert not pick(ours, method="dpa", iteration=1)["papers"].any()
    # Rewards that stand for directions are none of the paper's conditions.
    told = others["iteration"] == 1
    others.loc[told, ["c_helpfulness", "c_verbosity"]] = 50.0
    both = fronts.figure4_marks([others], OBJECTIVES, REFERENCE, PUBLISHED, curve_points=2)
    assert not both["papers"].any()
    figure = fronts.draw_figure4(marks, OBJECTIVES, "")
    assert sum(len(rings.get_offsets()) for rings in figure.axes[0].collections) == 3
    assert "Rings" in fronts.figure4_caption(marks, "x", OBJECTIVES, 4, "none")
    plain = fronts.figure4_marks([table], OBJECTIVES, REFERENCE, PUBLISHED)
    assert "Rings" not in fronts.figure4_caption(plain, "x", OBJECTIVES, 4, "none")


def test_the_papers_marks_are_beside_ours():
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    paper = pick(marks, source="paper", panel="front")
    assert len(paper) == len(PUBLISHED)
    # From the most helpful direction on, as ours.
    first = pick(paper, method="dpa", iteration=1, direction_index=0)
    assert first[["x", "y"]].to_numpy().tolist() == [[56.5, 77.6]]
    volumes = pick(marks, source="paper", panel="hypervolume", method="dpa")
    assert volumes["iteration"].tolist() == [0, 1, 2, 3, 4]
    three = [*OBJECTIVES, "harmlessness"]
    table = make_rewards(gold=False).assign(
        v_harmlessness=0.0, c_harmlessness=0.0, r_harmlessness=50.0
    )
    marks = fronts.figure4_marks([table], three, [0.0, 100.0, 0.0], PUBLISHED)
    assert set(marks["source"]) == {"ours"}


def test_several_seeds_are_drawn_with_their_clusters():
    seeds = [make_rewards(seed, shift=2.0 * seed) for seed in (0, 1)]
    marks = fronts.figure4_marks(seeds, OBJECTIVES, REFERENCE, PUBLISHED)
    ours = pick(marks, source="ours", by="r", method="sft")
    [point] = pick(ours, panel="front").to_dict("records")
    # Helpfulness 50 and 52: mean 51, standard error of the mean 1; of prompts' +-4 as above.
    assert (point["x"], point["y"]) == pytest.approx((50, 51))
    assert point["x_se"] == pytest.approx(4 / 3**0.5, rel=0.1)
    assert point["y_se"] == pytest.approx((1 + 16 / 3) ** 0.5, rel=0.1)
    assert point["seeds"] == 2
    assert not len(pick(ours, panel="hypervolume"))  # a single point spans no front
    dpa = pick(marks, source="ours", by="r", method="dpa", iteration=1, panel="hypervolume")
    [volume] = dpa.to_dict("records")
    # Gains (0.80, 0.6) and (0.70, 0.8): 62; with 0.82 and 0.72 63.6.
    assert volume["y"] == pytest.approx(62.8)
    assert volume["low"] < 62 < 63.6 <= volume["high"]
    caption = fronts.figure4_caption(marks, "x", OBJECTIVES, 4, "ellipses")
    assert "bootstrap over seeds and clusters of prompts. Hyp" in " ".join(caption.split())
    assert "There is one seed" not in caption
    one = fronts.figure4_marks(seeds[:1], OBJECTIVES, REFERENCE, PUBLISHED)
    caption = fronts.figure4_caption(one, "x", OBJECTIVES, 4, "bars")
    assert "There is one seed: what varies between seeds" in caption


def test_numbers_of_ones_own_are_drawn_beside_ours(tmp_path):
    curve, point = tmp_path / "curve.csv", tmp_path / "point.parquet"
    curve.write_text(
        "method,r_helpfulness,r_verbosity,gold_helpfulness,gold_verbosity,v_helpfulness,v_verbosity\n"
        "other,80,40,60,50,1,0\nother,70,20,50,30,0.8,-0.6\n"
    )
    pd.DataFrame({"r_helpfulness": [60], "r_verbosity": [50.0]}).to_parquet(point)
    extra = {
        label: read_given_points(path, OBJECTIVES) for label, path in (("c", curve), ("p", point))
    }
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED, 5, extra)
    [volume] = pick(marks, source="extra", method="c", by="r", panel="hypervolume")["y"]
    assert volume == pytest.approx(62)  # as DPA's, whose points these are
    points = pick(marks, source="extra", method="c", by="gold", panel="front")
    assert points[["x", "y", "v_verbosity"]].to_numpy().tolist() == [[50, 60, 0], [30, 50, -0.6]]
    assert len(pick(marks, source="extra", method="p")) == 1
    figure = fronts.draw_figure4(marks, OBJECTIVES, "")
    drawn = [
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        for axes in figure.axes[:2]
    ]
    assert (drawn[0]["c"], drawn[0]["p"]) == ([[40, 80], [20, 70]], [[50, 60]])
    assert (drawn[1]["c"], drawn[1].get("p")) == ([[50, 60], [30, 50]], None)
    assert {"c", "p"} < {text.get_text() for text in figure.legends[0].get_texts()}
    assert "c" in [text.get_text() for text in figure.axes[2].get_xticklabels()]
    caption = " ".join(fronts.figure4_caption(marks, "x", OBJECTIVES, 4, "none").split())
    assert "The numbers of “c” and “p” were given" in caption


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "helpfulness\n1\n", r"a\.csv: no column \['r_helpfulness', 'r_verbosity'\]"),
        ("a.csv", "r_helpfulness,r_verbosity\n", r"has no row"),
        ("a.csv", "r_helpfulness,r_verbosity\n1,2\n3,high\n", r"row 2: r_verbosity is high, no"),
        ("a.csv", "r_helpfulness,r_verbosity,v_helpfulness,v_verbosity\n1,2,1,0\n1,2,,1\n",
         r"row 2: v_helpfulness is empty"),
        ("a.csv", "method,r_helpfulness,r_verbosity\na,1,2\nb,1,2\n", r"method is a and b"),
        ("a.txt", "r_helpfulness,r_verbosity\n1,2\n", r"neither \.csv nor \.parquet"),
        ("a.parquet", "r_helpfulness,r_verbosity\n1,2\n", r"a\.parquet: .*docs/outputs"),
        ("a.csv", None, r"a\.csv: no such file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_of_points_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        read_given_points(tmp_path / name, OBJECTIVES)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("directions", "said"),
    [
        ([(1, 0), (0.7, -0.7)], "Far up and left is better."),
        ([(1, 0), (0.7, 0.7)], "Far up and right is better."),
        (
            [(0.7, -0.7), (0.7, 0.7)],
            "Far up is better, and whether left or right is better depends on the direction.",
        ),
        ([(-0.7, 0.7)], "Far down and right is better."),
        ([], ""),
    ],
)
def test_the_caption_says_which_way_is_better(directions, said):
    columns = [f"v_{name}" for name in OBJECTIVES]
    rows = pd.DataFrame(directions, columns=columns, dtype=float)
    policies = pd.DataFrame([dict.fromkeys(columns)], dtype=float)  # an SFT's
    marks = pd.concat([rows, policies]).assign(outside=False)
    assert fronts.better_side(marks, OBJECTIVES).strip() == said


@pytest.mark.parametrize("gold", [True, False])
@pytest.mark.slow
def test_figure4_shows_what_is_there(tmp_path, gold):
    marks = fronts.figure4_marks([make_rewards(gold=gold)], OBJECTIVES, REFERENCE, PUBLISHED)
    figure = fronts.draw_figure4(marks, OBJECTIVES, "title")
    assert len(figure.axes) == (4 if gold else 2)
    write_figure(tmp_path, "figure4", figure, marks, "caption", [], STYLE)
    svg = (tmp_path / "figure4.svg").read_text()
    for text in ("DPA t=1", "DPA t=0 (SteerLM on D2)", "SFT", "hypervolume by the reward model"):
        assert text in svg
    assert ("by the gold scorer" in svg) == gold
    assert "published" not in svg
    figure = fronts.draw_figure4(marks, OBJECTIVES, "title", published=True, uncertainty="bars")
    write_figure(tmp_path, "figure4", figure, marks, "caption", [], STYLE)
    assert "published (paper, read off)" in (tmp_path / "figure4.svg").read_text()


# --- Over-optimisation -----------------------------------------------------------------------


def measured_run(folder, seed=0, shift=0.0, moved=(2.0, 2.0, 4.0, 4.0)):
    """A run whose first iteration has moved by so much on each prompt."""
    make_rewards(seed, shift=shift).to_parquet(folder / "prompt_rewards.parquet")
    rows = [
        {
            "prompt_id": prompt,
            "direction_index": index,
            "policy_logprob": -5.0,
            "reference_logprob": -5.0 - kl + noise,
        }
        for prompt, kl in zip("abcd", moved, strict=True)
        # The last is a direction that is not among the rewards: outside of the trained ones.
        for index, noise in ((0, 1.0), (1, -1.0), (2, -99.0))
    ]
    (folder / "divergence").mkdir()
    pd.DataFrame(rows).to_parquet(folder / "divergence/dpa-1.parquet")


@pytest.fixture
def runs(tmp_path):
    """Makes runs, and reads them."""

    def make(name, **settings):
        (tmp_path / name / "evaluation").mkdir(parents=True)
        measured_run(tmp_path / name / "evaluation", **settings)
        return overoptimisation.read_measured_run(tmp_path / name, OBJECTIVES)

    return make


def test_overoptimisation_marks_by_hand(runs):
    marks = overoptimisation.overoptimisation_marks({"plain": [runs("a")]}, OBJECTIVES)
    assert marks[["by", "method", "iteration"]].to_numpy().tolist() == [
        ["r", "sft", 0], ["r", "dpa", 1], ["gold", "sft", 0], ["gold", "dpa", 1]
    ]  # fmt: skip
    # (80, 40) under (1, 0) and (70, 20) under (0.8, -0.6): 80 and 44. SFT's (50, 50): 50 and 10.
    assert marks["reward"].tolist() == pytest.approx([30, 62, 30, 62])
    assert marks["kl"].tolist() == pytest.approx([0, 3, 0, 3])
    one = pick(marks, by="r", iteration=1).iloc[0]
    assert 2 <= one["kl_low"] < 3 < one["kl_high"] <= 4
    # A prompt's offset of 4 moves v.r by 4 and 0.8.
    assert 62 - 2.4 <= one["reward_low"] < 62 < one["reward_high"] <= 62 + 2.4
    gold = pick(marks, by="gold", iteration=1).iloc[0]
    assert gold["reward_low"] == pytest.approx(62) == gold["reward_high"]


def test_overoptimisation_of_several_seeds_and_variants(runs):
    variants = {
        "plain": [runs("a"), runs("b", seed=1, shift=2.0, moved=(5.0,) * 4)],
        "feedback": [runs("c")],
    }
    marks = overoptimisation.overoptimisation_marks(variants, OBJECTIVES)
    one = pick(marks, variant="plain", by="r", iteration=1).iloc[0]
    # KL of 3 and 5; a shift of 2 in helpfulness is worth 2 and 1.6.
    assert (one["kl"], one["kl_high"]) == pytest.approx((4, 5))
    assert 2 <= one["kl_low"] < 3  # the first seed's prompts differ, the second's do not
    assert one["reward"] == pytest.approx(62.9)
    assert 62 - 2.4 <= one["reward_low"] < 62
    assert pick(marks, variant="feedback")["seeds"].tolist() == [1] * 4
    assert pick(marks, variant="plain")["seeds"].tolist() == [2] * 4
    figure = overoptimisation.draw_overoptimisation(marks, "")
    assert [axes.get_title() for axes in figure.axes] == [
        "by the reward model",
        "by the gold scorer",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "feedback"]


def test_overoptimisation_by_what_selection_maximised(runs):
    rewards, *rest = runs("a")
    own = rewards.assign(selector_scalar_reward=np.where(rewards["method"] == "dpa", 70.0, np.nan))
    marks = overoptimisation.overoptimisation_marks(
        {"plain": [runs("b")], "own": [overoptimisation.MeasuredRun(own, *rest)]}, OBJECTIVES
    )
    maximised = pick(marks, by="selector")
    columns = ["variant", "iteration", "kl", "reward"]
    assert maximised[columns].to_numpy().tolist() == [["own", 1, 3, 70]]
    figure = overoptimisation.draw_overoptimisation(marks, "")
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"plain", "own"}
    # What selects is another model in each iteration, and its rise alone says nothing.
    caption = " ".join(overoptimisation.overoptimisation_caption(marks, "x").split())
    assert "by how much it lies above a scorer that never selects. “By the reward model”" in caption
    assert "exploits" not in caption
    plain = overoptimisation.overoptimisation_caption(marks[marks["variant"] == "plain"], "x")
    assert "the policy exploits the reward model. Bars" in plain


def test_overoptimisation_needs_what_was_measured(runs, tmp_path):
    runs("a")
    (tmp_path / "a/evaluation/divergence/dpa-1.parquet").unlink()
    with pytest.raises(InputError, match=r"dpa-1\.parquet: .*; rerun measure_divergence"):
        overoptimisation.read_measured_run(tmp_path / "a", OBJECTIVES)


# --- Responses -------------------------------------------------------------------------------


def scored(prompt, index, direction, response, rewards, tokens, sample=0):
    return ScoredSample(
        prompt_id=prompt, direction_index=index, direction=direction, sample_index=sample, seed=1,
        response=response, finish_reason="stop", prompt_tokens=1, response_tokens=tokens,
        attributes={}, rewards=rewards,
    )  # fmt: skip


@pytest.fixture
def evaluation(tmp_path):
    """Scored responses of DPA and DPO to two prompts; texts are what models must never break."""
    write_jsonl(
        tmp_path / "validation.jsonl",
        [
            Prompt(prompt_id=i, prompt=f"Prompt {i} costs $5 & <b>more</b>?", source="t")
            for i in "ba"
        ]
        + [Prompt(prompt_id="A", prompt="Of the harder split", source="t", unseen=True)],
    )
    write_jsonl(
        tmp_path / "dpa-1.jsonl",
        [
            scored(p, i, list(v), f"{p}{i} $x_1$ <script> {'long ' * 40 * (1 - i)}",
                   [80.0 - 10 * i, 40.0 - 20 * i], 40 - 10 * i + (p == "b"), sample)
            for p in "ba" for i, v in enumerate(DIRECTIONS) for sample in (0, 1)
        ],
    )  # fmt: skip
    unseen = msgspec.structs.replace(scored("A", -1, None, "", [0.0, 0.0], 99), unseen=True)
    answers = [scored(p, -1, None, "", [60.0, 50.0], 30) for p in "ab"]
    write_jsonl(tmp_path / "dpo.jsonl", [*answers, unseen])
    return tmp_path


def read(evaluation, positions):
    prompts = samples.choose_prompts(evaluation / "validation.jsonl", positions)
    ids = [prompt.prompt_id for prompt in prompts]
    names = ("dpo.jsonl", "dpa-1.jsonl")
    return prompts, [samples.read_responses(evaluation / name, ids) for name in names]


def test_samples_by_hand(evaluation):
    prompts, policies = read(evaluation, [1, 0])
    assert [prompt.prompt_id for prompt in prompts] == ["b", "a"]
    rows = samples.sample_rows(prompts, policies, OBJECTIVES)
    assert rows[["prompt_id", "method", "direction_index", "tokens"]].to_numpy().tolist() == [
        ["b", "dpa", 0, 41], ["b", "dpa", 1, 31], ["b", "dpo", -1, 30],
        ["a", "dpa", 0, 40], ["a", "dpa", 1, 30], ["a", "dpo", -1, 30],
    ]  # fmt: skip
    assert rows["asked"].tolist()[:3] == [
        "helpfulness*100 + verbosity*0", "helpfulness*80 + verbosity*-60", ""
    ]  # fmt: skip
    assert rows["vr"].tolist()[:2] == pytest.approx([80, 0.8 * 70 - 0.6 * 20])
    first = samples.figure1_rows(rows)
    assert set(first["prompt_id"]) == {"b"}
    table = samples.figure1_table(first, OBJECTIVES)
    assert table.rows[2][:2] == ["DPO", "–"]
    assert table.rows[2][-1] == "–"
    with pytest.raises(InputError, match="position 2"):
        samples.choose_prompts(evaluation / "validation.jsonl", [2])


def test_independent_scorers_stand_beside(evaluation, tmp_path):
    prompts = samples.choose_prompts(evaluation / "validation.jsonl", [0])
    judged = tmp_path / "judge" / "dpa-1.jsonl"
    judged.parent.mkdir()
    read_back = read_jsonl(evaluation / "dpa-1.jsonl", ScoredSample)
    write_jsonl(judged, [msgspec.structs.replace(s, rewards=[9.0, 7.0]) for s in read_back])
    gold = samples.golden_rewards(evaluation / "validation.jsonl", lambda p, r: [len(p), 3])
    found = samples.read_responses(evaluation / "dpa-1.jsonl", ["a"], judged, gold)
    rows = samples.sample_rows(prompts, [found], OBJECTIVES)
    assert rows[["r_helpfulness", "judge_helpfulness", "gold_verbosity"]].to_numpy().tolist() == [
        [80, 9, 3], [70, 9, 3]
    ]  # fmt: skip
    assert rows["judge_vr"].tolist() == pytest.approx([9, 0.8 * 9 - 0.6 * 7])
    assert samples.scorers_of(rows) == ["r", "judge", "gold"]
    text = samples.rewards_text(rows.to_dict("records")[0], OBJECTIVES, ["r", "judge"])
    assert text == "helpfulness 80, verbosity 40, v·r 80 · judge: helpfulness 9, verbosity 7, v·r 9"
    table = samples.figure1_table(rows, OBJECTIVES)
    assert table.header[-3:] == ["helpfulness (gold)", "verbosity (gold)", "v·r (gold)"]
    marks = samples.reward_length_marks([found], OBJECTIVES)
    assert set(pick(marks, by="judge", objective="verbosity")["reward"]) == {7}
    assert len(samples.draw_reward_length(marks, OBJECTIVES, "t").axes) == 3 * 2
    assert "reward model's and judge's and gold scorer's" in " ".join(
        samples.figure1_caption(rows, "e").split()
    )
    # Another policy's scores are not taken for these samples'.
    write_jsonl(judged, read_back[:-1])
    with pytest.raises(InputError, match=r"of other samples than .*; rerun score_evaluation"):
        samples.read_responses(evaluation / "dpa-1.jsonl", [], judged)


def test_lengths_by_hand(evaluation):
    _, policies = read(evaluation, [0])
    marks = samples.length_marks(policies, OBJECTIVES)
    dpa = pick(marks, method="dpa").set_index("direction_index")
    # Two responses each of 40 and 41 tokens, then of 30 and 31.
    assert dpa.loc[[0, 1, -1], "mean"].tolist() == [40.5, 30.5, 35.5]
    assert dpa.loc[[0, 1, -1], "n"].tolist() == [4, 4, 8]
    assert dpa.loc[-1, ["q25", "median", "q75"]].tolist() == [30.75, 35.5, 40.25]
    assert len(pick(marks, method="dpo")) == 1


def test_lengths_of_few_directions_beside_many_methods():
    """The angles' axis keeps its label, and half a degree is not rounded away."""
    boxes = {"n": 9, "mean": 20.0, "p5": 5, "q25": 10, "median": 20, "q75": 30, "p95": 40}
    angles = np.radians([0, -22.5, -45])
    rows = [
        {"method": "dpa", "iteration": 2, "direction_index": i, "v_helpfulness": np.cos(a),
         "v_verbosity": np.sin(a), **boxes} for i, a in enumerate(angles)
    ] + [
        {"method": method, "iteration": 2, "direction_index": -1, "v_helpfulness": None,
         "v_verbosity": None, **boxes} for method in METHODS
    ]  # fmt: skip
    with drawn_in(STYLE):
        figure = samples.draw_lengths(pd.DataFrame(rows), OBJECTIVES, "")
        figure.draw_without_rendering()
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["0°", "−22.5°", "−45°"]
    label = left.xaxis.label.get_window_extent()
    assert label.x0 > 0
    assert label.x1 < right.get_window_extent().x0


def test_the_cards_of_figure1_hold_their_texts(evaluation, tmp_path):
    """Wide letters, and the numbers of three scorers."""
    judged = tmp_path / "judge" / "dpa-1.jsonl"
    judged.parent.mkdir()
    wide = [
        msgspec.structs.replace(sample, response="MWMWMWM WMWMWMW " * 12)
        for sample in read_jsonl(evaluation / "dpa-1.jsonl", ScoredSample)
    ]
    for path in (evaluation / "dpa-1.jsonl", judged):
        write_jsonl(path, wide)
    prompts = samples.choose_prompts(evaluation / "validation.jsonl", [0])
    gold = samples.golden_rewards(evaluation / "validation.jsonl", lambda p, r: [100, 100])
    found = samples.read_responses(evaluation / "dpa-1.jsonl", ["a"], judged, gold)
    rows = samples.figure1_rows(samples.sample_rows(prompts, [found], OBJECTIVES))
    with drawn_in(STYLE):
        figure = samples.draw_figure1(rows, OBJECTIVES, "")
        figure.draw_without_rendering()
    page = figure.axes[0]
    right = page.transData.transform((page_width() - 0.12, 0))[0]
    assert max(text.get_window_extent().x1 for text in page.texts) < right
    lines = [text.get_text() for text in page.texts]
    # Broken between scorers only.
    numbers = [line for line in lines if "v·r" in line]
    assert [line.split(":")[0] for line in numbers[:2]] == ["40 tokens · rewards", "judge"]


def test_reward_by_length(evaluation):
    _, policies = read(evaluation, [0])
    marks = samples.reward_length_marks(policies, OBJECTIVES)
    dpa = pick(marks, method="dpa", objective="helpfulness")
    assert pick(dpa, mark="dot")["reward"].sum() == 4 * 80 + 4 * 70
    curve = pick(dpa, mark="curve")
    assert np.average(curve["reward"], weights=curve["n"]) == pytest.approx(75)
    assert curve["tokens"].is_monotonic_increasing
    assert curve["tokens"].is_unique  # responses of one length are in one part
    # 30, 31 | 40, 41 tokens against 70, 70 | 80, 80: covariance 25, deviations sqrt(25.25) and 5.
    assert dpa["correlation"].iloc[0] == pytest.approx(25 / (5 * 25.25**0.5))
    # All of DPO's responses have the same reward.
    assert pick(marks, method="dpo")["correlation"].isna().all()


# --- Reward model, costs, rule graph ---------------------------------------------------------


def make_predictions():
    pairs = {
        "a-b": [
            (np.array([10.0, 30.0]), np.array([20.0, 40.0])),
            (np.array([50.0]), np.array([40.0])),
        ],
        "unrated": [],
        "many": [(np.linspace(0, 90, 100), np.linspace(0, 100, 100))],
    }  # fmt: skip
    return pd.DataFrame(prediction_rows(pairs))


def test_reward_model_marks_by_hand():
    predictions = make_predictions()
    assert predictions[["attribute", "prompt", "label", "predicted"]].iloc[2].tolist() == [
        "a-b", 1, 40, 50,
    ]  # fmt: skip
    marks = reward_model.reward_model_marks(predictions)
    few = pick(marks, attribute="a-b")
    assert few[["label", "n", "median", "mean"]].to_numpy().tolist() == [
        [20, 1, 10, 10], [40, 2, 40, 40],
    ]  # fmt: skip
    # A hundred labels are cut into tenths.
    assert pick(marks, attribute="many")["n"].tolist() == [10] * 10


def test_an_attribute_that_is_always_the_same_is_named():
    labels = np.linspace(0, 100, 20)
    pairs = {"dead": [(np.full(20, 41.5), labels)], "alive": [(labels / 2, labels)],
             "few": [(np.full(3, 41.5), labels[:3])]}  # fmt: skip
    marks = reward_model.reward_model_marks(pd.DataFrame(prediction_rows(pairs)))
    assert reward_model.constant_attributes(marks) == ["dead"]
    caption = reward_model.reward_model_caption(make_quality(), marks, "x")
    assert "predicts the same dead for every held-out response" in caption
    alive = pick(marks, attribute="alive")
    assert "the same" not in reward_model.reward_model_caption(make_quality(), alive, "x").split(
        "fully.")[1]  # fmt: skip
    figure = reward_model.draw_reward_model(
        marks, make_quality().assign(attribute=["dead", "alive"]), "t"
    )
    said = ["CONSTANT" in text.get_text() for axes in figure.axes[:2] for text in axes.texts]
    assert said == [True, False]


def make_quality():
    metrics = pd.DataFrame(
        {"attribute": ["a-b", "unrated", "many"], "n": [3, 0, 100], "pearson": [0.6, None, 1],
         "spearman": [0.5, None, 1], "rmse": [10, None, 5]}
    )  # fmt: skip
    ranking = pd.DataFrame(
        {"attribute": ["a-b", "unrated", "many"], "prompts": [1, 0, 1],
         "spearman_within_prompt": [1, None, 1], "pairwise_accuracy": [1, None, 1]}
    )  # fmt: skip
    return reward_model.quality(metrics, ranking)


def test_attributes_without_labels_are_left_out():
    table = make_quality()
    assert table["attribute"].tolist() == ["a-b", "many"]
    assert reward_model.quality_table(table).rows[0] == [
        "a-b", "3", "0.600", "0.500", "10.0", "1", "1.000", "1.000",
    ]  # fmt: skip
    assert reward_model.quality_table(table, " Whose.").note.endswith("ties half. Whose.")
    marks = reward_model.reward_model_marks(make_predictions())
    assert reward_model.reward_model_caption(table, marks, "x", " Whose.").endswith("fully. Whose.")


@pytest.fixture
def run(tmp_path):
    """Benchmark files of a run, and what shows it."""
    header = "s\th:m:s\tmax_rss\tcpu_time\n"
    for name, row in {
        "train_sft": "10\t0:00:10\t900\t8",
        "sample_responses/dpa/iter1-0": "3\t-\t100\t2",
        "sample_responses/dpa/iter1-1": "4\t-\t300\t2",
        "sample_responses/rsf/100_0/iter2-0": "5\t-\t200\tNA",
        "annotate_responses/1": "1\t-\tNA\t1",
        "plot_samples": "9\t-\t1\t9",
    }.items():
        path = tmp_path / f"run/benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + row + "\n")
    return tmp_path / "run"


def test_job_costs_by_hand(run):
    found = {(job.rule, job.part): job[2:] for job in job_costs(run)}
    assert set(found) == {
        ("train_sft", ""), ("sample_responses", "dpa/iter1"),
        ("sample_responses", "rsf/100_0/iter2"), ("annotate_responses", ""),
    }  # fmt: skip
    assert found["sample_responses", "dpa/iter1"] == (2, 7, 4, 300)
    table = costs.rule_costs([run, run]).set_index("rule")
    assert table.index.tolist() == ["train_sft", "sample_responses", "annotate_responses"]
    assert table.loc["sample_responses", ["jobs", "seconds", "max_rss_mb"]].tolist() == [3, 12, 300]
    assert table["work"].tolist() == ["training", "sampling", "scoring"]
    (run / "benchmarks/train_sft.tsv").write_text("s\nx\n")
    with pytest.raises(InputError, match=r"train_sft\.tsv"):
        job_costs(run)


# --- Training curves -------------------------------------------------------------------------

TRAINED = ["base_model", "sft/policy", "dpa/iter1/policy", "dpa/iter2/policy", "dpo/policy",
           "reward_model/model", "reward_model/member1/model"]  # fmt: skip


def make_trained_run(folder, scale=1.0):
    """A run whose models have curves of two points, and a policy gradient of three steps."""
    for number, name in enumerate(TRAINED):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        curve = [[50, scale * (number + 1)], [90, scale * number]]
        write_sidecar(folder / name, [], RowCounts.all_kept(1), loss_curve=curve)
    (folder / "ppo/100_0").mkdir(parents=True)
    history = "step,reward,kl\n1,40,0\n2,50,1\n3,60,2\n"
    (folder / "ppo/100_0/history.csv").write_text(history)
    return folder


def test_every_training_has_its_curve(tmp_path):
    run = make_trained_run(tmp_path / "one")
    marks = training_curves.training_marks([run], TRAINED, ["ppo/100_0/history.csv"])
    dpa = pick(marks, model="dpa/iter2/policy")
    assert dpa[["step", "value"]].to_numpy().tolist() == [[50, 4], [90, 3]]
    assert (dpa["iteration"] == 2).all()
    assert pick(marks, measure="reward")["value"].tolist() == [40, 50, 60]
    figure = training_curves.draw_training_curves(marks, "")
    drawn = {
        axes.get_title(): [line.get_xydata().tolist() for line in axes.lines]
        for axes in figure.axes
    }
    assert list(drawn) == [
        "base model", "SFT", "DPA", "DPO", "reward model", "PPO (RLOO): reward v·r"
    ]  # fmt: skip
    assert drawn["DPA"] == [[[50, 3], [90, 2]], [[50, 4], [90, 3]]]
    assert len(drawn["reward model"]) == 2
    legends = [axes.get_legend() for axes in figure.axes]
    assert [text.get_text() for text in legends[2].get_texts()] == ["t=1", "t=2"]
    assert not any([*legends[:2], *legends[3:]])
    caption = training_curves.training_curves_caption(marks, "x")
    caption = " ".join(caption.split())
    assert "Of PPO (RLOO) it is the mean v·r of a step's samples" in caption
    assert "labels on 0–1 (reward model); preference pairs' (DPO); cross-entropy" in caption
    assert caption.endswith("(base model, SFT, DPA). A line is one model.")


def test_seeds_are_lines_and_a_run_without_policies_is_one_panel(tmp_path):
    runs = [make_trained_run(tmp_path / f"seed{seed}", scale=1 + seed) for seed in (0, 1)]
    marks = training_curves.training_marks(runs, ["reward_model/model"], [])
    figure = training_curves.draw_training_curves(marks, "")
    [axes] = figure.axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[6, 5], [12, 10]]
    caption = " ".join(training_curves.training_curves_caption(marks, "x").split())
    assert caption.endswith(
        "within a kind only: equation (1) of the paper, with labels on 0–1 (reward model). "
        "A line is one seed."
    )
    with pytest.raises(InputError, match=r"dpo/policy\.meta\.json"):
        training_curves.training_marks([tmp_path], ["dpo/policy"], [])


def test_the_policy_gradients_lines_are_named_for_readers():
    history = pd.DataFrame({c: [1.0, 2.0] for c in ("step", *policy_gradient.HISTORY_PANELS)})
    marks = policy_gradient.policy_gradient_marks(
        {"seed0/ppo/100_0": history, "seed0/ppo/0_-100": history, "seed0/online_dpo": history}
    )
    figure = policy_gradient.draw_policy_gradient(marks, "")
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == [
        "seed0, PPO (RLOO), (1.00, 0.00)", "seed0, PPO (RLOO), (0.00, −1.00)", "seed0, Online DPO"
    ]  # fmt: skip
    caption = policy_gradient.policy_gradient_caption(marks, "x")
    assert "(its weights in brackets), and while online DPO is trained" in caption
    alone = policy_gradient.policy_gradient_marks({"online_dpo": history})
    assert "PPO" not in policy_gradient.policy_gradient_caption(alone, "x")


# --- Files -----------------------------------------------------------------------------------


def every_figure(evaluation, run):
    """Each figure of the package with its marks, from small data."""
    prompts, policies = read(evaluation, [0])
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    yield "figure4", fronts.draw_figure4(marks, OBJECTIVES, "t", published=True), marks
    rows = samples.figure1_rows(samples.sample_rows(prompts, policies, OBJECTIVES))
    yield "figure1", samples.draw_figure1(rows, OBJECTIVES, "t"), rows
    marks = samples.length_marks(policies, OBJECTIVES)
    yield "response_length", samples.draw_lengths(marks, OBJECTIVES, "t"), marks
    marks = samples.reward_length_marks(policies, OBJECTIVES)
    yield "reward_against_length", samples.draw_reward_length(marks, OBJECTIVES, "t"), marks
    marks = reward_model.reward_model_marks(make_predictions())
    yield "reward_model", reward_model.draw_reward_model(marks, make_quality(), "t"), marks
    stages = pd.DataFrame({"stage": ["sft"], "tokens_sampled": [0.0], "tokens_trained": [None]})
    marks = costs.cost_marks(costs.rule_costs([run]), stages)
    yield "costs", costs.draw_costs(marks, "t"), marks
    history = pd.DataFrame(
        {column: [1.0, 2.0] for column in ("step", *policy_gradient.HISTORY_PANELS)}
    )
    marks = policy_gradient.policy_gradient_marks({"100_0": history})
    yield "policy_gradient", policy_gradient.draw_policy_gradient(marks, "t"), marks


@pytest.mark.slow
def test_all_figures_are_byte_stable_and_complete(evaluation, run, tmp_path):
    for folder in ("one", "two"):
        for name, figure, marks in every_figure(evaluation, run):
            write_figure(tmp_path / folder, name, figure, marks, "a\ncaption", [run], STYLE)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    for name in ("figure1", "figure4", "costs", "reward_model", "policy_gradient"):
        assert {f"{name}.{kind}" for kind in (*STYLE.formats, "csv", "md")} < names
    for path in (tmp_path / "one").iterdir():
        if path.suffix == ".json":
            continue  # a sidecar, which names the folder
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert (tmp_path / "one/figure4.md").read_text() == "a caption\n"
    figure1 = (tmp_path / "one/figure1.svg").read_text()
    assert "$x_1$ &lt;script&gt;" in figure1
    assert re.search(r"\(\d+ more characters\)", figure1) is None  # fits in the card


# --- Style -----------------------------------------------------------------------------------


def test_a_width_formats_and_settings_of_ones_own(tmp_path):
    style = STYLE.model_copy(
        update={"width": 3.4, "formats": ["png"], "rcparams": {"font.size": 5}}
    )
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    with drawn_in(style):
        assert page_width() == 3.4
        figure = fronts.draw_figure4(marks, OBJECTIVES, style.title_of("Figure 4"))
        assert figure.get_figwidth() == 3.4
        assert figure.axes[0].xaxis.label.get_fontsize() == 5
        assert figure.get_suptitle() == ""
        write_figure(tmp_path, "figure4", figure, marks, "c", [], style)
    drawn = {path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"}
    assert drawn == {".png", ".csv", ".md"}
    assert STYLE.model_copy(update={"title": True}).title_of("Figure 4") == "Figure 4"


@pytest.mark.parametrize("settings", [{"font.siz": 5}, {"font.size": "wide"}])
def test_a_setting_that_matplotlib_does_not_take_is_named(settings):
    style = STYLE.model_copy(update={"rcparams": settings})
    with (
        pytest.raises(InputError, match=r"figures.style.rcparams: .*font\.siz"),
        drawn_in(style),
    ):
        pass


def test_figure4s_caption_says_what_the_labels_are():
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    said = "The numbers at the ends of DPA's curve are its directions' weights (helpfulness, verbo"
    assert said in fronts.figure4_caption(marks, "x", OBJECTIVES, 4, "none")
    unlabelled = marks.assign(v_helpfulness=np.nan, v_verbosity=np.nan)
    assert said not in fronts.figure4_caption(unlabelled, "x", OBJECTIVES, 4, "none")


def test_figure4s_panels_have_the_same_limits():
    marks = fronts.figure4_marks([make_rewards(shift=9)], OBJECTIVES, REFERENCE, PUBLISHED)
    reward_model_panel, gold_panel = fronts.draw_figure4(marks, OBJECTIVES, "").axes[:2]
    assert reward_model_panel.get_xlim() == gold_panel.get_xlim()
    assert reward_model_panel.get_ylim() == gold_panel.get_ylim()
    said = {text.get_text() for text in gold_panel.texts}
    assert said == {"(1.00, 0.00)", "(0.80, −0.60)"}


def test_the_labels_of_both_ends_are_on_two_sides():
    """Though both ends are to the right of the curve's middle."""
    points = pd.DataFrame({"x": [50.0, 0.0, 49.0], "y": [10.0, 10.0, 10.0]})
    figure, axes = plt.subplots()
    axes.set(xlim=(-50, 100), ylim=(0, 20))
    for place in (0, -1):
        label_end(axes, points, place, "(0.71, −0.71)")
    figure.draw_without_rendering()
    first, last = (text.get_window_extent() for text in axes.texts)
    assert last.x1 < first.x0


@pytest.mark.parametrize("place", [0, -1])
def test_the_label_of_a_curves_end_stays_off_the_axes(place):
    """Of an end that lies at an edge of the panel."""
    points = pd.DataFrame({"x": [0.0, 100.0], "y": [10.0, 20.0]})
    figure, axes = plt.subplots(layout="constrained")
    axes.set(xlim=(-1, 101), ylim=(0, 30))
    label_end(axes, points, place, "(0.71, −0.71)")
    keep_inside(figure)
    figure.draw_without_rendering()
    [text] = axes.texts
    label, frame = text.get_window_extent(), axes.get_window_extent()
    assert frame.x0 < label.x0 < label.x1 < frame.x1
    _, point = axes.transData.transform((0, points["y"].iloc[place]))
    assert label.y0 > point  # above its point, which it would hide
