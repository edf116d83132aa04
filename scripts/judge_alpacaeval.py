"""Judge outputs against reference outputs as AlpacaEval 2 does: win rate, length, both with errors.

Rule: judge_alpacaeval. Example (the leaderboard's numbers of a published model, offline):

    python -m scripts.judge_alpacaeval --outputs model_outputs.json \
        --reference reference_outputs.json --annotations annotations.json --output result.json

Example (your own outputs, judged by a model that a local server serves):

    python -m scripts.judge_alpacaeval --outputs model_outputs.json \
        --reference reference_outputs.json --output result.json --keep annotations.json \
        --judge '{"kind": "endpoint", "model": "judge", "base_url": "http://localhost:8000/v1"}'

Files are in AlpacaEval's own JSON format. --outputs may be a folder: every .json below it is
judged, --output then has the results by relative path, --keep is a folder with their annotations.
Answers of a judge that is asked are kept in --store, and no comparison is asked for twice. Keys are
read from the environment (OPENAI_API_KEY for the official annotator) and written nowhere.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    outputs: Annotated[Path, typer.Option(help="model_outputs.json, or a folder of such files.")],
    reference: Annotated[Path, typer.Option(help="reference_outputs.json")],
    output: Annotated[Path, typer.Option(help="JSON to write.")],
    annotations: Annotated[Path | None, typer.Option(help="Published annotations.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="config.yaml's alpacaeval.judge (JSON).")
    ] = None,
    difficulty: Annotated[
        Path | None, typer.Option(help="AlpacaEval's df_gamed.csv; default: the hub's cache.")
    ] = None,
    store: Annotated[Path, typer.Option(help="Where answers are kept.")] = Path(
        "results/judgements"
    ),
    keep: Annotated[Path | None, typer.Option(help="Annotations to write.")] = None,
) -> None:
    """Judge outputs against reference outputs as AlpacaEval 2 does."""
    import json

    from dpa.artefacts.files import save_folder, write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.benchmarks import JudgeConfig
    from dpa.errors import InputError
    from dpa.evaluation.alpacaeval import output_files
    from dpa.evaluation.alpacaeval_judges import judge_outputs

    if (annotations is None) == (judge is None):
        raise InputError("give either --annotations (published ones) or --judge")
    if judge is not None:
        by = parse(JudgeConfig, judge, "judge")
    else:
        by = JudgeConfig(kind="annotations", annotations=str(annotations))
    files = output_files(outputs)
    inputs: list[Path | str] = [outputs, reference]
    inputs += [by.annotations] if by.annotations else []

    def judged(places: dict[str, Path] | None) -> dict[str, dict]:
        return judge_outputs(files, reference, by, store=store, difficulty=difficulty, keep=places)

    def compared(results: dict[str, dict]) -> RowCounts:
        return RowCounts.none(sum(found["n_total"] for found in results.values()))

    if not outputs.is_dir():
        (name,) = files
        places = {name: keep} if keep else None
        results = judged(places)
        write_text(output, json.dumps(results[name], indent=1) + "\n")
    else:
        results = {}
        if keep is None:
            results = judged(None)
        else:
            save_folder(keep, lambda f: results.update(judged({n: f / f"{n}.json" for n in files})))
            rows = compared(results)
            write_sidecar(keep, inputs, rows, counted_in=output.name, files=len(files))
        write_text(output, json.dumps(results, indent=1) + "\n")
    write_sidecar(
        output, inputs, compared(results), judge=by.model_dump(exclude={"concurrency", "max_cost"})
    )
    for name, found in results.items():
        log.info(
            "%s: win rate %.2f %% (standard error %.2f), %d characters, %d comparisons",
            name, found["win_rate"], found["standard_error"], found["avg_length"], found["n_total"],
        )  # fmt: skip


if __name__ == "__main__":
    run(app, sklearn=True)  # of alpaca_eval
