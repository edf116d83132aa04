import re

from dpa.config import ROOT
from dpa.config_docs import COMMAND, PAGE, describe_keys, render


def test_the_page_is_up_to_date():
    assert (ROOT / PAGE).read_text() == render(), f"{PAGE} is out of date; run: {COMMAND}"


def test_every_key_is_on_the_page():
    page = render()
    for key in describe_keys((ROOT / "config.yaml").read_text()):
        if key.startswith(("dpo.recipes.", "alpacaeval.reference.", "rewardbench.data.")):
            continue  # items of a mapping, shown as its default
        parent, _, last = key.rpartition(".")
        in_a_schedule = parent.endswith((".training", ".pretraining"))
        assert f"`{last if in_a_schedule else key}`" in page or f"## {key}\n" in page


def test_every_link_leads_to_a_heading():
    page = render()
    anchors = {
        heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", page, re.M)
    }
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= anchors


def test_rows_have_four_cells():
    rows = [line for line in render().splitlines() if line.startswith("|")]
    assert all(len(re.split(r"(?<!\\)\|", row)) == 6 for row in rows)


def test_types_defaults_and_descriptions():
    page = render()
    assert "| `seed` | integer ≥ 0 or list of integer ≥ 0 | `0` | Base seed." in page
    assert "| `sampling.engine` | `vllm` or `transformers` | `vllm` |" in page
    assert "| `data.prompts_per_half` | integer > 0 or null | `null` |" in page
    assert "| `from` | [number, number] or `rank` | required |" in page
    assert "| `dpa.replay_fraction` | number ≥ 0, &lt; 1 | `0.15` |" in page
    assert re.search(r"\| `dpa.training` \| \[Schedule\]\(#schedule\) \| `{learning_rate: ", page)
    assert "`helpsteer` | `prompt`, `response`, five integers 0-4 | 20 s + 10 |" in page


def test_comments_of_several_lines_and_none():
    text = "# One\n# two.\na: 1\n\nb:\n  # Three.\n  c: 2\n  d: 3\n"
    assert describe_keys(text) == {"a": "One two.", "b": "", "b.c": "Three.", "b.d": ""}
