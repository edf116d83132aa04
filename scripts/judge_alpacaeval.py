"""Judge outputs against reference outputs as AlpacaEval 2 does: win rate, length, both with errors.

Rule: judge_alpacaeval. Example (the leaderboard's numbers of a published model, offline):

    python -m scripts.judge_alpacaeval --model-outputs model_outputs.json \
        --reference-outputs reference_outputs.json --published-annotations annotations.json \
        --output result.json

Example (your own outputs, judged by a model that a local server serves):

    python -m scripts.judge_alpacaeval --model-outputs model_outputs.json \
        --reference-outputs reference_outputs.json --output result.json \
        --output-annotations annotations.json \
        --judge '{"kind": "endpoint", "model": "judge", "base_url": "http://localhost:8000/v1"}'

Files are in AlpacaEval's own JSON format. --model-outputs may be a folder: every .json below
it is judged, --output then has the results by relative path, --output-annotations is a folder.
Answers of a judge that is asked are kept in --cache, and no comparison is asked for twice. Keys are
read from the environment (OPENAI_API_KEY for the official annotator) and written nowhere.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import EITHER, CacheOption, OutputOption
from dpa.runtime.run_environment import ANSWERS
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    model_outputs: Annotated[
        Path, typer.Option(help="Outputs in AlpacaEval's format: a file, or a folder of files.")
    ],
    reference_outputs: Annotated[Path, typer.Option(help="The reference's outputs, likewise.")],
    output: OutputOption,
    published_annotations: Annotated[Path | None, typer.Option(help="In place of a judge.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="config.yaml's alpacaeval.judge (JSON, or @file).")
    ] = None,
    difficulty: Annotated[
        Path | None, typer.Option(help="AlpacaEval's df_gamed.csv; default: the hub's cache.")
    ] = None,
    cache: CacheOption = ANSWERS,
    output_annotations: Annotated[
        Path | None, typer.Option(help="Annotations that are written."), EITHER
    ] = None,
) -> None:
    """Judge outputs against reference outputs as AlpacaEval 2 does."""
    import json

    from dpa.artefacts.outputs import save_folder, write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.benchmarks import JudgeConfig
    from dpa.errors import InputError
    from dpa.evaluation.alpacaeval import output_files, read_outputs
    from dpa.evaluation.alpacaeval_judges import judge_outputs

    if (published_annotations is None) == (judge is None):
        raise InputError("give either --published-annotations or --judge")
    if judge is not None:
        by = read_section(JudgeConfig, judge, "judge")
    else:
        by = JudgeConfig(kind="annotations", annotations=str(published_annotations))
    files = output_files(model_outputs)
    inputs: list[Path | str] = [model_outputs, reference_outputs]
    inputs += [by.annotations] if by.annotations else []

    def judged(places: dict[str, Path] | None) -> dict[str, dict]:
        return judge_outputs(
            files, reference_outputs, by, store=cache, difficulty=difficulty, keep=places
        )

    def compared(results: dict[str, dict]) -> RowCounts:
        rows = RowCounts.all_kept(len(files) * len(read_outputs(reference_outputs)))
        rows.drop("without a verdict", rows=rows.read - sum(r["n_total"] for r in results.values()))
        return rows

    if not model_outputs.is_dir():
        (name,) = files
        places = {name: output_annotations} if output_annotations else None
        results = judged(places)
        write_text(output, json.dumps(results[name], indent=1) + "\n")
    else:
        results = {}
        if output_annotations is None:
            results = judged(None)
        else:
            save_folder(
                output_annotations,
                lambda f: results.update(judged({n: f / f"{n}.json" for n in files})),
            )
            rows = compared(results)
            write_sidecar(
                output_annotations, inputs, rows, counted_in=output.name, files=len(files)
            )
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
    run_app(app, sklearn=True)  # of alpaca_eval
