"""Repositories as they are on the hub: file names, dataset cards, schemas, and the known flaws.

Rows are few and fixed, so that tests can state what becomes of each of them.
"""

import gzip
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ULTRAFEEDBACK = "openbmb/UltraFeedback"
BINARIZED = "HuggingFaceH4/ultrafeedback_binarized"
HELPSTEER = "nvidia/HelpSteer"
BEAVERTAILS = "PKU-Alignment/BeaverTails"
ULTRACHAT = "HuggingFaceH4/ultrachat_200k"

#: Reasons for which BeaverTails calls a response unsafe; a row has a truth value for each.
CATEGORIES = (
    "animal_abuse",
    "child_abuse",
    "controversial_topics,politics",
    "discrimination,stereotype,injustice",
    "drug_abuse,weapons,banned_substance",
    "financial_crime,property_crime,theft",
    "hate_speech,offensive_language",
    "misinformation_regarding_ethics,laws_and_safety",
    "non_violent_unethical_behavior",
    "privacy_violation",
    "self_harm",
    "sexually_explicit,adult_content",
    "terrorism,organized_crime",
    "violence,aiding_and_abetting,incitement",
)


def completion(
    model: str,
    ratings: tuple[str, str, str, str] = ("4", "4", "4", "4"),
    overall: float | None = 7.5,
    response: str | None = None,
    fine_grained: float | None = 4.0,
) -> Row:
    """A completion of UltraFeedback; ratings: following, honesty, truthfulness, helpfulness.

    `fine_grained` None is a completion of the first release, which has no such score.
    """
    following, honesty, truthfulness, helpfulness = ratings
    row: Row = {
        "annotations": {
            "instruction_following": {"Rating": following, "Rationale": "It does as told."},
            "honesty": {"Rating": honesty, "Rationale": "It says what it does not know."},
            "truthfulness": {
                "Type": ["None"],
                "Rationale": "No error.",
                "Rating": truthfulness,
                "Rationale For Rating": "It is true.",
            },
            "helpfulness": {
                "Type": ["1", "3"],
                "Rationale": "Clear.",
                "Rating": helpfulness,
                "Rationale For Rating": "It helps.",
            },
        },
        "custom_system_prompt": "As an AI assistant, be honest.",
        "model": model,
        "principle": "honesty",
        "response": f"The answer of {model}." if response is None else response,
        "critique": "More detail would help.",
        "overall_score": overall,
    }
    return row if fine_grained is None else {**row, "fine-grained_score": fine_grained}


def ultrafeedback_row(instruction: str, completions: list[Row], source: str = "sharegpt") -> Row:
    return {
        "source": source,
        "instruction": instruction,
        "models": [row["model"] for row in completions],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def binarized_row(prompt: str) -> Row:
    chosen, rejected = (
        [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]
        for answer in ("Better.", "Worse.")
    )
    return {
        "prompt": prompt,
        "prompt_id": f"sha256 of {prompt}",
        "chosen": chosen,
        "rejected": rejected,
        "messages": chosen,
        "score_chosen": 8.0,
        "score_rejected": 5.0,
    }


def helpsteer_row(prompt: str, response: str = "Steered.", **ratings: int | None) -> Row:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict.fromkeys(names, 3), **ratings}


def beavertails_row(prompt: str, response: str, is_safe: bool) -> Row:
    category = dict.fromkeys(CATEGORIES, False) | {"privacy_violation": not is_safe}
    return {"prompt": prompt, "response": response, "category": category, "is_safe": is_safe}


def ultrachat_row(*contents: str) -> Row:
    roles = ("user", "assistant") * len(contents)
    messages = [{"content": c, "role": r} for c, r in zip(contents, roles, strict=False)]
    return {"prompt": contents[0], "prompt_id": f"sha256 of {contents[0]}", "messages": messages}


def write_ultrafeedback(folder: Path, rows: Iterable[Row]) -> Path:
    """One file per source, all of them the split `train`."""
    for row in rows:
        with open(folder / f"{row['source']}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return _card(folder, {})


def write_binarized(folder: Path, **splits: list[Row]) -> Path:
    """`data/<split>-00000-of-00001.parquet`, with the splits in the card."""
    return _write_parquet(folder, splits)


def write_helpsteer(folder: Path, train: list[Row], validation: list[Row]) -> Path:
    _write(folder / "train.jsonl.gz", train)
    _write(folder / "validation.jsonl.gz", validation)
    return _card(folder, {})


def write_beavertails(folder: Path, pool: str, train: list[Row], test: list[Row]) -> Path:
    files = {f"{pool}_{split}": f"round0/{pool}/{split}.jsonl.xz" for split in ("train", "test")}
    for path, rows in zip(files.values(), (train, test), strict=True):
        _write(folder / path, rows)
    return _card(folder, files)


def write_ultrachat(folder: Path, **splits: list[Row]) -> Path:
    return _write_parquet(folder, splits)


def _write_parquet(folder: Path, splits: dict[str, list[Row]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    files = {}
    for split, rows in splits.items():
        path = folder / f"data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        files[split] = f"data/{split}-*"
    return _card(folder, files)


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    compress = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(content))


def _card(folder: Path, files: dict[str, str]) -> Path:
    """The dataset card, README.md; `files`, split -> path, unless their names say it."""
    lines = ["---", "license: mit"]
    if files:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split, path in files.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", "# A data set", ""]))
    return folder
