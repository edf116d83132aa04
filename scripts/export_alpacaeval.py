"""Write sampled responses as output files of AlpacaEval, for any judge of outputs.

Rule: export_alpacaeval. Example:

    python -m scripts.export_alpacaeval --samples alpacaeval/sampled/dpa-4.jsonl \
        --prompts alpacaeval/prompts.jsonl --output alpacaeval/outputs

Writes <policy>/<direction_index>.json with instruction, output, generator and dataset; -1 is the
index of a policy that takes no direction.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputFolderOption, PromptsOption, SampleFilesOption

app = make_app()


@app.command()
def main(
    samples: SampleFilesOption,
    prompts: PromptsOption,
    output: OutputFolderOption,
) -> None:
    """Write sampled responses as output files of AlpacaEval."""
    from dpa.evaluation.alpacaeval import export_outputs

    export_outputs(samples, prompts, output)


if __name__ == "__main__":
    run_app(app)
