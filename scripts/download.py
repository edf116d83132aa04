"""Fetch everything that an experiment needs from the hub, for jobs on nodes without internet.

No rule: for people, where the hub can be reached. Example:

    python -m scripts.download --experiment mistral-7b

fills the hub's cache (HF_HOME) with the models and data sets at the experiment's commits; what is
there already is not fetched again. Jobs find it with the same HF_HOME, and with HF_HUB_OFFLINE=1
they ask no server.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import ExperimentOption

app = make_app()


@app.command()
def main(
    experiment: ExperimentOption,
) -> None:
    """Fetch everything that an experiment needs from the hub."""
    from dpa.config.base import ModelConfig
    from dpa.config.data import SourceConfig
    from dpa.config.load import load_config
    from dpa.config.revisions import LOCKED
    from dpa.errors import InputError
    from dpa.plan.preflight import fetch, given_models, hub_data_sets
    from dpa.runtime.run_environment import RunEnvironment

    config = load_config({"experiment": experiment})
    RunEnvironment(trust_remote_code=tuple(config.trust_remote_code)).announce()
    models = [model for _, model in given_models(config)]
    wanted: list[ModelConfig | SourceConfig] = [*models, *hub_data_sets(config)]
    if open_ones := [item.path for item in wanted if item.revision == LOCKED]:
        raise InputError(
            f"without a commit: {', '.join(map(str, open_ones))}; run `snakemake --cores 1 "
            f"lock_revisions --config experiment={experiment}` first"
        )
    for number, item in enumerate(wanted, 1):
        log.info("%d/%d %s", number, len(wanted), item.path)
        fetch(item, reference=config.alpacaeval is not None and item == config.alpacaeval.reference)


if __name__ == "__main__":
    run_app(app)
