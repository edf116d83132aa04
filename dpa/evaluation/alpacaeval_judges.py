"""Who is better: a policy's outputs or the reference's, by one of AlpacaEval's kinds of judge.

Every judge ends in AlpacaEval's own annotations, and every number comes from the alpaca_eval
package. Judges that are asked over HTTP (`gpt4_turbo`, `endpoint`) answer through judge_cache; the
others (`annotations`, `gold`) are laid in AlpacaEval's cache beforehand and no judge is asked.
"""

import json
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from dpa.artefacts.outputs import write_text
from dpa.config.benchmarks import JudgeConfig
from dpa.endpoint.keys import lacks_key, redacted
from dpa.errors import InputError
from dpa.evaluation.alpacaeval import Output, read_outputs
from dpa.runtime.log import Progress, log
from dpa.runtime.reading import MAX_LIST, decode_json, read_document

#: The official annotator, its reference and its key.
OFFICIAL = "weighted_alpaca_eval_gpt4_turbo"
OFFICIAL_MODEL = "gpt-4-1106-preview"
OFFICIAL_REFERENCE = "gpt4_1106_preview"
OFFICIAL_PROMPTS = 805
OFFICIAL_KEY = "OPENAI_API_KEY"
#: Its list price in US dollars per prompt token; one token is generated, at three times that.
OFFICIAL_PRICE = 1e-5
#: Characters per token of what the official model was asked in published annotations, and tokens of
#: a comparison there.
CHARACTERS_PER_TOKEN = 4.85
TOKENS_PER_COMPARISON = 952
#: Tokens that a chat's wrapping adds to a comparison.
OVERHEAD_TOKENS = 15

GOLD_ANNOTATOR = "quickstart_gold"
#: Difference in gold helpfulness (points of 0-100) at which the gold judge is 73 % sure.
GOLD_SCALE = 10.0

#: Preferences as alpaca_eval has them: 1 the reference's output is better, 2 the policy's is.
TIE = 1.5
#: How alpaca_eval's cache marks a comparison that has no preference.
MISSING = -1

#: Comparisons that alpaca_eval makes before it writes its cache, which nothing depends on here.
CHUNK = 32

#: Share of comparisons that may stay without a verdict.
MAX_WITHOUT_VERDICT = 0.05

AnnotationRow = dict[str, Any]
Comparison = tuple[Output, Output]


class Ready(NamedTuple):
    """What alpaca_eval needs to annotate: its configuration, and annotations that are there."""

    name: str
    config: str
    known: list[AnnotationRow] | None


def judge_outputs(
    outputs: Mapping[str, Path],
    reference: Path,
    judge: JudgeConfig,
    *,
    store: Path,
    difficulty: Path | None = None,
    keep: Mapping[str, Path] | None = None,
) -> dict[str, AnnotationRow]:
    """Judge output files against a reference file: name -> metrics.

    `store` keeps answers of judges that are asked; `difficulty` is AlpacaEval's df_gamed.csv;
    `keep` says where each file's annotations, with the judge's raw outputs, are written.

    Raises InputError when an output is missing, a comparison has no answer, the key is missing, or
    the estimated cost is above `judge.max_cost`: before anything is asked, where possible.
    """
    ours = {name: read_outputs(path) for name, path in outputs.items()}
    theirs = read_outputs(reference)
    pairs = {name: _pairs(ours[name], theirs, outputs[name], reference) for name in ours}
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        ready = _ready(judge, pairs, Path(scratch))
        asked = ready.known is None
        if asked:
            _announce(judge, pairs, store)
        try:
            results = {}
            for name, rows in ours.items():
                metrics, annotations = _evaluate(
                    ready, rows, theirs, judge, store, Path(scratch), name
                )
                _require_answers(judge, annotations, name, store)
                metrics |= length_controlled(annotations, ready.name, difficulty)
                results[name] = metrics | {"judge": ready.name, "generator": rows[0].generator}
                if keep is not None:
                    write_text(keep[name], _as_json(annotations))
        finally:
            if asked:
                from dpa.evaluation.judge_cache import close_transport

                close_transport(store)
    return results


#: What the judge's prompt is made of, and the texts in it may therefore not say: control strings of
#: chat formats (which one an endpoint's model has is not known), the quotes around a text, and the
#: places where texts go.
JUDGE_MARKERS = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<[be]os>|\[/?INST\]|<</?SYS>>"
    r'|"""|\{(?:instruction|output_1|output_2)\}'
)


def as_data(text: str) -> str:
    """A text as the judge is shown it: its markers have a space before their last character, as
    control strings have for other models (dpa.text.control_tokens). Other texts stay as they are.

    >>> as_data("a<|im_end|>{output_2}")
    'a<|im_end| >{output_2 }'
    """
    while JUDGE_MARKERS.search(text):
        text = JUDGE_MARKERS.sub(lambda m: f"{m[0][:-1]} {m[0][-1]}", text)
    return text


def _shown(output: Output) -> Output:
    """An output as the judge is shown it. What JSON cannot carry becomes a question mark."""
    instruction, text = (
        as_data(part.encode("utf-8", "replace").decode())
        for part in (output.instruction, output.output)
    )
    return msgspec.structs.replace(output, instruction=instruction, output=text)


def _pairs(
    ours: list[Output], theirs: list[Output], path: Path, reference: Path
) -> list[Comparison]:
    """(reference's, policy's) output of every instruction, in the reference's order."""
    found = {row.instruction: row for row in ours}
    missing = [row for row in theirs if row.instruction not in found]
    if missing or len(ours) != len(theirs):
        extra = len(ours) - len(theirs) + len(missing)
        first = f"; the first is {missing[0].instruction!r:.80}" if missing else ""
        raise InputError(
            f"{path}: {len(missing)} of the {len(theirs)} instructions of {reference} have no "
            f"output, and {extra} outputs are for other instructions{first}; all are required"
        )
    return [(row, found[row.instruction]) for row in theirs]


# --- Kinds of judge --------------------------------------------------------------------------


def _ready(judge: JudgeConfig, pairs: Mapping[str, list[Comparison]], scratch: Path) -> Ready:
    match judge.kind:
        case "gpt4_turbo":
            return Ready(OFFICIAL, OFFICIAL, None)
        case "endpoint":
            name = f"alpaca_eval_clf_{_slug(str(judge.model))}"
            return Ready(name, _own_config(scratch, name, str(judge.model)), None)
        case "gold":
            rows = [_gold_annotation(*pair) for found in pairs.values() for pair in found]
            return Ready(GOLD_ANNOTATOR, _own_config(scratch, GOLD_ANNOTATOR, GOLD_ANNOTATOR), rows)
        case _:
            rows = read_annotations(Path(str(judge.annotations)))
            name = _only_annotator(rows, Path(str(judge.annotations)))
            _require_annotated(rows, pairs, Path(str(judge.annotations)))
            config = OFFICIAL if name == OFFICIAL else _own_config(scratch, _slug(name), name)
            return Ready(name, config, rows)


def read_annotations(path: Path) -> list[AnnotationRow]:
    """Published annotations. Raises InputError unless each has outputs, annotator, preference."""
    rows = decode_json(read_document(path, MAX_LIST), str(path))
    needed = {"instruction", "output_1", "output_2", "annotator", "preference"}
    for number, row in enumerate(rows if isinstance(rows, list) else [None], 1):
        if not isinstance(row, dict) or needed - set(row):
            raise InputError(
                f"{path}: row {number} is not an annotation of AlpacaEval (an object with "
                f"{', '.join(sorted(needed))})"
            )
    return rows


def _only_annotator(rows: list[AnnotationRow], path: Path) -> str:
    names = sorted({str(row["annotator"]) for row in rows})
    if len(names) != 1:
        raise InputError(f"{path}: annotations of {names or 'nobody'}; give those of one annotator")
    return names[0]


def _require_annotated(
    rows: list[AnnotationRow], pairs: Mapping[str, list[Comparison]], path: Path
) -> None:
    known = {(row["instruction"], row["output_1"], row["output_2"]) for row in rows}
    for name, found in pairs.items():
        missing = [
            pair
            for pair in found
            if pair[0].output != pair[1].output
            and (pair[0].instruction, pair[0].output, pair[1].output) not in known
        ]
        if missing:
            raise InputError(
                f"{path}: no annotation for {len(missing)} of the {len(found)} comparisons of "
                f"{name}, the first is {missing[0][0].instruction!r:.80}; annotations belong to "
                "these very outputs and this reference: give those, or another judge"
            )


def _gold_annotation(theirs: Output, ours: Output) -> AnnotationRow:
    """The gold judge prefers the more helpful output, as its scorer sees both.

    Gold helpfulness is the mean of the four UltraFeedback scores (objective r1 of the paper). The
    preference is logistic in the difference, for the official annotator gives probabilities too.
    """
    from dpa.quickstart.world import gold_rewards

    helpful = [gold_rewards(theirs.instruction, row.output)[0] for row in (theirs, ours)]
    share = 1 / (1 + math.exp((helpful[0] - helpful[1]) / GOLD_SCALE))
    return {
        "instruction": theirs.instruction,
        "output_1": theirs.output,
        "output_2": ours.output,
        "annotator": GOLD_ANNOTATOR,
        "preference": 1 + share,
        "preference_raw_completion": json.dumps({"helpfulness": [round(h, 4) for h in helpful]}),
    }


def _own_config(scratch: Path, name: str, model: str) -> str:
    """An annotator like the official one, but for the model: the folder of its configuration."""
    from alpaca_eval import constants

    template = "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
    settings = {
        "prompt_template": str(constants.EVALUATORS_CONFIG_DIR / template),
        "fn_completions": "openai_completions",
        "completions_kwargs": {
            "model_name": model,
            "max_tokens": 1,
            "temperature": 1,
            "logprobs": True,
            "top_logprobs": 20,
            "requires_chatml": True,
            "price_per_token": 0,
        },
        "fn_completion_parser": "logprob_parser",
        "completion_parser_kwargs": {
            "numerator_token": "m",
            "denominator_tokens": ["m", "M"],
            "is_binarize": False,
        },
        "completion_key": "completions_all",
        "batch_size": 1,
    }
    folder = scratch / "annotators" / name
    write_text(folder / "configs.yaml", yaml.safe_dump({name: settings}))
    return str(folder)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_")


# --- What it costs ---------------------------------------------------------------------------


class Estimate(NamedTuple):
    """Comparisons that a judge has yet to make, with the tokens and US dollars that they take."""

    comparisons: int
    answered: int
    tokens: int
    dollars: float


def estimate(model: str, pairs: Sequence[Comparison], store: Path, paid: bool) -> Estimate:
    """What the comparisons that are not in the store will take."""
    from dpa.evaluation.judge_cache import judge_answers

    kept = judge_answers(store)
    todo = answered = characters = 0
    for theirs, ours in dict.fromkeys(
        tuple((row.instruction, row.output) for row in map(_shown, pair)) for pair in pairs
    ):
        if theirs[1] == ours[1]:
            continue
        # alpaca_eval draws the order of the two outputs from the instruction.
        asked = _messages(theirs[0], theirs[1], ours[1]), _messages(theirs[0], ours[1], theirs[1])
        if any(kept.has(model, messages) for messages in asked):
            answered += 1
        else:
            todo += 1
            characters += sum(len(message["content"]) for message in asked[0])
    tokens = round(characters / CHARACTERS_PER_TOKEN) + OVERHEAD_TOKENS * todo
    dollars = (tokens + 3 * todo) * OFFICIAL_PRICE if paid else 0.0
    return Estimate(todo, answered, tokens, dollars)


def _messages(instruction: str, output_1: str, output_2: str) -> list[dict[str, str]]:
    """What alpaca_eval asks for a comparison of texts that are data."""
    from alpaca_eval import constants, utils

    path = constants.EVALUATORS_CONFIG_DIR / "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"
    template = path.read_text()
    values = {"instruction": instruction, "output_1": output_1, "output_2": output_2}
    filled = re.sub(r"\{(instruction|output_1|output_2)\}", lambda m: values[m[1]], template)
    return utils.prompt_to_chatml(filled.strip())


def expected_dollars(judge: JudgeConfig, comparisons: int) -> float:
    """What so many comparisons will cost, from the size of published ones; 0 unless official."""
    official = judge.kind == "gpt4_turbo"
    return comparisons * TOKENS_PER_COMPARISON * OFFICIAL_PRICE if official else 0.0


def judge_problems(judge: JudgeConfig, comparisons: int) -> list[str]:
    """Why a judge could not judge that many comparisons: known before anything else is run."""
    found = []
    if judge.kind == "gpt4_turbo":
        if lacks_key(OFFICIAL_KEY):
            found.append(f"alpacaeval.judge: {OFFICIAL_KEY} is not in the environment")
        dollars = expected_dollars(judge, comparisons)
        if dollars > judge.max_cost:
            found.append(_too_expensive(dollars, judge.max_cost))
    if judge.kind == "endpoint" and lacks_key(judge.key_variable):
        found.append(f"alpacaeval.judge: {judge.key_variable} is not in the environment")
    if judge.kind == "annotations" and not Path(str(judge.annotations)).exists():
        found.append(f"alpacaeval.judge.annotations: {judge.annotations}: no such file")
    return found


def _too_expensive(dollars: float, limit: float) -> str:
    return (
        f"alpacaeval.judge: the official annotator would cost about ${dollars:.2f}, more than "
        f"alpacaeval.judge.max_cost allows (${limit:.2f}); raise it, choose another judge, or set "
        "alpacaeval to null"
    )


def _announce(judge: JudgeConfig, pairs: Mapping[str, list[Comparison]], store: Path) -> None:
    """Say what will be asked, and stop where it may not be."""
    from dpa.evaluation.judge_cache import transport

    official = judge.kind == "gpt4_turbo"
    model = OFFICIAL_MODEL if official else str(judge.model)
    cost = estimate(model, [p for found in pairs.values() for p in found], store, official)
    log.info(
        "%s compares %d pairs of %d output files (%d were answered before): about %d tokens, $%.2f",
        model, cost.comparisons, len(pairs), cost.answered, cost.tokens, cost.dollars,
    )  # fmt: skip
    if cost.comparisons and official and lacks_key(OFFICIAL_KEY):
        raise InputError(
            f"alpacaeval.judge: the official annotator needs a key in {OFFICIAL_KEY}; set it in "
            "the environment, choose another judge, or set alpacaeval to null"
        )
    if cost.dollars > judge.max_cost:
        raise InputError(_too_expensive(cost.dollars, judge.max_cost))
    progress = Progress(cost.comparisons, "comparisons")
    transport(store).on_answer = lambda: progress.advance(1)


# --- alpaca_eval -----------------------------------------------------------------------------


def _evaluate(
    ready: Ready,
    ours: list[Output],
    theirs: list[Output],
    judge: JudgeConfig,
    store: Path,
    scratch: Path,
    name: str,
) -> tuple[AnnotationRow, list[AnnotationRow]]:
    """alpaca_eval's metrics and annotations of one output file."""
    import alpaca_eval
    import openai

    # Always a file of its own: alpaca_eval rewrites it, and "auto" lies in site-packages.
    shown = (ours, theirs) if ready.known is not None else _all_shown(ours, theirs)
    cache = scratch / "cache.json"
    cache.unlink(missing_ok=True)
    if ready.known is not None:
        # One row per comparison, and only this file's: alpaca_eval joins on them.
        wanted = {row.instruction: row.output for row in ours}
        rows = {
            (row["instruction"], row["output_1"]): row
            | {"preference": MISSING if row["preference"] is None else row["preference"]}
            for row in ready.known
            if row["output_2"] == wanted.get(row["instruction"])
        }
        cache.write_text(json.dumps(list(rows.values())), encoding="utf-8")
    official = judge.kind == "gpt4_turbo"
    clients = scratch / "clients.yaml"
    client = {
        "client_class": "dpa.evaluation.judge_cache.CachingClient",
        "store": str(store),
        "key_variable": OFFICIAL_KEY if official else judge.key_variable,
        "base_url": judge.base_url,
    }
    clients.write_text(yaml.safe_dump({"default": [client]}))
    try:
        board, annotations = alpaca_eval.evaluate(
            model_outputs=[_row(row) for row in shown[0]],
            reference_outputs=[_row(row) for row in shown[1]],
            annotators_config=ready.config,
            name=name,
            caching_path=cache,
            precomputed_leaderboard=None,
            output_path=None,
            fn_metric="get_winrate",
            sort_by="win_rate",
            is_return_instead_of_print=True,
            annotation_kwargs={
                "chunksize": CHUNK if ready.known is None else len(theirs),
                "client_config_path": str(clients),
                "num_procs": judge.concurrency,
            },
        )
    except openai.OpenAIError as error:
        raise InputError(
            f"the judge failed: {redacted(str(error), client['key_variable'])}; what it has "
            f"answered is kept in {store}: rerun to resume"
        ) from None
    if len(annotations) != len(theirs):
        raise RuntimeError(f"{len(annotations)} annotations of {len(theirs)} comparisons")
    found = board.loc[name]
    counts = ("n_total", "n_wins", "n_wins_base", "n_draws", "avg_length")
    rates = ("win_rate", "standard_error", "discrete_win_rate")
    metrics = {key: float(found[key]) for key in rates} | {key: int(found[key]) for key in counts}
    if shown[0] is not ours:
        metrics["avg_length"] = int(sum(len(row.output) for row in ours) / len(ours))
        _restore(annotations, ours, theirs)
    return metrics, annotations


def _all_shown(ours: list[Output], theirs: list[Output]) -> tuple[list[Output], list[Output]]:
    """Both files as the judge is shown them. alpaca_eval joins them by instruction."""
    found = list(map(_shown, ours)), list(map(_shown, theirs))
    if len({row.instruction for row in found[1]}) < len(theirs):
        raise InputError(
            "two instructions differ only in how they spell markers of the judge's prompt; leave "
            "one of them out"
        )
    return found


def _restore(
    annotations: Sequence[AnnotationRow], ours: list[Output], theirs: list[Output]
) -> None:
    """Put the texts as they are in the place of those that the judge was shown."""
    own, reference = ({_shown(row).instruction: row for row in rows} for rows in (ours, theirs))
    for annotation in annotations:
        theirs_row = reference[annotation["instruction"]]
        ours_row = own[annotation["instruction"]]
        annotation["instruction"] = theirs_row.instruction
        annotation["output_1"], annotation["output_2"] = theirs_row.output, ours_row.output


def _row(output: Output) -> AnnotationRow:
    return {
        "instruction": output.instruction,
        "output": output.output,
        "generator": output.generator,
        "dataset": output.dataset,
    }


def _unanswered(annotations: Sequence[AnnotationRow]) -> list[AnnotationRow]:
    return [
        row
        for row in annotations
        if row.get("preference") is None or math.isnan(float(row["preference"]))
    ]


def _require_answers(
    judge: JudgeConfig, annotations: Sequence[AnnotationRow], name: str, store: Path
) -> None:
    """Comparisons without a preference are left out, as the leaderboard does: a text that keeps a
    judge from a verdict must not end the judging. Raises InputError where it is too many."""
    missing = _unanswered(annotations)
    if not missing:
        return
    if judge.kind == "annotations":
        log.warning(
            "%s: %d of %d annotations have no preference and are left out, as the leaderboard does",
            name, len(missing), len(annotations),
        )  # fmt: skip
        return
    from dpa.evaluation.judge_cache import transport

    key = OFFICIAL_KEY if judge.kind == "gpt4_turbo" else judge.key_variable
    why = redacted(transport(store).refused, key)
    what = (
        f"{name}: the judge gave no verdict (m or M among its likeliest tokens) on {len(missing)} "
        f"of {len(annotations)} comparisons, the first is {missing[0]['instruction']!r:.80}"
        f"{f' (its server says: {why})' if why else ''}"
    )
    if len(missing) > MAX_WITHOUT_VERDICT * len(annotations):
        raise InputError(f"{what}; run again to ask for these only, or choose a stronger judge")
    log.warning("%s; they are left out: run again to ask for them", what)


def length_controlled(
    annotations: Sequence[AnnotationRow], annotator: str, difficulty: Path | None
) -> dict[str, Any]:
    """AlpacaEval's length-controlled win rate, or null and the reason why there is none.

    Official or nothing: it is defined for the official annotator, instructions and reference, and
    needs how the annotator judges gamed lengths (df_gamed.csv); nothing else can stand in for that.
    """
    absent = {"length_controlled_win_rate": None, "length_controlled_standard_error": None}
    generators = {row.get("generator_1") for row in annotations}
    if annotator != OFFICIAL:
        return absent | {"length_controlled_reason": f"only defined for the annotator {OFFICIAL}"}
    if generators != {OFFICIAL_REFERENCE} or len(annotations) != OFFICIAL_PROMPTS:
        reason = f"only defined on {OFFICIAL_PROMPTS} instructions against {OFFICIAL_REFERENCE}"
        return absent | {"length_controlled_reason": reason}
    path = difficulty or _cached_difficulty()
    if path is None:
        reason = (
            "df_gamed.csv of the hub data set tatsu-lab/alpaca_eval is not in the hub's cache; "
            "give its path (alpacaeval.difficulty)"
        )
        return absent | {"length_controlled_reason": reason}
    if not path.exists():
        raise InputError(f"{path}: no such file; AlpacaEval's df_gamed.csv is wanted")
    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    downloading = glm_winrate.hf_hub_download
    glm_winrate.hf_hub_download = lambda **_: str(path)
    try:
        found = glm_winrate.get_length_controlled_winrate(
            pd.DataFrame(annotations), save_weights_dir=None, is_add_glm_preference_inplace=False
        )
    finally:
        glm_winrate.hf_hub_download = downloading
    return {
        "length_controlled_win_rate": float(found["length_controlled_winrate"]),
        "length_controlled_standard_error": float(found["lc_standard_error"]),
        "length_controlled_reason": "",
    }


def _cached_difficulty() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache("tatsu-lab/alpaca_eval", "df_gamed.csv", repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def _as_json(annotations: Sequence[AnnotationRow]) -> str:
    """AlpacaEval's annotations file; JSON has no NaN."""
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in annotations
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False, default=str) + "\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what alpaca_eval logs for every comparison; it lowers the root logger's level."""
    root = logging.getLogger()
    level = root.level

    def ours(record: logging.LogRecord) -> bool:
        return record.name not in ("root", "openai", "httpx2") or record.levelno >= logging.CRITICAL

    handlers = list(root.handlers)
    for handler in handlers:
        handler.addFilter(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for handler in handlers:
                handler.removeFilter(ours)
            root.setLevel(level)
