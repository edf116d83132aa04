"""Figure 5 and table 2 with numbers worked by hand, the paper's beside ours."""

import numpy as np
import pandas as pd
import pytest

from dpa.errors import InputError
from dpa.report.figures import win_rates
from dpa.report.figures.style import write_figure
from dpa.report.paper import compare_figure5
from dpa.report.table2 import accuracy_tables, read_win_rates, table2, table2_lead, table2_tables
from dpa.runtime.run_environment import CLONE
from tests.support.figure_data import STYLE

OBJECTIVES = ["helpfulness", "verbosity"]
PUBLISHED5 = pd.read_csv(CLONE / "results/published/figure5_alpacaeval2.csv")
PUBLISHED2 = pd.read_csv(CLONE / "results/published/table2_rewardbench_gemma2b.csv")
REASON = "no instruction difficulties"


def make_results(seed=0, shift=0.0, controlled=False):
    rows = [
        {"method": "dpa", "iteration": t, "direction_index": i, "v_helpfulness": v[0],
         "v_verbosity": v[1], "win_rate": 40.0 + 10 * t - 5 * i + shift, "avg_length": 200 - 50 * i}
        for t in (1, 2) for i, v in enumerate([(1.0, 0.0), (0.8, -0.6)])
    ]  # fmt: skip
    rows.append({"method": "sft", "iteration": None, "direction_index": -1, "win_rate": 20.0,
                 "avg_length": 150})  # fmt: skip
    return pd.DataFrame(
        {
            **row, "seed": seed, "standard_error": 2.0, "n_total": 10, "judge": "gold",
            "length_controlled_win_rate": 33.0 if controlled else None,
            "length_controlled_reason": None if controlled else REASON,
        }
        for row in rows
    ).astype({"iteration": "Int64"})  # fmt: skip


def test_figure5_by_hand(tmp_path):
    table = make_results()
    marks = win_rates.figure5_marks(table, PUBLISHED5, OBJECTIVES)
    ours = marks[marks["source"] == "ours"]
    assert set(ours["panel"]) == {"win_rate"}
    last = ours[ours["iteration"] == 2]
    assert last[["x", "y", "se"]].to_numpy().tolist() == [[200, 60, 2], [150, 55, 2]]
    paper = marks[marks["source"] == "paper"]
    assert len(paper) == len(PUBLISHED5)
    assert paper.loc[paper["method"] == "dpa", "iteration"].unique().tolist() == [4]
    assert win_rates.missing_reason(table) == REASON
    caption = win_rates.figure5_caption(table, "x", OBJECTIVES, world=True)
    assert REASON in caption
    assert "the ends of DPA's curve are its directions' weights (helpfulness, verbosity)" in caption
    figure = win_rates.draw_figure5(marks, OBJECTIVES, "t")
    write_figure(tmp_path, "figure5", figure, marks, "c", [], STYLE)
    svg = (tmp_path / "figure5.svg").read_text()
    assert len(figure.axes) == 1  # no empty half; the caption has the reason
    assert "DPA t=2" in svg
    assert "DPA t=1" not in svg
    assert "published" not in svg
    figure = win_rates.draw_figure5(marks, OBJECTIVES, "t", True)
    write_figure(tmp_path / "again", "figure5", figure, marks, "c", [], STYLE)
    assert "published" in (tmp_path / "again/figure5.svg").read_text()


def test_length_controlled_and_seeds():
    both = pd.concat([make_results(0, 0, True), make_results(1, 4, True)])
    marks = win_rates.figure5_marks(both, PUBLISHED5, OBJECTIVES)
    last = marks[(marks["iteration"] == 2) & (marks["source"] == "ours")]
    assert last["panel"].value_counts().to_dict() == {"win_rate": 2, "length_controlled": 2}
    # 60 and 64: mean 62, standard error of the mean 2.
    assert last.iloc[0][["y", "se", "seeds"]].tolist() == [62, 2, 2]
    assert win_rates.missing_reason(both) == ""
    rows = {row[0]: row[1:] for row in compare_figure5(marks[marks["panel"] == "win_rate"]).rows}
    assert rows["SFT"] == ["4.7 % at 1,030", "20.0 % at 150"]


def test_broken_results_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        win_rates.read_results(tmp_path / "none.csv")
    (tmp_path / "r.csv").write_text("method,iteration\n")
    with pytest.raises(InputError, match="no column"):
        win_rates.read_results(tmp_path / "r.csv")
    with pytest.raises(InputError, match="no column"):
        read_win_rates(tmp_path / "r.csv")


def make_rates(seed=0, shift=0.0, third=False):
    rows = []
    for i, v in enumerate([(1.0, 0.0, 0.0), (0.71, 0.0, 0.71)] if third else [(1.0, 0.0)]):
        names = [*OBJECTIVES, "harmlessness"][: len(v)]
        for level, name in [("subset", "hep-cpp"), ("section", "Chat Hard"), ("section", "Safety"),
                            ("average_macro", "Safety"), ("average_macro", "all"),
                            ("average_weighted", "all")]:  # fmt: skip
            rows.append(
                {"method": "dpa", "iteration": 3, "seed": seed, "direction_index": i,
                 **{f"v_{n}": x for n, x in zip(names, v, strict=True)}, "reference": "dpo",
                 "level": level, "name": name, "n": 10, "wins": 6, "ties": 0,
                 "win_rate": 60.0 + i + shift, "standard_error": 15.0}
            )  # fmt: skip
    # An average over a section is none over all.
    table = pd.DataFrame(rows).astype({"iteration": "Int64"})
    of_section = (table["level"] == "average_macro") & (table["name"] == "Safety")
    return table.assign(win_rate=table["win_rate"].where(~of_section, 1.0))


def test_the_papers_row_is_below_ours_of_the_same_direction():
    names = [*OBJECTIVES, "harmlessness"]
    table = table2(make_rates(third=True), PUBLISHED2, names)
    assert (table["source"] == "paper").sum() == 7 * 4
    [page] = table2_tables(table, names)
    assert page.header[2:] == [
        "Chat Hard", "Safety", "Chat", "Reasoning", "mean over subsets", "mean over prompts",
    ]  # fmt: skip
    first, second, *_, ours, last = page.rows
    assert first[:4] == ["DPA t=3", "(1.00, 0.00, 0.00)", "60.0 ± 15.0", "60.0 ± 15.0"]
    assert second[:4] == ["paper: DPA t=3", "(1.00, 0.00, 0.00)", "48.2", "66.7"]
    assert ours[:2] == ["DPA t=3", "(0.71, 0.00, 0.71)"]
    assert last[:4] == ["paper: DPA t=3", "(0.71, 0.00, 0.71)", "58.1", "63.9"]
    assert last[-1] == "–"
    assert "10 prompts of RewardBench; the reference is DPO" in table2_lead(
        make_rates(third=True), "x", world=False
    )


def test_other_objectives_have_a_table_of_their_own_beside_the_papers():
    both = pd.concat([make_rates(0), make_rates(1, 4.0)])
    table = table2(both, PUBLISHED2, OBJECTIVES)
    ours, paper = table2_tables(table, OBJECTIVES)
    assert ours.rows == [["DPA t=3", "(1.00, 0.00)", *["62.0 ± 2.0"] * 4]]
    assert len(paper.rows) == 7
    assert paper.rows[0][:2] == ["paper: DPA t=3", "(1.00, 0.00, 0.00)"]


def test_accuracies():
    rows = [("subset", "x", 60.0), ("section", "Chat", 70.0), ("average_macro", "all", 65.0)]
    accuracy = pd.DataFrame(
        {"objective": "helpfulness", "level": level, "name": name, "n": 4, "accuracy": value,
         "standard_error": np.sqrt(value)}
        for level, name, value in rows
    )  # fmt: skip
    [table] = accuracy_tables(accuracy)
    assert table.header == ["objective", "Chat", "mean over subsets"]
    assert table.rows == [["helpfulness", "70.0 ± 8.4", "65.0 ± 8.1"]]
    assert accuracy_tables(accuracy, " Whose.")[0].note == f"{table.note} Whose."
    # Two seeds of 70 and 74: mean 72, standard error of the mean 2.
    [table] = accuracy_tables(
        pd.concat([accuracy, accuracy.assign(accuracy=accuracy.accuracy + 4)])
    )
    assert table.rows == [["helpfulness", "72.0 ± 2.0", "67.0 ± 2.0"]]
