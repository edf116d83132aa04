"""The report: what is on the page, what is escaped, and that a real browser shows it."""

import base64
import hashlib
import io
import json
import re
from html import unescape
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from dpa.artefacts.cells import plain_text
from dpa.artefacts.outputs import write_text
from dpa.artefacts.row_counts import RowCounts
from dpa.artefacts.sidecars import write_sidecar
from dpa.config.load import load_config
from dpa.errors import InputError
from dpa.evaluation.validation import SCORER_NAMES
from dpa.report.figures import fronts, samples
from dpa.report.figures.style import save_figure, write_figure
from dpa.report.page import (
    ASSUMPTIONS,
    MARKDOWN,
    assumptions,
    changes,
    dead_outputs,
    positions,
    read_artefacts,
    render,
    tables_html,
)
from dpa.report.paper import Fronts, compare_figure4
from dpa.report.scorers import describe_scorers, first_of, no_judge
from dpa.report.summary import agreement, came_out, doubted, summarise
from dpa.report.tables import (
    Table,
    csv_text,
    latex,
    latex_text,
    markdown,
    markdown_text,
)
from dpa.runtime.log import visible
from dpa.runtime.run_environment import CLONE
from tests.support.browser import load
from tests.support.figure_data import OBJECTIVES, PUBLISHED, REFERENCE, STYLE, make_rewards

DEVIATIONS = CLONE / "docs/deviations.md"
EVIL = "<script>alert(1)</script> **bold** | $x$ & `code` </table>"


def make_sample_rows(text: str) -> pd.DataFrame:
    """Rows of samples.csv, a text of which is given."""
    return pd.DataFrame(
        {
            "prompt_number": 1, "prompt_id": "p", "prompt": f"Prompt {text}",
            "method": ["dpa", "dpa", "dpo"], "iteration": [1, 1, None],
            "direction_index": [0, 1, -1], "asked": ["helpfulness*100", "helpfulness*80", ""],
            "v_helpfulness": [1, 0.8, None], "v_verbosity": [0, -0.6, None],
            "response": [text, "Line one.\n\nLine two.", None], "finish_reason": "stop",
            "tokens": [9, 5, 0], "words": 1, "characters": 1, "r_helpfulness": 50.0,
            "r_verbosity": 20.0, "vr": [50.0, 28.0, None],
        }
    ).astype({"iteration": "Int64"})  # fmt: skip


def make_comparison(**changes) -> pd.DataFrame:
    """comparison.csv: DPA against DPO, the best of the others, and SFT."""
    rows = {
        "method": ["DPO", "SFT", "DPO", "SFT"], "measure": "mean_vr",
        "by": ["r", "r", "gold", "gold"],
        "seed": 0, "dpa": [55.0, 55.0, 50.0, 50.0], "baseline": [35.0, 6.0, 49.0, 5.0],
        "difference": [20.0, 49.0, 1.0, 45.0], "mean_difference": [20.0, 49.0, 1.0, 45.0],
        "mean_difference_low": [18.0, 47.0, -1.0, 43.0],
        "mean_difference_high": [22.0, 51.0, 3.0, 47.0],
    }  # fmt: skip
    return pd.DataFrame(rows | changes)


def make_validation() -> pd.DataFrame:
    """validation_rewards.csv: gold falls from t = 1 to t = 2, while the reward model's rises."""
    rows = {
        "method": ["dpa", "dpa", "dpa", "dpa", "sft"], "iteration": [0, 1, 2, 2, None],
        "direction_index": [0, 0, 0, 1, -1],
        "v_helpfulness": [None, 1.0, 1.0, 0.0, None], "v_verbosity": [None, 0.0, 0.0, -1.0, None],
        "r_helpfulness": [30.0, 50.0, 55.0, 9.0, 6.0], "r_verbosity": 20.0,
        "gold_helpfulness": [30.0, 52.0, 50.0, 9.0, 5.0], "gold_verbosity": 20.0,
        "outside": [False, False, False, True, False],
    }  # fmt: skip
    return pd.DataFrame(rows)


def make_model(folder, **details):
    """A folder with a sidecar."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_sidecar(folder, [], RowCounts.all_kept(1), **details)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small experiment's folder: two figures, two tables, samples, one artefact."""
    folder = tmp_path_factory.mktemp("results")
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    figure = fronts.draw_figure4(marks, OBJECTIVES, "Figure 4")
    caption = fronts.figure4_caption(marks, "quickstart", OBJECTIVES, 4, "ellipses")
    write_figure(folder / "figures", "figure4", figure, marks, caption, [], STYLE)
    rows = make_sample_rows(EVIL)
    drawn = samples.draw_figure1(rows.assign(response=rows["response"].fillna("")), OBJECTIVES, "t")
    caption = samples.figure1_caption(rows, "quickstart")
    write_figure(folder / "figures", "figure1", drawn, rows, caption, [], STYLE)
    write_text(folder / "tables/samples.csv", rows.to_csv(index=False))
    page = markdown("Table 1", "A lead.", [Table("Part", "A note.", ["a", "b"], [["1", EVIL]])])
    write_text(folder / "tables/table1.md", page)
    write_text(folder / "tables/figure1.md", page)
    write_text(folder / "tables/comparison.csv", csv_text(make_comparison()))
    write_text(folder / "evaluation/validation_rewards.csv", csv_text(make_validation()))
    make_model(folder / "reward_model/model", origins={"helpsteer": 8, "ultrafeedback": 1008})
    write_text(folder / "data/ratings.jsonl", "{}")
    write_sidecar(
        folder / "data/ratings.jsonl", counts={"read": 9, "kept": 7, "dropped": {"N/A": 2}}
    )
    return folder


@pytest.fixture(scope="module")
def page(results):
    config = load_config({"experiment": "quickstart"}).model_dump(mode="json", by_alias=True)
    return render(
        results, "quickstart", config, "0123456789abcdef", ["figure1", "figure4"],
        ["figure1", "table1"], DEVIATIONS,
    )  # fmt: skip


def test_the_page_has_what_it_promises(page):
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert headings[:4] == ["Figures", "Tables", "Side by side", "Against the published numbers"]
    assert {"Where the paper is silent", "Configuration", "Provenance"} <= set(headings)
    assert page.count("data:image/png;base64,") == 2
    assert "0123456789abcdef" in page
    assert "This is the quickstart" in page
    assert "Line one.\n\nLine two." in page
    # Rows read, kept and dropped of the one artefact.
    cells = [*zip(("read", "kept", "dropped, by reason"), ("9", "7", "2 N/A"), strict=True)]
    assert "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in cells) in page
    # What quickstart.yaml sets, and nothing that it leaves alone.
    changed = re.search(r"<pre><code>(.*?)</code></pre>", page, re.DOTALL)[1]
    assert "tokens_per_batch: 16384" in changed
    assert "replay_fraction" not in changed


def test_what_models_wrote_is_shown_and_never_run(page):
    # The dial's is the only script, and the only one that the page's policy lets run.
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<strong>bold</strong>" not in page
    assert page.count("<table") == page.count("</table>")


def test_nothing_is_loaded_from_elsewhere(page):
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    outside = [source for source in sources if not source.startswith(("#", "data:"))]
    assert all(re.fullmatch(r"(figures|tables)/\w+\.\w+", source) for source in outside)


def test_a_browser_shows_every_figure(page, results, tmp_path):
    path = results / "report.html"
    path.write_text(page, encoding="utf-8")
    for width in (1300, 420):
        seen = load(path, tmp_path, width)
        assert seen["errors"] == []
        assert seen["requests"] == []
        assert seen["broken"] == []
        assert seen["scripts"] == 1
        assert [(alt, shown) for alt, shown, _ in seen["images"]] == [
            ("Figure 1", True), ("Figure 4", True)
        ]  # fmt: skip
        assert all(shown > 250 for *_, shown in seen["images"])
        assert not seen["wide"], f"the page scrolls sideways at {width} pixels"


#: Turns the dial to its second direction; then the texts of the cards that are seen, and the label.
TURN = """(() => {
  const dial = document.getElementById("dial-direction");
  const seen = () => [...document.querySelectorAll(".card")].filter(c => c.offsetParent !== null)
    .map(c => c.querySelector(".text").textContent.slice(0, 9));
  const before = seen();
  dial.value = "1";
  dial.dispatchEvent(new Event("input", {bubbles: true}));
  const turned = seen();
  document.getElementById("dial-all").click();
  return [before, turned, seen(), dial.getAttribute("aria-valuetext"), dial.max];
})()"""


def test_the_dial_shows_the_answer_of_its_direction(page, results, tmp_path):
    path = results / "report.html"
    path.write_text(page, encoding="utf-8")
    before, turned, everything, asked, last = load(path, tmp_path, act=TURN)["acted"]
    # DPO's answer, which is empty, stays; it takes no direction.
    assert before == [EVIL[:9], ""]
    assert turned == ["Line one.", ""]
    assert everything == [EVIL[:9], "Line one.", ""]
    assert (asked, last) == ("helpfulness*80 (−37°)", "1")


def test_answers_turn_with_the_dial():
    assert [positions(place, 3, 3) for place in range(3)] == [[0], [1], [2]]
    assert positions(0, 1, 3) == [0, 1, 2]
    assert [positions(place, 2, 4) for place in range(2)] == [[0, 1], [2, 3]]


def test_no_table_scrolls(page):
    """On a phone a row is a list of cells, each with its column's name."""
    assert '<td data-label="b">' in page
    assert "overflow-x" not in page
    wide = f"| {' | '.join('abcdefghij')} |\n|{'---|' * 10}\n| {' | '.join('0123456789')} |\n"
    assert 'class="wide"' in tables_html(wide)
    assert '<td data-label="j">9</td>' in tables_html(wide)
    assert 'class="narrow"' in tables_html("| `a` | b |\n|---|---|\n| 1 | 2 |\n")


# --- Three sentences -------------------------------------------------------------------------


def test_the_summary_is_what_came_out(results):
    config = load_config({"experiment": "quickstart"}).model_dump(mode="json", by_alias=True)
    (_, run), (_, result), (_, doubt) = summarise(results, config, ["A warning."])
    assert run.startswith("Experiment quickstart, seed 0: 2 iterations of DPA for helpfulness and")
    assert "under 1 directions" in run
    assert "By the reward model DPA's mean v·r is 55.0, and that of DPO, the best" in result
    assert "35.0 (difference +20.0, 95 % interval +18.0 to +22.0); by the gold scorer" in result
    assert doubt.startswith("It is one seed, and")
    assert "by the gold scorer mean v·r is highest at t = 1 (52.0) and ends at 50.0, while" in doubt
    assert "the difference from DPO may be nothing" in doubt
    assert doubt.endswith("A warning.")


def test_the_summary_says_whose_reward_it_is(results):
    """With feedback the first reward model does not select in the iterations that fall."""

    def said(**overlay):
        config = load_config({"experiment": "quickstart", **overlay})
        return summarise(results, config.model_dump(mode="json", by_alias=True), [])

    exploited = "ends at 50.0, while the {} that selected saw it rise: it is being exploited"
    [_, (_, result), (_, doubt)] = said(reward_model={"members": 3})
    assert result.startswith("By the mean of the 3 reward models DPA's mean v·r is 55.0, and")
    assert exploited.format("mean of the 3 reward models") in doubt
    [_, _, (_, doubt)] = said()
    assert exploited.format("reward model") in doubt
    [_, (_, result), (_, doubt)] = said(feedback={"annotator": {"kind": "gold"}})
    assert result.startswith("By the first reward model DPA's mean v·r is 55.0, and that of DPO")
    assert "by the gold scorer mean v·r is highest at t = 1 (52.0) and ends at 50.0;" in doubt


def test_the_summary_does_not_assume_that_dpa_wins():
    lost = make_comparison(
        mean_difference=-5.0, mean_difference_low=-7.0, mean_difference_high=-3.0
    )
    assert "difference −5.0, 95 % interval −7.0 to −3.0" in next(came_out(lost, SCORER_NAMES))
    flat = {"r": pd.Series([1.0, 2.0], [1, 2]), "gold": pd.Series([1.0, 2.0], [1, 2])}
    assert list(doubted(lost, flat, {"seed": [0, 1]})) == [
        "by one scorer at least DPA is behind DPO and SFT, beyond the interval"
    ]
    seeds = pd.concat([make_comparison(), make_comparison(seed=1, difference=-1.0)])
    assert "95 % interval +18.0 to +22.0, ahead on 1 of 2 seeds)" in next(
        came_out(seeds, SCORER_NAMES)
    )


def test_the_summary_of_a_reward_model_alone():
    table = pd.DataFrame({"attribute": ["a", "b", "c"], "pearson": [0.9, 0.5, None]})
    assert "by 0.70 in the median (Pearson), least of all b, 0.50" in agreement(table)


def described(folder, **overlay):
    """Paragraphs on the scorers of the quickstart with an overlay."""
    config = load_config({"experiment": "quickstart", **overlay})
    return list(describe_scorers(folder, config.model_dump(mode="json", by_alias=True)))


def test_ratings_by_origin(results, page):
    text = "The reward model learnt 1,016 ratings (8 of helpsteer, 1,008 of ultrafeedback)."
    assert described(results)[0] == text
    assert f"<p>{text}</p>" in page
    assert "there is no learnt judge" in described(results)[1]


@pytest.mark.parametrize(
    ("pessimism", "said"),
    [
        ("none", "the mean of"),
        ("min", "the minimum of"),
        ({"penalty": 0.5}, "the mean less 0.5 standard deviations of"),
    ],
)
def test_members_and_what_selection_maximises(results, pessimism, said):
    given = {"reward_model": {"members": 3}, "dpa": {"pessimism": pessimism}}
    [models, _] = described(results, **given)
    assert models.startswith("3 reward models score, alike but for their seeds; each learnt")
    assert f"Selection maximises {said} their v·r" in models
    assert "RewardBench's accuracy are the first one's" in models


def test_feedback_by_iteration_and_seed(tmp_path):
    run = tmp_path / "seed1"
    make_model(run / "reward_model/model", origins={"mine": 100})
    for t in (1, 2):
        write_text(run / f"feedback/iter{t}/ratings.jsonl", "{}\n")
        write_sidecar(run / f"feedback/iter{t}/ratings.jsonl", rated=10 * t, asked=20)
        make_model(run / f"feedback/iter{t + 1}/reward_model/model",
                   origins={"mine": 100, "feedback-1": 10 * t})  # fmt: skip
    given = {"feedback": {"annotator": {"kind": "gold"}}, "dpa": {"iterations": 3}, "seed": [1, 2]}
    which, own, rated, _ = described(tmp_path, **given)
    assert which == "Numbers in this section are those of seed 1, the first of 2."
    assert own == "The reward model learnt 100 ratings, all of mine."
    assert "annotators: 10 responses of iteration 1 of 20 asked for, 20 responses of it" in rated
    assert "(110 for t = 2, 120 for t = 3)" in rated


def test_a_judge_beside_the_reward_model(tmp_path):
    make_model(tmp_path / "reward_model/model", origins={"a": 4})
    make_model(tmp_path / "judge/model", origins={"a": 1})
    table = pd.DataFrame({"pearson": [0.9, 0.8, 0.7, None], "attribute": list("abab"),
                          "scorer": ["reward_model"] * 2 + ["judge"] * 2})  # fmt: skip
    write_text(tmp_path / "tables/reward_model.csv", csv_text(table))
    [_, judge] = described(tmp_path, evaluation={"judge": {"share": 0.2}})
    assert judge.startswith("The judge never selects; it learnt 1 ratings, all of a, which no")
    assert "(Pearson, the median over them): the judge's by 0.70 and the reward model's" in judge
    assert "reward model's by 0.85." in judge
    # The summary of a reward model is not about the judge beside it.
    assert "by 0.85 in the median (Pearson), least of all b, 0.80" in agreement(table)


def test_no_independent_scorer_is_said(tmp_path):
    make_model(tmp_path / "reward_model/model", origins={"a": 4})
    config = load_config({"experiment": "quickstart"}).model_dump(mode="json", by_alias=True)
    config["evaluation"]["gold"] = None
    [_, found] = describe_scorers(tmp_path, config)
    assert found == no_judge(config)
    assert found.startswith("No independent scorer")
    assert "of the model that responses were selected by" in found
    config["feedback"]["annotator"] = {"kind": "gold"}
    assert "first reward model, which selected in DPA's first iteration and" in no_judge(config)


def test_of_several_models_it_is_said_whose_numbers_are_shown():
    assert first_of(1, 1) == ""
    assert first_of(3, 1) == " Of the 3 reward models these are the first's numbers."
    both = " Of the 3 reward models and the 5 seeds these are the first's numbers."
    assert first_of(3, 5) == both


def test_a_missing_figure_is_named(results):
    config = load_config({"experiment": "quickstart"}).model_dump(mode="json", by_alias=True)
    with pytest.raises(InputError, match="rerun the rule that draws figure5"):
        render(results, "x", config, "0", ["figure5"], [], DEVIATIONS)


def test_assumptions_are_those_of_the_deviations(tmp_path):
    config = load_config({"experiment": "quickstart"}).model_dump(mode="json", by_alias=True)
    rows = list(assumptions(DEVIATIONS, config))
    section = DEVIATIONS.read_text().partition(ASSUMPTIONS)[2].partition("\n## ")[0]
    assert len(rows) == section.count("\n| ") - 1  # without the header
    values = {str(key): value for *_, key, value in rows}
    assert values["<code>steerlm.curve_points</code>"] == "5"
    assert values["–"] == ""
    (tmp_path / "deviations.md").write_text("# No assumptions\n")
    with pytest.raises(InputError, match="no table under"):
        list(assumptions(tmp_path / "deviations.md", config))


def test_changes_by_hand():
    default = {"a": 1, "b": {"c": 2, "d": [3]}, "e": {"f": 1}}
    assert changes(default, default) == {}
    assert changes(default, {"a": 2, "b": {"c": 2, "d": [4]}, "e": None}) == {
        "a": 2, "b": {"d": [4]}, "e": None
    }  # fmt: skip


def test_a_broken_sidecar_is_named(tmp_path):
    (tmp_path / "model.meta.json").write_text("{")
    assert list(read_artefacts(tmp_path)) == []  # there is no model: verify names it
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match=r"model\.meta\.json"):
        list(read_artefacts(tmp_path))


# --- Against the paper -----------------------------------------------------------------------


def test_the_papers_claims_from_its_numbers():
    marks = fronts.figure4_marks([make_rewards()], OBJECTIVES, REFERENCE, PUBLISHED)
    paper = Fronts(marks[marks["source"] == "paper"])
    assert paper.last == 4
    # Its own numbers: v.r grows, and SFT and DPO lie below and to the right of the last front.
    claims = list(paper.claims().values())
    assert claims[:4] == [True, True, True, True]
    numbers, said = compare_figure4(marks)
    table = {row[0]: row[1:] for row in numbers.rows}
    # Ours at t=1: hypervolume 62; v.r 80 and 0.8 * 70 - 0.6 * 20.
    assert [table["DPA t=1"][1], table["DPA t=1"][3]] == ["62.0", "62.0"]
    assert table["DPA t=4"][1] == "–"
    ours = {row[0]: row[2] for row in said.rows}
    assert ours["DPA's last iteration dominates SFT"] == "yes"
    assert ours["DPA's last iteration dominates DPO"] == "–"
    assert ours["mean v·r grows with every iteration from t = 1 on"] == "–"


# --- Tables ----------------------------------------------------------------------------------


def test_the_best_of_a_column_is_bold():
    rows = [
        ["A", "−1.5 [−2, 0]", "1,200 ± 3", "–"],
        ["B", "2.0", "900", "1"],
        ["C", "2.00", "", "1"],
    ]
    table = Table("", "", ["m", "x", "y", "z"], rows, best={1: max, 2: min, 3: max})
    assert table.best_cells() == {(1, 1), (2, 1), (1, 2)}  # z: there is nothing to choose among
    assert "| B | **2.0** | **900** | 1 |" in markdown("H", "", [table])
    assert r"B & \textbf{2.0} & \textbf{900} & 1 \\" in latex("H", "", [table])


def test_cells_cannot_break_a_table():
    table = Table("", "", ["a_b", "c"], [[EVIL, "line\nbreak"]])
    lines = markdown("H", "", [table]).splitlines()
    assert lines[2] == r"| a\_b | c |"
    assert len(lines) == 5
    assert len(re.findall(r"(?<!\\)\|", lines[4])) == 3
    text = latex("H", "", [table])
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert r"a\_b & c \\" in text
    assert r"\$x\$ \& `code`" in text
    assert latex_text("−0.5 ± 1 · 50 %") == r"$-$0.5 $\pm$ 1 $\cdot$ 50 \%"
    assert json.loads(json.dumps(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "[click](javascript:alert(1))", "![x](http://evil.example/p.png)", "[a][b]",
        "a &lt;b&gt; c",
        "http://evil.example www.evil.example me@evil.example", "~~gone~~ $x$ `code` *a* _b_ **c**",
        "<img src=x onerror=alert(1)>", "# no heading", "> no quote", "1. none", "--- | ---",
        "\\[x](y)", "&#60;script&#62;", "a\x1b[2J\x07b", "[a\\](b)", "![<b>](", "|||",
    ],
)  # fmt: skip
def test_texts_are_no_markdown(text):
    """What is rendered has the text, and no element but the table's and the paragraph's."""
    page = markdown("H", "", [Table("", f"Prompt: {text}", ["a", "b"], [["1", text]])])
    github = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for dialect in (MARKDOWN, github):
        html = dialect.render(page.partition("\n")[2])
        assert set(re.findall(r"<(\w+)", html)) <= {
            "p",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        }
        shown = [unescape(cell) for cell in re.findall(r"<(?:p|td)>(.*?)</(?:p|td)>", html, re.S)]
        assert shown == [f"Prompt: {visible(text)}", "1", visible(text)]
    assert not re.search(r"\w://|www\.|\w@\w", page)  # GitHub makes links of these


def test_ordinary_cells_are_left_as_they_are():
    for text in (
        "12.5 [11.0, 13.2]",
        "+0.31 [-0.20, 0.82]",
        "A & B",
        "(0.80, −0.60)",
        "a: b; 50 %",
    ):
        assert markdown_text(text) == text


def test_a_table_without_rows():
    """Such as the comparison of DPA with other methods where there are none."""
    text = latex("H", "", [Table("", "", ["method", "v·r"], [])])
    assert r"\begin{tabular}{lr}" in text
    assert r"method & v$\cdot$r \\" in text


def test_a_row_of_latex_cannot_begin_with_an_argument():
    assert latex_text("[2cm] a") == "{[}2cm] a"
    assert latex_text("* a") == "{*} a"
    assert latex_text("a [b] \x1b") == r"a [b] \textbackslash{}x1b"


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text):
    table = pd.DataFrame({"response": [text, "-0.6", "'quoted'", "plain"], "vr": [-0.5, 1, 2, 3]})
    written = csv_text(table)
    found = pd.read_csv(io.StringIO(written, newline=""), dtype={"response": str})
    assert found["response"][0] == f"'{text}"
    assert plain_text(found["response"][0]) == text
    assert found["response"].tolist()[1:] == ["-0.6", "'quoted'", "plain"]
    assert found["vr"].tolist() == table["vr"].tolist()


def test_numbers_are_not_changed():
    table = pd.DataFrame(
        {
            "n": pd.array([1, None], dtype="Int64"),
            "x": [-1.5, 2.0],
            "o": [3, None],
            "b": [True, False],
        }
    ).astype({"o": object})
    assert csv_text(table) == table.to_csv(index=False, float_format="%.6g")


def test_a_figure_with_control_characters_is_xml(tmp_path):
    rows = make_sample_rows("\x1b[31mred\x07 \ufffe")
    rows["response"] = rows["response"].fillna("")
    figure = samples.draw_figure1(rows, OBJECTIVES, "\x1b title")
    save_figure(figure, [tmp_path / f"figure.{kind}" for kind in ("svg", "pdf", "png")], 60)
    text = "".join(ElementTree.parse(tmp_path / "figure.svg").getroot().itertext())
    assert r"\x1b[31mred\x07 \ufffe" in text
    assert r"\x1b title" in text


@pytest.mark.parametrize("response", ["plain", "two\rlines", 'a "quoted"\r\n, text', "\r"])
def test_csv_gives_back_what_a_policy_wrote(response):
    table = pd.DataFrame({"response": [response, "next"], "vr": [0.5, 12.25]})
    found = pd.read_csv(io.StringIO(csv_text(table), newline=""))
    assert found["response"].map(plain_text).tolist() == table["response"].tolist()
    assert found["vr"].tolist() == table["vr"].tolist()


def test_a_dead_reward_model_is_said_before_anything_else(tmp_path):
    marks = tmp_path / "marks.csv"
    rows = {"attribute": ["a", "a", "b", "b"], "n": 9, "p5": [4, 4, 1, 2], "p95": [4, 4, 3, 5]}
    pd.DataFrame(rows).to_csv(marks, index=False)
    [warning] = dead_outputs(marks)
    assert "predicts the same a for every held-out response" in warning
    assert dead_outputs(tmp_path / "none.csv") == []
