"""The report: one HTML page of everything an experiment made, to be opened from disk.

The page holds its pictures and needs no network. Text from models and data is escaped; Markdown of
captions, tables and deviations is rendered without raw HTML.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.colors import to_hex

from dpa.artefacts.cells import plain_text
from dpa.artefacts.frames import read_csv_table
from dpa.artefacts.sidecars import read_sidecar
from dpa.errors import InputError
from dpa.registry import METHODS
from dpa.report.figures.reward_model import constant_attributes, constant_warning
from dpa.report.figures.samples import rewards_text, scorers_of
from dpa.report.figures.style import direction_colours
from dpa.report.paper import compare_published
from dpa.report.scorers import describe_scorers, lacks_judge, no_judge
from dpa.report.summary import summarise
from dpa.runtime.log import visible
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import read_yaml

TEMPLATES = Path(__file__).parent / "templates"
#: The section of docs/deviations.md that is the one source of the assumptions.
ASSUMPTIONS = "## Where the paper is silent"
#: Figures and tables that open the page; the others come in a section of their own.
FIRST_FIGURES = ("figure1", "figure4", "figure5", "overoptimisation")
FIRST_TABLES = ("table1", "table2", "comparison", "chosen")
#: Figures of costs.
COSTS = ("costs",)

#: A table of more columns is set smaller; one of fewer characters in a row fits a phone.
WIDE, NARROW = 8, 45

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class PageSection(NamedTuple):
    """A section of the page; what is particular to it is in the template, by its id."""

    id: str
    title: str
    text: Sequence[str] = ()
    figures: Sequence[dict] = ()
    tables: Sequence[dict] = ()
    items: Sequence[tuple[str, str]] = ()


def render(
    folder: Path,
    experiment: str,
    config: dict,
    config_hash: str,
    figures: Sequence[str],
    tables: Sequence[str],
    deviations: Path,
) -> str:
    """The page for results/<experiment>/ (`folder`), with the named figures and tables.

    `config` is the whole configuration. Raises InputError when a file is missing.
    """
    found = {name: load_figure(folder / "figures", name) for name in figures}
    # The texts of figure 1's are side by side below; other tables of a figure's marks are under it.
    tabled = {name: load_table(folder / "tables", name) for name in tables if name != "figure1"}
    for name, figure in found.items():
        figure["table"] = tabled.pop(name, None)
    samples = folder / "tables/samples.csv"
    prompts = list(prompt_cards(read_csv_table(samples), config)) if "figure1" in tables else []
    comparisons = list(compare_published(folder / "figures", figures))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = (TEMPLATES / "dial.js").read_text(encoding="utf-8")
    artefacts = list(read_artefacts(folder))
    known = [*warnings(config), *dead_outputs(folder / "figures/reward_model.csv")]
    return environment.get_template("report.html.j2").render(
        title=f"Directional Preference Alignment: {experiment}",
        summary=summarise(folder, config, known),
        sections=list(
            sections(
                found,
                tabled,
                len(prompts),
                bool(comparisons),
                list(describe_scorers(folder, config)),
            )
        ),
        prompts=prompts,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        formats=config["figures"]["style"]["formats"],
        comparisons=comparisons,
        assumptions=list(assumptions(deviations, config)),
        changed=as_yaml(changes(read_yaml(CLONE / "config.yaml"), config)),
        configuration=as_yaml(config),
        provenance=provenance(artefacts, config, config_hash),
        artefacts=[
            [artefact[key] for key in ("path", "sha", "code", "read", "kept", "dropped")]
            for artefact in artefacts
        ],
    )


# --- Parts of the page -----------------------------------------------------------------------


def warnings(config: dict) -> list[str]:
    """What must be known before a number is read."""
    if config["world"] is None:
        return [no_judge(config)] if lacks_judge(config) else []
    return [
        "This is the quickstart: a generated world and models of a fraction of a million "
        "parameters, trained from scratch on a CPU. It shows that the method and its "
        "implementation work; its numbers are not those of large language models, and not "
        "comparable with the paper's."
    ]


def dead_outputs(marks: Path) -> list[str]:
    """The same about outputs of the reward model that are constant."""
    if not marks.exists():
        return []
    warning = constant_warning(constant_attributes(read_csv_table(marks)))
    return [warning] if warning else []


def sections(
    figures: dict[str, dict],
    tables: dict[str, dict],
    prompts: int,
    compared: bool,
    scorers: Sequence[str],
) -> Iterator[PageSection]:
    """The page in order; a section without content is left out. `scorers` says who scored."""

    def those(found: dict[str, dict], names: Iterable[str]) -> list[dict]:
        return [found[name] for name in names if name in found]

    def items(shown: Iterable[dict], prefix: str = "") -> list[tuple[str, str]]:
        return [(f"{prefix}{item['name']}", item["title"]) for item in shown]

    first = those(figures, FIRST_FIGURES)
    if first:
        yield PageSection("figures", "Figures", (), first, (), items(first))
    shown = those(tables, FIRST_TABLES)
    if shown:
        yield PageSection("tables", "Tables", (), (), shown, items(shown, "table-"))
    if prompts:
        text = (
            "The same validation prompts, answered by DPA's last iteration under all its "
            "directions and by the other methods, with lengths and rewards. Each response is the "
            "first that was sampled, and the prompts are those that figures.prompts names: none "
            "is picked for its looks.",
        )
        numbered = [(f"prompt-{i + 1}", f"Prompt {i + 1}") for i in range(prompts)]
        yield PageSection("samples", "Side by side", text, items=numbered)
    if compared:
        text = (
            "The paper's numbers are in results/published/, with their source and precision; "
            "figures 4 and 5 were read off its plots. What is said of the paper here is computed "
            "from those numbers by the same code as for ours.",
        )
        yield PageSection("published", "Against the published numbers", text)
    yield PageSection("scorers", "Who scored", scorers)
    rest = [n for n in figures if n not in (*FIRST_FIGURES, *COSTS)]
    others = [n for n in tables if n not in FIRST_TABLES]
    drawn, tabled = those(figures, rest), those(tables, others)
    yield PageSection(
        "more", "Reward model, trainings, lengths and other checks", (), drawn, tabled,
        [*items(drawn), *items(tabled, "table-")],
    )  # fmt: skip
    if drawn := those(figures, COSTS):
        yield PageSection("costs-section", "What it cost", (), drawn)
    text = (
        "Choices of ours, each with the configuration key that holds it, and its value here. The "
        "table is that of docs/deviations.md.",
    )
    yield PageSection("assumptions", "Where the paper is silent", text)
    text = (
        "What this experiment sets otherwise than config.yaml, whose defaults are the paper's:",
    )
    yield PageSection("configuration", "Configuration", text)
    yield PageSection("provenance", "Provenance")


def load_figure(folder: Path, name: str) -> dict:
    """A figure's picture (base64), caption and title."""
    try:
        png = (folder / f"{name}.png").read_bytes()
        caption = (folder / f"{name}.md").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error}; rerun the rule that draws {name}") from None
    title = re.match(r"\*\*(.+?)( \(experiment [^)]*\))?\.?\*\*", caption)
    return {
        "name": name,
        "title": title[1] if title else name,
        "png": base64.b64encode(png).decode(),
        "alt": title[1] if title else name,
        "caption": Markup(MARKDOWN.render(caption)),
    }


def load_table(folder: Path, name: str) -> dict:
    """A table's page, rendered; its heading becomes the title."""
    try:
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error}; rerun the rule that makes {name}") from None
    heading, _, body = text.partition("\n")
    title = re.sub(r", experiment \S+$", "", heading.removeprefix("# ").strip())
    return {"name": name, "title": title, "body": Markup(tables_html(body))}


def tables_html(text: str) -> str:
    """Markdown with tables, whose cells name their column: where it is too wide for a screen a row
    is a list of them.
    """
    tokens = MARKDOWN.parse(text)
    header: list[str] = []
    widths: list[int] = []
    table, column = None, 0
    for token, after in pairwise([*tokens, None]):
        assert token is not None
        cell = "".join(part.content for part in after.children or ()) if after else ""
        match token.type:
            case "heading_open" | "heading_close":
                token.tag = "h4"
            case "table_open":
                header, widths, table = [], [], token
            case "tr_open":
                column = 0
            case "th_open":
                header.append(cell)
                widths.append(max(map(len, cell.split()), default=0))
            case "td_open":
                token.attrSet("data-label", header[column])
                widths[column] = max(widths[column], len(cell))
                column += 1
            case "table_close" if table is not None:
                table.attrSet("class", "wide" if len(header) > WIDE else "narrow"
                              if sum(widths) + 3 * len(header) < NARROW else "")  # fmt: skip
    return MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})


def prompt_cards(samples: pd.DataFrame, config: dict) -> Iterator[dict]:
    """The shown prompts with a card for each response (samples.csv)."""
    names = [objective["name"] for objective in config["objectives"]]
    for _, rows in samples.groupby("prompt_number"):
        steered = int((rows["method"] == "dpa").sum())
        own = iter(direction_colours(steered))
        cards = []
        for method, answers in rows.groupby("method", sort=False):
            for place, row in enumerate(answers.to_dict("records")):
                rewards = rewards_text(row, names, scorers_of(samples))
                asked = "" if pd.isna(row["asked"]) else plain_text(str(row["asked"]))
                entry = METHODS[str(method)]
                cards.append(
                    {
                        "method": entry.label if pd.isna(row["iteration"])
                        else f"{entry.label} t={row['iteration']:.0f}",
                        "asked": asked,
                        "numbers": f"{row['tokens']} tokens · {rewards}",
                        "response": "" if pd.isna(row["response"])
                        else visible(plain_text(str(row["response"]))),
                        "colour": to_hex(next(own) if method == "dpa" else entry.colour),
                        "dial": f"{asked}{angle_of(row, names)}" if method == "dpa" else "",
                        "positions": positions(
                            # Conditions run from terse to long, directions the other way.
                            len(answers) - 1 - place if entry.conditioned_on == "rewards"
                            else place, len(answers), steered,
                        ),
                    }
                )  # fmt: skip
        yield {"text": visible(plain_text(str(rows["prompt"].iloc[0]))), "cards": cards}


def angle_of(row: dict, objectives: Sequence[str]) -> str:
    """` (−37°)` of a direction in a plane."""
    weights = [row[f"v_{name}"] for name in objectives]
    if len(weights) != 2 or any(pd.isna(weight) for weight in weights):
        return ""
    return f" ({math.degrees(math.atan2(weights[1], weights[0])):.0f}°)".replace("-", "−")


def positions(place: int, answers: int, steered: int) -> list[int]:
    """The positions of the dial, one for each of DPA's `steered` answers, that show an answer.

    A method with as many answers is turned with it, one with fewer in greater steps; a single
    answer stays.
    """
    last = max(steered - 1, 1)
    return [
        position for position in range(steered) if round(position * (answers - 1) / last) == place
    ]


# --- Assumptions, configuration, provenance --------------------------------------------------


def assumptions(deviations: Path, config: dict) -> Iterator[list[str]]:
    """Question, answer, key, and this experiment's value of the key, row by row."""
    try:
        text = deviations.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{error}; it has the table of assumptions") from None
    # Pages of the documentation are not beside the report: of links there the text is left.
    text = re.sub(r"\[([^\]]+)\]\([\w.-]+\.md[^)]*\)", r"\1", text)
    _, found, section = text.partition(f"\n{ASSUMPTIONS}\n")
    rows = re.findall(
        r"^\| (.+?) \| (.+) \| (.+?) \|$", section.partition("\n## ")[0], re.MULTILINE
    )
    if not found or len(rows) < 2:
        raise InputError(f"{deviations}: no table under {ASSUMPTIONS!r}")
    for question, answer, key in rows[1:]:
        values = [value_of(config, name) for name in re.findall(r"`([\w.*]+)`", key)]
        cells = [Markup(MARKDOWN.renderInline(cell)) for cell in (question, answer, key)]
        yield [*cells, "; ".join(value for value in values if value is not None)]


def value_of(config: dict, key: str) -> str | None:
    """A key's value as text; None for a section."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return None if isinstance(value, dict) else json.dumps(value)


def changes(default: dict, config: dict) -> dict:
    """What a configuration sets otherwise than the default, section by section."""
    found = {}
    for key, value in config.items():
        before = default.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            value = changes(before, value)
            if value:
                found[key] = value
        elif value != before:
            found[key] = value
    return found


def as_yaml(config: dict) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100).strip()


def read_artefacts(folder: Path) -> Iterator[dict]:
    """What the sidecars say, in the order of paths; without the page itself and what is on it."""
    for path in sorted(folder.rglob("*.meta.json")):
        name = path.relative_to(folder).as_posix().removesuffix(".meta.json")
        if name.startswith(("figures/", "tables/")) or name in ("report.html", "provenance.json"):
            continue
        if not (artefact := folder / name).exists():
            continue  # verify names it
        sidecar = read_sidecar(artefact)
        counts = sidecar.get("counts", {})
        dropped = {reason: n for reason, n in counts.get("dropped", {}).items() if n}
        yield {
            "path": name,
            "sha": (sidecar.get("sha256") or "")[:12],
            "code": sidecar.get("code_version", ""),
            "read": counts.get("read", ""),
            "kept": counts.get("kept", ""),
            "dropped": ", ".join(f"{n} {reason}" for reason, n in dropped.items()),
            "packages": sidecar.get("packages", {}),
        }


def provenance(artefacts: Sequence[dict], config: dict, config_hash: str) -> list[tuple[str, str]]:
    """Name and value of what identifies the run."""
    versions = dict.fromkeys(artefact["code"] for artefact in artefacts)
    packages = {name: v for artefact in artefacts for name, v in artefact["packages"].items()}
    return [
        ("experiment", config["experiment"]),
        ("configuration", config_hash),
        ("base seed", json.dumps(config["seed"])),
        ("code", ", ".join(versions)),
        *sorted(packages.items()),
    ]
