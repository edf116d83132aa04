"""Check that a quickstart run shows what the paper claims: each fact, its bound and its value.

Rule: check_quickstart. Example:

    python -m scripts.check_quickstart --run results/quickstart --hypervolume-reference 0,100

Fails when a fact fails. A line says whether gold fell from an iteration to the last: with one
reward model for all iterations it may, which is no failure.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import ReferenceOption, RunsOption

app = make_app()


@app.command()
def main(
    run: RunsOption,
    hypervolume_reference: ReferenceOption,
) -> None:
    """Check that quickstart runs show what the paper claims."""
    from dpa.errors import InputError
    from dpa.evaluation.quickstart_claims import describe_gold, run_claims
    from dpa.evaluation.validation import read_validation_rewards

    reference = [float(value) for value in hypervolume_reference.split(",")]
    total, failed = 0, []
    for folder in run:
        print(folder)
        for fact in run_claims(folder, reference):
            sign = ">" if fact.above else "<="
            verdict = "ok  " if fact.holds else "FAIL"
            print(f"{verdict} {fact.value:8.3f} {sign:>2} {fact.bound:6.2f}  {fact.name}")
            total += 1
            failed += [] if fact.holds else [f"{fact.name} ({folder})"]
        print(describe_gold(read_validation_rewards(folder / "evaluation/validation_rewards.csv")))
    if failed:
        raise InputError(f"{len(failed)} of {total} facts do not hold: {'; '.join(failed)}")
    print(f"all {total} facts hold")


if __name__ == "__main__":
    run_app(app)
