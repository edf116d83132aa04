"""The invariants of the method on the rules' own commands, on a miniature run.

That held-out prompts are nowhere in training data: test_run.py. Kill and resume of every stage:
tests/faults. The same invariants on the library, with golden numbers: tests/unit.
"""

import json
import random
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dpa.artefacts.jsonl import read_jsonl, write_jsonl
from dpa.directions import scalar_reward
from dpa.records import Annotation, Prompt, ScoredSample, Selected
from dpa.text.prompts import direction_system_prompt, messages, parse_direction
from tests.support.faults import GRADIENTS
from tests.support.finished_run import RUN

NAMES = ["helpfulness", "verbosity"]
#: Rewards are on 0-100; float32 sums in another order differ in the fourth decimal.
TOLERANCE = 2e-3


@pytest.mark.parametrize("shards", [1, 7])
@pytest.mark.slow
def test_selected_data_does_not_depend_on_shards_order_or_a_kill(finished_run, tmp_path, shards):
    folder = finished_run.copy(tmp_path)
    sample, score, annotate = (
        finished_run.command(script, part)
        for script, part in (
            ("sample_responses", "dpa/iter2-0"),
            ("score_responses", "dpa/iter2-0"),
            ("annotate_responses", "/0"),
        )
    )
    select = finished_run.command("select_responses", "dpa/iter2")
    order = random.Random(shards).sample(range(shards), shards)
    scored, annotated = [], []
    for shard in order:
        number = {"shard": str(shard), "shards": str(shards)}
        sampled = f"{RUN}/again/sampled/{shard}.jsonl"
        scored.append(f"{RUN}/again/scored/{shard}.jsonl")
        annotated.append(f"{RUN}/again/annotations/{shard}.jsonl")
        sampling = sample.changed(**number, output=sampled)
        if shard == order[0]:
            job = finished_run.processes.start(sampling.script, sampling.arguments, folder)
            partial = folder / f"{sampled}.partial"
            while not (partial.exists() and partial.stat().st_size):
                time.sleep(0.001)
            job.kill()
            assert job.wait().code in (0, -signal.SIGKILL)
        finished_run.complete(sampling, folder)
        finished_run.complete(score.changed(samples=sampled, output=scored[-1]), folder)
        finished_run.complete(annotate.changed(**number, output=annotated[-1]), folder)
    selecting = select.changed(scored=scored, annotations=sorted(annotated))
    finished_run.complete(selecting, folder)
    finished_run.same(select, folder)


def rewards_by_sample(path: Path) -> dict[tuple, list[float]]:
    return {
        (r.prompt_id, r.direction_index, r.sample_index): r.rewards
        for r in read_jsonl(path, ScoredSample)
    }


def left_padding(folder: Path) -> None:
    path = folder / RUN / "reward_model/model/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))


def lone_samples(folder: Path) -> None:
    """One response per prompt: nothing to share."""
    path = folder / RUN / "dpa/iter2/sampled/0.jsonl"
    path.with_name("0.jsonl.meta.json").unlink()
    lines = path.read_text().splitlines(keepends=True)
    firsts = {json.loads(line)["prompt_id"]: line for line in lines}
    path.write_text("".join(firsts.values()))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda folder: None, {"tokens_per_batch": "1"}),
        (lambda folder: None, {"tokens_per_batch": "300"}),
        (left_padding, {}),
        (lone_samples, {}),
    ],
    ids=["row by row", "small batches", "padding on the left", "nothing to share"],
)
def test_rewards_do_not_depend_on_the_batch(finished_run, tmp_path, change, options):
    score = finished_run.command("score_responses", "dpa/iter2-0")
    folder = finished_run.copy(tmp_path, without=[score])
    change(folder)
    finished_run.complete(score.changed(**options), folder)
    expected = rewards_by_sample(finished_run.folder / score.value("--output"))
    found = rewards_by_sample(folder / score.value("--output"))
    assert len(found) in (len(expected), 4)
    for key, rewards in found.items():
        assert rewards == pytest.approx(expected[key], abs=TOLERANCE)


def test_packed_training_has_the_loss_and_gradients_of_unpacked(finished_run, tmp_path):
    """All rows in one optimiser step, in sequences of their own or packed."""
    tune = finished_run.command("finetune_policy", "dpa/iter2")
    folder = finished_run.copy(tmp_path)
    schedule = json.loads(tune.value("--schedule")) | {"batch_size": 64, "epochs": 1}
    row_counts, gradients = [], []
    for packing in (False, True):
        trainer = json.loads(tune.value("--trainer")) | {
            "packing": packing,
            "per_device_batch_size": 64,
        }
        output = f"{RUN}/packing/{packing}/policy"
        kept = tmp_path / f"{packing}.npz"
        finished_run.complete(
            tune.changed(schedule=json.dumps(schedule), trainer=json.dumps(trainer), output=output),
            folder,
            fault="tests.support.faults:keep_gradients",
            environment={GRADIENTS: str(kept)},
        )
        row_counts.append(json.loads((folder / f"{output}.meta.json").read_text())["train_loss"])
        gradients.append(dict(np.load(kept)))
    assert row_counts[1] == pytest.approx(row_counts[0], abs=2e-5)
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) >= 20
    for name, unpacked in gradients[0].items():
        scale = np.abs(unpacked).max()
        np.testing.assert_allclose(gradients[1][name], unpacked, atol=1e-4 * scale, err_msg=name)


def scored_by_direction(folder: Path, iteration: int) -> dict[tuple[str, int], list[ScoredSample]]:
    found: dict[tuple[str, int], list[ScoredSample]] = {}
    for path in sorted((folder / RUN / f"dpa/iter{iteration}/scored").glob("*.jsonl")):
        for record in read_jsonl(path, ScoredSample):
            found.setdefault((record.prompt_id, record.direction_index), []).append(record)
    return found


@pytest.mark.parametrize("iteration", [1, 2])
def test_the_chosen_response_is_the_best_and_the_first_of_equals(finished_run, iteration):
    candidates = scored_by_direction(finished_run.folder, iteration)
    annotations: dict[str, list[Annotation]] = {}
    for path in sorted((finished_run.folder / RUN / "annotations").glob("*.jsonl")):
        for record in read_jsonl(path, Annotation):
            annotations.setdefault(record.prompt_id, []).append(record)
    rows = read_jsonl(finished_run.folder / RUN / f"dpa/iter{iteration}/selected.jsonl", Selected)
    seen: dict[str, int] = {}
    for row in rows:
        if row.origin == "sampled":
            index = seen.setdefault(row.prompt_id, 0)
            seen[row.prompt_id] += 1
            own = candidates[row.prompt_id, -1 if iteration == 1 else index]
            own = sorted(own, key=lambda r: r.sample_index)
            own = [r for r in own if r.finish_reason == "stop"] or own
        else:
            own = annotations[row.prompt_id]
        scores = [scalar_reward(row.direction, candidate.rewards) for candidate in own]
        assert row.candidates == len(own)
        assert row.response == own[scores.index(max(scores))].response
        assert row.scalar_reward == pytest.approx(max(scores), abs=1e-6)
    assert set(seen.values()) == {2}
    assert len(seen) == 8


def test_more_candidates_never_lower_the_chosen_reward(finished_run, tmp_path):
    """The selection's own command on the first one, two and all three responses."""
    select = finished_run.command("select_responses", "dpa/iter2")
    folder = finished_run.copy(tmp_path)
    chosen = []
    for n in (1, 2, 3):
        paths = []
        for shard in (0, 1):
            whole = folder / RUN / f"dpa/iter2/scored/{shard}.jsonl"
            # As if all had ended: a truncated one is chosen only among truncated ones.
            records = [
                msgspec.structs.replace(record, finish_reason="stop")
                for record in read_jsonl(whole, ScoredSample)
                if record.sample_index < n
            ]
            paths.append(f"{RUN}/fewer/{n}/{shard}.jsonl")
            write_jsonl(folder / paths[-1], records)
        output = f"{RUN}/fewer/{n}.jsonl"
        command = select.changed(
            scored=paths, responses_per_direction=str(n), replay_fraction="0", output=output
        )
        finished_run.complete(command, folder)
        chosen.append([row.scalar_reward for row in read_jsonl(folder / output, Selected)])
    assert len(chosen[0]) == len(chosen[2]) == 16
    assert all(few <= more for few, more in zip(chosen[0], chosen[1], strict=True))
    assert all(few <= more for few, more in zip(chosen[1], chosen[2], strict=True))
    assert chosen[0] != chosen[2]


def test_directions_round_trip_through_what_the_policy_reads(finished_run):
    """From the tokens of the prompt, as sampling counts them, back to the weights."""
    from dpa.text.tokenization import ChatTokenizer

    run = finished_run.folder / RUN
    chat = ChatTokenizer.load(run / "dpa/iter1/policy")
    prompts = {p.prompt_id: p.prompt for p in read_jsonl(run / "data/prompts/d2.jsonl", Prompt)}
    records = [r[0] for r in scored_by_direction(finished_run.folder, 2).values()]
    assert len(records) == 16
    for record in records:
        assert record.direction is not None
        system = direction_system_prompt(NAMES, record.direction)
        ids = chat.prompt_ids(messages(prompts[record.prompt_id], system))
        assert len(ids) == record.prompt_tokens
        text = chat.tokenizer.decode(ids)
        read = text.split("<|user|>")[0].removesuffix(chat.tokenizer.eos_token)
        weights = parse_direction(NAMES, read)
        assert weights == pytest.approx(record.direction, abs=0.005 + 1e-9)
