"""Responses side by side (figure 1), their lengths, and their rewards against their lengths.

All three are read off the scored validation responses of each method's last iteration, in one pass:
of responses only numbers are kept, and the texts of the few prompts that are shown.
"""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from dpa.artefacts.jsonl import decode_lines, read_jsonl
from dpa.directions import scalar_reward
from dpa.errors import InputError
from dpa.evaluation.validation import SCORER_NAMES, Gold, Policy, rewards_by, sample_key
from dpa.records import Prompt, ScoredSample
from dpa.registry import METHODS
from dpa.report.figures.style import (
    QUANTILES,
    SCORERS,
    direction_colours,
    page_width,
    text_of_direction,
)
from dpa.report.tables import Table
from dpa.text.prompts import (
    CONDITION_SENTENCE,
    DIRECTION_SENTENCE,
    condition_system_prompt,
    direction_system_prompt,
    normalise,
)

#: DPA's directions in figure 1: the first, the last and those evenly between.
DIRECTIONS = 4
#: Lines of a response in figure 1; the table has all of it.
LINES = 7
#: Dots of a method in the picture of reward against length, evenly through the file.
DOTS = 1500
#: Parts of equal size into which responses are grouped by length, for the curves through the dots.
BINS = 8


class Responses(NamedTuple):
    """A policy's validation responses."""

    policy: Policy
    shown: list[ScoredSample]
    """Those to the prompts that are shown, the first for each direction."""
    indices: np.ndarray
    tokens: np.ndarray
    rewards: dict[str, np.ndarray]
    """(responses, k) by each scorer, by its column prefix: the reward model (`r`) first."""
    directions: dict[int, list[float] | None]
    shown_rewards: dict[str, list[Sequence[float]]]
    """Those of the shown, in their order."""


def read_responses(
    path: Path,
    shown: Iterable[str],
    judged: Path | None = None,
    gold: Callable[[ScoredSample], Sequence[float]] | None = None,
) -> Responses:
    """A policy's file, whose stem names the policy; `shown` are the ids of prompts to show.

    `judged` are the judge's scores of the same samples, `gold` gives a sample's rewards by gold.
    Responses to unseen prompts are left out.
    """
    wanted = set(shown)
    scorers: dict[str, Callable[[ScoredSample], Sequence[float]]] = {"r": lambda s: s.rewards}
    if judged is not None:
        judges = rewards_by(judged, path)
        scorers["judge"] = lambda sample: judges[sample_key(sample)]
    if gold is not None:
        scorers["gold"] = gold
    rewards: dict[str, list[Sequence[float]]] = {by: [] for by in scorers}
    shown_rewards: dict[str, list[Sequence[float]]] = {by: [] for by in scorers}
    texts: list[ScoredSample] = []
    numbers: list[tuple] = []
    directions: dict[int, list[float] | None] = {}
    for record in decode_lines(path, ScoredSample):
        if record.unseen:
            continue
        numbers.append((record.direction_index, record.response_tokens))
        for by, score in scorers.items():
            rewards[by].append(score(record))
        directions.setdefault(record.direction_index, record.direction)
        if record.prompt_id in wanted and record.sample_index == 0:
            texts.append(record)
            for by, found in rewards.items():
                shown_rewards[by].append(found[-1])
    if not numbers:
        raise InputError(f"{path}: no responses; rerun sample_evaluation")
    table = np.array(numbers, dtype=float)
    return Responses(
        Policy.parse(path.stem), texts, table[:, 0].astype(int), table[:, 1],
        {by: np.array(found, dtype=float) for by, found in rewards.items()},
        dict(sorted(directions.items())), shown_rewards,
    )  # fmt: skip


def golden_rewards(
    prompts: Path, gold: Gold | None
) -> Callable[[ScoredSample], Sequence[float]] | None:
    """A sample's rewards by gold, whose prompt is in the file of `prompts`; None without gold."""
    if gold is None:
        return None
    texts = {prompt.prompt_id: normalise(prompt.prompt) for prompt in decode_lines(prompts, Prompt)}
    return lambda sample: gold(texts[sample.prompt_id], sample.response)


def pooled(found: Sequence[Responses]) -> Responses:
    """A policy's responses in several seeds as one; texts are the first seed's."""
    first = found[0]
    return first._replace(
        indices=np.concatenate([seed.indices for seed in found]),
        tokens=np.concatenate([seed.tokens for seed in found]),
        rewards={by: np.concatenate([seed.rewards[by] for seed in found]) for by in first.rewards},
    )


# --- Figure 1 --------------------------------------------------------------------------------


def choose_prompts(path: Path, positions: Sequence[int]) -> list[Prompt]:
    """The validation prompts (not the unseen ones) at the given positions, in the order of ids.

    Ids are hashes: their order is a shuffle, and nothing is picked for its looks.
    """
    seen = [prompt for prompt in read_jsonl(path, Prompt) if not prompt.unseen]
    prompts = sorted(seen, key=lambda prompt: prompt.prompt_id)
    if max(positions) >= len(prompts):
        raise InputError(
            f"figures.prompts: position {max(positions)}, but {path} has {len(prompts)} prompts"
        )
    return [prompts[position] for position in positions]


def sample_rows(
    prompts: Sequence[Prompt], policies: Sequence[Responses], objectives: Sequence[str]
) -> pd.DataFrame:
    """A row per prompt, policy and direction: what was asked for, the response, its rewards."""
    order = list(METHODS)
    rows = []
    for place, prompt in enumerate(prompts):
        for found in sorted(policies, key=lambda p: order.index(p.policy.method)):
            answers = [(r, i) for i, r in enumerate(found.shown) if r.prompt_id == prompt.prompt_id]
            for record, i in sorted(answers, key=lambda answer: answer[0].direction_index):
                rewards = {by: shown[i] for by, shown in found.shown_rewards.items()}
                rows.append(_sample_row(place, prompt, found.policy, record, rewards, objectives))
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def _sample_row(
    place: int,
    prompt: Prompt,
    policy: Policy,
    record: ScoredSample,
    rewards: dict[str, Sequence[float]],
    objectives: Sequence[str],
) -> dict:
    v = record.direction
    scored: dict[str, float | None] = {}
    for by, found in rewards.items():
        scored |= {f"{by}_{name}": found[i] for i, name in enumerate(objectives)}
        scored[scalar_column(by)] = None if v is None else scalar_reward(v, found)
    return {
        "prompt_number": place + 1,
        "prompt_id": prompt.prompt_id,
        "prompt": normalise(prompt.prompt),
        "method": policy.method,
        "iteration": policy.iteration,
        "direction_index": record.direction_index,
        "asked": _asked(record, objectives),
        **{f"v_{name}": None if v is None else v[i] for i, name in enumerate(objectives)},
        "response": record.response,
        "finish_reason": record.finish_reason,
        "tokens": record.response_tokens,
        "words": len(record.response.split()),
        "characters": len(record.response),
        **scored,
    }


def scalar_column(by: str) -> str:
    """The column of v·r by a scorer: `vr`, `judge_vr`, `gold_vr`."""
    return "vr" if by == "r" else f"{by}_vr"


def scorers_of(samples: pd.DataFrame) -> list[str]:
    """By whom sample_rows are scored."""
    return [by for by in SCORERS if scalar_column(by) in samples]


def rewards_text(row: dict, objectives: Sequence[str], scorers: Sequence[str]) -> str:
    """`helpfulness 70, verbosity 20, v·r 44`; of an independent scorer behind it `· judge: ...`."""
    return " · ".join(rewards_by_scorer(row, objectives, scorers))


def rewards_by_scorer(row: dict, objectives: Sequence[str], scorers: Sequence[str]) -> list[str]:
    """`helpfulness 70, verbosity 20, v·r 44`, then `judge: ...`."""
    parts = []
    for by in scorers:
        numbers = [f"{name} {row[f'{by}_{name}']:.0f}" for name in objectives]
        scalar = row[scalar_column(by)]
        numbers += [] if pd.isna(scalar) else [f"v·r {scalar:.0f}"]
        parts.append(("" if by == "r" else f"{by}: ") + ", ".join(numbers))
    return parts


def _asked(record: ScoredSample, objectives: Sequence[str]) -> str:
    """The arithmetic of the system prompt: what follows its fixed sentences."""
    if record.direction is not None:
        text = direction_system_prompt(objectives, record.direction)
        return text.partition(DIRECTION_SENTENCE)[2].strip()
    if record.condition is not None:
        text = condition_system_prompt(objectives, record.condition)
        return text.partition(CONDITION_SENTENCE)[2].strip()
    return ""


def figure1_rows(samples: pd.DataFrame) -> pd.DataFrame:
    """The first prompt under DIRECTIONS of DPA's and by DPO (by SFT where there is no DPO)."""
    first = samples[samples["prompt_number"] == 1]
    own = first[first["method"] == "dpa"]
    places = np.linspace(0, len(own) - 1, min(len(own), DIRECTIONS)).round().astype(int)
    other = "dpo" if (first["method"] == "dpo").any() else "sft"
    shown = [own.iloc[places], first[first["method"] == other]]
    return pd.concat(shown, ignore_index=True)


def draw_figure1(rows: pd.DataFrame, objectives: Sequence[str], title: str) -> Figure:
    """The prompt on top; left, the directions as arrows; right, a card for each response."""
    line, left = 0.155, 1.95
    scorers = scorers_of(rows)
    width = page_width() - left - 0.45
    cards = [_card(row, objectives, scorers, width) for row in rows.to_dict("records")]
    prompt = _fitted(f"Prompt: {rows['prompt'][0]}", page_width() - 0.3, 8.5, 96, weight="bold")
    prompt = prompt[:4] + (["…"] if len(prompt) > 4 else [])
    heights = [line * (len(numbers) + len(body) + 1.6) + 0.14 for _, numbers, body in cards]
    above = 0.42 if title else 0.15
    head = above + 0.03 + line * len(prompt)
    height = max(head + sum(heights) + 0.1, head + 2.2)
    figure = plt.figure(figsize=(page_width(), height))
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, page_width()), ylim=(height, 0))
    page.axis("off")
    _text(page, page_width() / 2, 0.18, title, size=10, ha="center")
    _text(page, 0.15, above, "\n".join(prompt), size=8.5, weight="bold", va="top")
    colours = _card_colours(rows)
    top = head + 0.08
    for (asked, numbers, body), colour, tall in zip(cards, colours, heights, strict=True):
        x, bottom = left + 0.2, top + tall - 0.1
        page.fill_between(
            [x, page_width() - 0.12], top, bottom, color=colour, alpha=0.07, linewidth=0
        )
        page.plot([x, x], [top, bottom], color=colour, linewidth=3, solid_capstyle="butt")
        _text(page, x + 0.1, top + 0.15, asked, size=7.5, weight="bold")
        for place, text in enumerate(numbers, 1):
            _text(page, x + 0.1, top + 0.15 + place * line, text, size=7, color="#444444")
        below = top + 0.26 + len(numbers) * line
        _text(page, x + 0.1, below, "\n".join(body), size=7.5, va="top")
        top += tall
    directions = figure.add_axes(
        (0.62 / page_width(), 1 - (head + 0.15 + 1.45) / height, 1.35 / page_width(), 1.35 / height)
    )
    _draw_arrows(directions, rows, colours, objectives)
    return figure


def _text(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Text as it is: dollars in a response are no formula."""
    style = {"va": "center", "linespacing": 1.3, **style}
    axes.text(x, y, text, fontsize=size, parse_math=False, **style)


def _fitted(text: str, width: float, size: float, most: int, weight: str = "normal") -> list[str]:
    """Lines of at most `most` characters, and of at most `width` inches where words allow it."""
    font = FontProperties(size=size, weight=weight)
    lines: list[str] = []
    for characters in range(most, 8, -4):
        lines = textwrap.wrap(text, characters)
        if all(_width(line, font) <= width for line in lines):
            break
    return lines


def _joined(parts: Sequence[str], width: float, size: float) -> list[str]:
    """`parts` on as few lines as fit; broken within one only where it is too long by itself."""
    font = FontProperties(size=size)
    lines: list[str] = []
    for part in parts:
        if lines and _width(longer := f"{lines[-1]} · {part}", font) <= width:
            lines[-1] = longer
        else:
            lines += _fitted(part, width, size, 120)
    return lines


def _width(line: str, font: FontProperties) -> float:
    """In inches."""
    return text_to_path.get_text_width_height_descent(line, font, False)[0] / 72


def _card(
    row: dict, objectives: Sequence[str], scorers: Sequence[str], width: float
) -> tuple[str, list[str], list[str]]:
    """What was asked, numbers, and the response, as lines of at most `width` inches."""
    label = METHODS[row["method"]].label
    asked = f"{label}: {row['asked']}" if row["asked"] else label
    rewards = rewards_by_scorer(row, objectives, scorers)
    parts = [f"{row['tokens']} tokens", f"rewards: {rewards[0]}", *rewards[1:]]
    numbers = _joined(parts, width, 7)
    body = _fitted(row["response"], width, 7.5, 84) or ["(empty)"]
    if len(body) > LINES:
        rest = row["characters"] - sum(len(text) + 1 for text in body[:LINES])
        body = [*body[:LINES], f"… ({max(rest, 1):,} more characters)"]
    return asked, numbers, body


def _card_colours(rows: pd.DataFrame) -> list:
    steered = int((rows["method"] == "dpa").sum())
    own = iter(direction_colours(steered))
    return [next(own) if method == "dpa" else METHODS[method].colour for method in rows["method"]]


def _draw_arrows(
    axes: Axes, rows: pd.DataFrame, colours: Sequence, objectives: Sequence[str]
) -> None:
    """Directions in the plane of the first two objectives' weights."""
    arc = np.linspace(-np.pi / 2, np.pi / 2, 100)
    axes.plot(np.cos(arc), np.sin(arc), color="#BBBBBB", linewidth=0.8)
    weights = rows[[f"v_{name}" for name in objectives[:2]]].to_numpy(dtype=float)
    for (x, y), colour in zip(weights, colours, strict=True):
        if x == x:
            axes.annotate(
                "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8}
            )
    upper = 1.1 if np.nanmax(weights[:, 1]) > 0 else 0.15
    axes.set(xlim=(-0.05, 1.15), ylim=(-1.1, upper))
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel(f"weight of {objectives[0]}", fontsize=7)
    axes.set_ylabel(f"weight of {objectives[1]}", fontsize=7)
    axes.tick_params(labelsize=7)


def figure1_caption(rows: pd.DataFrame, experiment: str) -> str:
    last = rows.loc[rows["method"] == "dpa", "iteration"].max()
    other = next((METHODS[m].label for m in rows["method"] if m != "dpa"), None)
    scorers = " and ".join(f"{SCORER_NAMES[by]}'s" for by in scorers_of(rows))
    beside = f", and the answer of {other}, which takes no direction," if other else ""
    return f"""\
**Figure 1 (experiment {experiment}).** Arithmetic prompting: one policy (DPA, iteration {last})
answers the same validation prompt under several directions{beside} with lengths and the
{scorers} scores (0–100). The prompt is one of the first in the order of hashed ids and each
response the first that was sampled: none is picked. Long responses are shortened here
and whole in the table."""


def figure1_table(rows: pd.DataFrame, objectives: Sequence[str]) -> Table:
    """The same as a table, responses in full."""
    columns = [
        (column, heading if by == "r" else f"{heading} ({by})")
        for by in scorers_of(rows)
        for column, heading in [
            *((f"{by}_{name}", name) for name in objectives), (scalar_column(by), "v·r")
        ]
    ]  # fmt: skip
    cells = [
        [
            METHODS[row["method"]].label, row["asked"] or "–", row["response"], str(row["tokens"]),
            *("–" if pd.isna(row[column]) else f"{row[column]:.1f}" for column, _ in columns),
        ]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    header = ["method", "asked to maximize", "response", "tokens", *(name for _, name in columns)]
    return Table("", f"Prompt: {rows['prompt'][0]}", header, cells, text=(2,))


# --- Lengths ---------------------------------------------------------------------------------


def length_marks(policies: Sequence[Responses], objectives: Sequence[str]) -> pd.DataFrame:
    """Quantiles of response length (tokens): a row per policy and direction (-1: all of them)."""
    rows = []
    for found in policies:
        groups = [(index, found.indices == index) for index in found.directions]
        if -1 not in found.directions:
            groups.append((-1, np.ones(len(found.tokens), dtype=bool)))
        for index, chosen in groups:
            tokens = found.tokens[chosen]
            v: Sequence = found.directions.get(index) or [None] * len(objectives)
            rows.append(
                {
                    "method": found.policy.method, "iteration": found.policy.iteration,
                    "direction_index": index,
                    **{f"v_{name}": v[i] for i, name in enumerate(objectives)},
                    "n": len(tokens), "mean": tokens.mean(),
                    **dict(zip(QUANTILES, np.percentile(tokens, [*QUANTILES.values()]),
                               strict=True)),
                }
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def draw_lengths(marks: pd.DataFrame, objectives: Sequence[str], title: str) -> Figure:
    """Left, a box for each of DPA's directions; right, a box for each method, all its responses."""
    dpa = marks[(marks["method"] == "dpa") & (marks["direction_index"] >= 0)]
    steered = [f"v_{name}" for name in objectives]
    methods = [m for m in METHODS if (marks["method"] == m).any()]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(page_width(), 3.6),
        width_ratios=[max(len(dpa), len(methods) / 2, 2), len(methods)],
        sharey=True, layout="constrained",
    )  # fmt: skip
    colours = direction_colours(len(dpa))
    _draw_boxes(left, list(_boxes(dpa)), colours)
    directions = dpa[steered].to_numpy(dtype=float)
    if len(objectives) == 2 and np.isfinite(directions).all():
        angles = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
        labels = [f"{angle:.3g}°".replace("-", "−") for angle in angles]
        left.set_xticks(range(len(dpa)), labels, fontsize=7.5)
        left.set_xlabel(f"angle of the direction\n(0°: {objectives[0]} alone)")
    else:
        labels = [
            text_of_direction(v) if v[0] == v[0] else f"condition {i}"
            for i, v in enumerate(directions)
        ]
        left.set_xticks(range(len(dpa)), labels, rotation=60, ha="right", fontsize=7.5)
        left.set_xlabel(f"direction ({', '.join(objectives)})")
    left.set_ylabel("response length (tokens)")
    last = dpa["iteration"].max()
    left.set_title(f"DPA, iteration {last}, by direction")
    whole = marks[marks["direction_index"] == -1].set_index("method").loc[methods]
    _draw_boxes(right, list(_boxes(whole)), [METHODS[m].colour for m in methods])
    names = [METHODS[m].label for m in methods]
    right.set_xticks(range(len(methods)), names, rotation=60, ha="right", fontsize=7.5)
    right.set_title("all responses")
    left.set_ylim(bottom=0)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _boxes(rows: pd.DataFrame) -> Iterator[dict]:
    for row in rows.itertuples():
        yield {
            "med": row.median, "q1": row.q25, "q3": row.q75, "whislo": row.p5, "whishi": row.p95,
            "mean": row.mean,
        }  # fmt: skip


def _draw_boxes(axes: Axes, boxes: list[dict], colours: Iterable) -> None:
    if not boxes:
        return
    drawn = axes.bxp(
        boxes, positions=range(len(boxes)), showfliers=False, widths=0.6, patch_artist=True,
        showmeans=True,
        meanprops={"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black",
                   "markersize": 3},
        medianprops={"color": "black", "linewidth": 1.2},
    )  # fmt: skip
    for patch, colour in zip(drawn["boxes"], colours, strict=False):
        patch.set(facecolor=colour, alpha=0.55)
    axes.grid(axis="x", visible=False)


def length_caption(experiment: str) -> str:
    return f"""\
**Response length (experiment {experiment}).** Tokens of the validation responses: left, DPA's
last iteration under each direction; right, every method over all its responses. Boxes are
quartiles with the median as a line and the mean as a circle, whiskers the 5th and the 95th
percentile."""


# --- Reward against length -------------------------------------------------------------------


def reward_length_marks(policies: Sequence[Responses], objectives: Sequence[str]) -> pd.DataFrame:
    """Dots (at most DOTS responses) and a curve (means of BINS parts by length) for each policy.

    `correlation` is Pearson's, of reward and length over all the policy's responses.
    """
    rows = []
    for found in policies:
        order = np.argsort(found.tokens, kind="stable")
        # Responses of one length are in one part: a curve has one mean for each length.
        edges = np.unique(np.quantile(found.tokens, np.linspace(0, 1, BINS + 1)[1:-1]))
        part_of = np.searchsorted(edges, found.tokens)
        parts = [np.flatnonzero(part_of == part) for part in np.unique(part_of)]
        every = np.arange(0, len(order), max(len(order) // DOTS, 1))
        for by, i, name in (
            (by, i, name) for by in found.rewards for i, name in enumerate(objectives)
        ):
            rewards = found.rewards[by][:, i]
            varied = np.ptp(rewards) > 0 and np.ptp(found.tokens) > 0
            shared = {
                "by": by, "objective": name, "method": found.policy.method,
                "iteration": found.policy.iteration,
                "correlation": float(np.corrcoef(rewards, found.tokens)[0, 1]) if varied else None,
            }  # fmt: skip
            rows += [
                {"mark": "curve", **shared, "tokens": found.tokens[p].mean(),
                 "reward": rewards[p].mean(), "n": len(p)}
                for p in parts
            ]  # fmt: skip
            rows += [
                {"mark": "dot", **shared, "tokens": found.tokens[j], "reward": rewards[j], "n": 1}
                for j in every
            ]
    return pd.DataFrame(rows).astype({"iteration": "Int64"})


def draw_reward_length(marks: pd.DataFrame, objectives: Sequence[str], title: str) -> Figure:
    """A panel per scorer and objective: DPA's responses as dots, methods' mean reward by length."""
    scorers = [by for by in SCORERS if (marks["by"] == by).any()]
    methods = [method for method in METHODS if (marks["method"] == method).any()]
    figure, axes = plt.subplots(
        len(scorers), len(objectives), figsize=(page_width(), 1.2 + 3.1 * len(scorers)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    panels = [(by, name) for by in scorers for name in objectives]
    for panel, (by, name) in zip(axes.flat, panels, strict=True):
        rows = marks[(marks["by"] == by) & (marks["objective"] == name)]
        dots = rows[(rows["mark"] == "dot") & (rows["method"] == "dpa")]
        panel.plot(
            dots["tokens"], dots["reward"], ".", color=METHODS["dpa"].colour, alpha=0.35,
            markersize=4, markeredgewidth=0, rasterized=True, zorder=1,
        )  # fmt: skip
        for method in methods:
            marker, colour = METHODS[method].marker, METHODS[method].colour
            curve = rows[(rows["mark"] == "curve") & (rows["method"] == method)]
            panel.plot(
                curve["tokens"], curve["reward"], marker + "-", color=colour,
                label=_length_label(marks, method, objectives), zorder=3,
            )  # fmt: skip
        panel.set_xlabel("response length (tokens)")
        panel.set_ylabel(f"{name} (reward, 0–100)")
        if len(scorers) > 1:
            panel.set_title(SCORERS[by])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize=7.5, title_fontsize=7.5,
        title=f"with Pearson's r of length and {', '.join(objectives)}",
    )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _length_label(marks: pd.DataFrame, method: str, objectives: Sequence[str]) -> str:
    own = marks[(marks["method"] == method) & (marks["by"] == "r")]
    found = own.groupby("objective")["correlation"].first()
    texts = ["–" if pd.isna(found[name]) else f"{found[name]:.2f}" for name in objectives]
    return f"{METHODS[method].label} ({', '.join(texts)})".replace("-", "−")


def reward_length_caption(experiment: str) -> str:
    return f"""\
**Reward against length (experiment {experiment}).** The reward model's scores of the validation
responses (below them those of a scorer that never selected, where there is one) against their
length: dots are responses of DPA's last iteration under all directions, curves the mean reward of
each method in up to {BINS} parts by length; r is Pearson's correlation over all responses of a
method, by the reward model. A curve that rises with length where quality does not is verbosity
bias."""
