"""The bootstrap and the statistics on its replicates; numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest

from dpa.errors import InputError
from dpa.evaluation import bootstrap
from dpa.evaluation.bootstrap import (
    PolicyPoints,
    common_prompts,
    controls,
    dominances,
    draw_clusters,
    draw_prompts,
    hypervolumes,
    improvements,
    infeasible_shares,
    interval,
    mean_and_error,
    mean_scalar_rewards,
    over_seeds,
    policy_points,
    read_prompt_rewards,
    replicate,
)
from dpa.evaluation.validation import front_hypervolume, mean_scalar_reward

NAMES = ["helpfulness", "verbosity"]
ABC = ["a", "b", "c"]


def rows(method, iteration, points, prompts=ABC, directions=None, conditions=None):
    """Rows of prompt_rewards: prompt j is rated j points above the given ones."""
    for index, point in enumerate(points):
        asked = {"v": directions, "c": conditions}
        for j, prompt in enumerate(prompts):
            yield {
                "method": method, "iteration": iteration, "seed": 0, "prompt_id": prompt,
                "cluster": prompt, "unseen": False,
                "direction_index": index if directions or conditions else -1,
                **{f"{p}_{n}": a[index][i] if a else None
                   for p, a in asked.items() for i, n in enumerate(NAMES)},
                **{f"r_{n}": point[i] + j for i, n in enumerate(NAMES)},
                "tokens": 9.0, "n": 2,
            }  # fmt: skip


def make_table(*policies):
    table = pd.DataFrame([row for policy in policies for row in policy])
    return table.astype({"iteration": "Int64"})


def table_of_two():
    return make_table(
        rows("dpa", 1, [(80, 40), (70, 20)], directions=[(1.0, 0.0), (0.8, -0.6)]),
        rows("sft", None, [(50, 50)]),
        rows("steerlm", None, [(62, 31)], conditions=[(60.0, 20.0)]),
    )


# --- From the table to arrays ----------------------------------------------------------------


def test_points_of_a_policy():
    rewards, directions, conditions = policy_points(table_of_two(), "dpa", 1, NAMES, "r", ABC)
    assert rewards.tolist() == [
        [[80, 40], [70, 20]],
        [[81, 41], [71, 21]],
        [[82, 42], [72, 22]],
    ]
    assert directions.tolist() == [[1, 0], [0.8, -0.6]]
    assert conditions is None
    sft = policy_points(table_of_two(), "sft", None, NAMES, "r", ABC)
    assert (sft.directions, sft.conditions) == (None, None)
    steerlm = policy_points(table_of_two(), "steerlm", None, NAMES, "r", ABC)
    assert steerlm.conditions.tolist() == [[60, 20]]


def test_points_do_not_depend_on_the_order_of_rows():
    table = table_of_two()
    shuffled = table.sample(frac=1, random_state=3)
    assert common_prompts(shuffled) == common_prompts(table) == ABC
    for method, iteration in (("dpa", 1), ("sft", None)):
        one, two = (
            policy_points(t, method, iteration, NAMES, "r", ABC).rewards for t in (table, shuffled)
        )
        assert one.tolist() == two.tolist()


def test_only_common_prompts_count():
    short = rows("dpo", None, [(60, 40)], prompts="ac")
    assert common_prompts(make_table(rows("sft", None, [(50, 50)]), short)) == ["a", "c"]
    other = rows("dpo", None, [(60, 40)], prompts="de")
    with pytest.raises(InputError, match="same prompts"):
        common_prompts(make_table(rows("sft", None, [(50, 50)]), other))


def test_a_missing_policy_is_named():
    with pytest.raises(InputError, match="dpa, iteration 2"):
        policy_points(table_of_two(), "dpa", 2, NAMES, "r", ABC)
    with pytest.raises(InputError, match="sft: rewards are missing"):
        policy_points(table_of_two(), "sft", None, NAMES, "r", [*ABC, "d"])


def test_broken_tables_are_named(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(InputError, match=r"p\.parquet.*rerun"):
        read_prompt_rewards(path, NAMES)
    table_of_two().to_parquet(path)
    assert len(read_prompt_rewards(path, NAMES)) == 12
    more = make_table(rows("sft", None, [(99, 99)], prompts=["d"])).assign(unseen=True)
    pd.concat([table_of_two(), more]).to_parquet(path)
    assert read_prompt_rewards(path, NAMES)["prompt_id"].isin(ABC).all()
    table_of_two().to_parquet(path)
    with pytest.raises(InputError, match="r_harmlessness"):
        read_prompt_rewards(path, [*NAMES, "harmlessness"])
    pd.concat([table_of_two(), table_of_two().tail(1)]).to_parquet(path)
    with pytest.raises(InputError, match=r"two rows for .*steerlm"):
        read_prompt_rewards(path, NAMES)
    table_of_two().replace("steerlm", "theirs").to_parquet(path)
    with pytest.raises(InputError, match=r"\['theirs'\] are no methods of ours.*figures\.extra"):
        read_prompt_rewards(path, NAMES)
    path.write_text("no parquet")
    with pytest.raises(InputError, match=r"p\.parquet"):
        read_prompt_rewards(path, NAMES)


# --- Bootstrap -------------------------------------------------------------------------------


def test_draws_are_the_same_for_the_same_clusters():
    clusters = ["x", "x", "y", "z", "z", "z"]
    draws = draw_clusters([clusters], replicates=50)
    assert draws.names == ["x", "y", "z"]
    assert draws.counts[0].tolist() == [1, 1, 1]
    # One fewer than there are.
    assert set(draws.counts[1:].sum(axis=1)) == {2}
    assert (draws.counts == draw_clusters([clusters, clusters[::-1]], replicates=50).counts).all()
    weights = draws.of_prompts(clusters)
    assert (weights == draws.counts[:, [0, 0, 1, 2, 2, 2]]).all()


def test_seeds_with_other_clusters_share_what_they_have_in_common():
    draws = draw_clusters([["x", "y"], ["y", "z"]], replicates=50)
    one, two = draws.of_prompts(["x", "y"]), draws.of_prompts(["y", "z"])
    drawn = (one.sum(axis=1) > 0) & (draws.counts[:, 1] > 0)
    assert drawn.any()
    assert (one[drawn, 1] == two[drawn, 0]).all()
    # Where none of a seed's clusters was drawn it counts whole.
    assert one[draws.counts[:, 2] == 2].tolist() == [[1, 1]] * (draws.counts[:, 2] == 2).sum()


def test_prompts_are_drawn_with_their_cluster():
    table = make_table(
        rows("sft", None, [(50, 50)], prompts="abc"), rows("dpo", None, [(50, 50)], prompts="cba")
    ).replace({"cluster": {"a": "x", "b": "y", "c": "x"}})
    one, two = draw_prompts([table, table.assign(seed=1)])
    assert (one.prompts, one.clusters) == (["a", "b", "c"], ["x", "y", "x"])
    assert (one.weights == two.weights).all()
    assert (one.weights[:, 0] == one.weights[:, 2]).all()
    assert draw_prompts([]) == []


def test_replicates_by_hand():
    rewards = np.array([[[80.0, 40.0]], [[60.0, 10.0]]])
    fronts = replicate(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]]), rewards)
    assert fronts.tolist() == [[[70, 25]], [[80, 40]], [[60, 10]]]


def test_two_seeds_and_two_clusters_by_hand():
    """One of each is drawn: a replicate is one of four cells, each as often as the others."""
    clusters = ["x", "y", "y"]
    weights = draw_clusters([clusters] * 2).of_prompts(clusters)
    cells = np.array([[10.0, 20.0, 30.0], [40.0, 70.0, 90.0]])
    values = over_seeds(
        np.array([replicate(weights, seed[:, None, None])[:, 0, 0] for seed in cells])
    )
    # The sample: prompts count alike, so that the mean of seed 0 is 20 and of seed 1 is 200 / 3.
    assert values[0] == pytest.approx((20 + 200 / 3) / 2)
    found, often = np.unique(values[1:], return_counts=True)
    assert found.tolist() == [10, 25, 40, 80]
    # A quarter of 1,000, within four standard errors of a count (sqrt(1000 / 4 * 3 / 4) = 14).
    assert (np.abs(often - 250) < 56).all()
    # What both methods do alike takes out what seeds and clusters have in common.
    assert interval(
        over_seeds(np.array([values + 2, values])) - over_seeds(np.array([values, values - 2]))
    ) == pytest.approx((2, 2, 2))


def test_one_seed_is_its_own_mean():
    values = np.array([[3.0, 1.0, 2.0]])
    assert over_seeds(values).tolist() == [3, 1, 2]


def test_probability_of_improvement_by_hand():
    draws = draw_clusters([["x", "y"]] * 2)
    ours, theirs = np.array([[3.0, 5.0], [1.0, 5.0]]), np.array([[2.0, 5.0], [0.0, 7.0]])
    # x: 3 > 2, 3 > 0, 1 < 2, 1 > 0: 3 of 4 pairs. y: twice equal, twice lower: 1 of 4.
    found = improvements(ours, theirs, draws)
    assert found[0] == pytest.approx((3 / 4 + 1 / 4) / 2)
    # A seed and a cluster: 3 > 2, 1 > 0; 5 = 5, 5 < 7.
    assert set(found[1:]) == {1, 0.5, 0}
    assert improvements(theirs, ours, draws) == pytest.approx(1 - found)
    # A cluster that only one seed has counts there alone: pairs are 3 > 2 and, on x, 1 < 2.
    ours, theirs = np.array([[3.0, 5.0], [1.0, np.nan]]), np.array([[2.0, 4.0], [np.nan, np.nan]])
    assert improvements(ours, theirs, draws)[0] == pytest.approx(2 / 3)
    assert not np.isnan(improvements(ours, theirs, draws)).any()


def test_one_seed_improves_on_a_share_of_its_clusters():
    draws = draw_clusters([["x", "y", "z", "w"]])
    found = improvements(np.array([[1.0, 2, 3, 4]]), np.array([[0.0, 0, 0, 5]]), draws)
    assert found[0] == 0.75


def test_intervals_by_hand():
    # Percentiles 2.5 and 97.5 of 0, 1, ..., 40 are its second value from either end.
    found = interval(np.array([7.0, *range(41)]))
    assert found == pytest.approx((7, 1, 39))


def test_equal_methods_differ_by_exactly_nothing():
    rewards = np.random.default_rng(0).uniform(0, 100, (30, 5, 2))
    counts = draw_clusters([[f"{i:02d}" for i in range(30)]]).counts
    one, two = (hypervolumes(replicate(counts, rewards), [0, 100]) for _ in range(2))
    assert interval(one - two) == (0, 0, 0)
    assert interval(one).low < interval(one).value < interval(one).high
    front = replicate(counts, rewards)
    assert interval(dominances(front, front, [0, 100])) == (1, 1, 1)


def test_pairing_takes_out_what_prompts_have_in_common():
    generator = np.random.default_rng(0)
    hard = generator.normal(50, 20, (40, 1, 1))
    better = hard + 2 + generator.normal(0, 0.5, (40, 1, 1))
    counts = draw_clusters([[f"{i:02d}" for i in range(40)]]).counts
    one, two = (replicate(counts, r)[:, 0, 0] for r in (hard, better))
    gain = interval(two - one)
    assert 0 < gain.low < gain.value < gain.high
    assert interval(two).low < interval(one).high


def test_intervals_cover_the_truth_nearly_as_often_as_they_say(monkeypatch):
    """Of seeds and clusters that differ, where a bootstrap over prompts is sure of far too much."""
    monkeypatch.setattr(bootstrap, "LEVEL", 90.0)
    generator = np.random.default_rng(5)
    seeds, names, each, trials = 6, 12, 5, 300
    clusters = [f"{i:02d}" for i in range(names) for _ in range(each)]
    weights = draw_clusters([clusters], replicates=400).of_prompts(clusters)
    flat = draw_clusters([[f"{i:02d}" for i in range(names * each)]], replicates=400).counts
    covered, covered_flat = 0, 0
    for _ in range(trials):
        seed, cluster = generator.normal(0, 3, (seeds, 1)), generator.normal(0, 3, (1, names))
        both = generator.normal(0, 1, (seeds, names))
        rewards = 50 + seed + np.repeat(cluster + both, each, axis=1)
        rewards = rewards + generator.normal(0, 10, rewards.shape)
        # Prompts, then seeds in the place of points: their means at once.
        found = interval(over_seeds(replicate(weights, rewards.T[:, :, None])[:, :, 0].T))
        covered += found.low <= 50 <= found.high
        found = interval(replicate(flat, rewards.mean(axis=0)[:, None, None])[:, 0, 0])
        covered_flat += found.low <= 50 <= found.high
    # Measured 0.87 and 0.39; few seeds have wide tails that a bootstrap does not see.
    assert 0.84 < covered / trials < 0.95
    assert covered_flat / trials < 0.6


def test_mean_and_error_over_seeds():
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2, 1 / np.sqrt(3)))
    mean, error = mean_and_error([4.0])
    assert mean == 4
    assert np.isnan(error)


# --- Statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [[0.0, 100.0], [0.0, 100.0, 0.0]])
def test_replicates_agree_with_the_plain_metrics(reference):
    generator = np.random.default_rng(1)
    k = len(reference)
    fronts = generator.uniform(0, 100, (6, 4, k))
    directions = generator.normal(size=(4, k))
    assert hypervolumes(fronts, reference) == pytest.approx(
        [front_hypervolume(points, reference) for points in fronts]
    )
    for steered in (True, False):
        assert mean_scalar_rewards(fronts, directions, steered) == pytest.approx(
            [mean_scalar_reward(points, directions, steered) for points in fronts]
        )


def test_dominance_by_hand():
    winners = np.array([[[80.0, 40.0], [60.0, 20.0]]])
    # Dominated, equal, more helpful than all, less verbose than all.
    losers = np.array([[[70.0, 50.0], [60.0, 20.0], [85.0, 60.0], [50.0, 10.0]]])
    assert dominances(winners, losers, [0, 100]) == pytest.approx([0.5])
    # Both maximised: only (60, 20) and (50, 10) are not above the winners anywhere.
    assert dominances(winners, losers, [0, 0]) == pytest.approx([0.5])
    assert dominances(winners, losers[:, :1], [0, 0]) == pytest.approx([0])


def test_dominance_needs_every_one_of_three_objectives():
    winners = np.array([[[80.0, 40.0, 70.0]]])
    losers = np.array([[[70.0, 50.0, 60.0], [70.0, 50.0, 71.0], [70.0, 39.0, 60.0]]])
    assert dominances(winners, losers, [0, 100, 0]) == pytest.approx([1 / 3])


def test_control_by_hand_with_ties():
    requested = np.array([[1.0, 0.0], [0.9, -0.1], [0.8, -0.2], [0.7, -0.3]])
    follows = [[80.0, 50.0], [70.0, 40.0], [60.0, 30.0], [50.0, 20.0]]
    against = [[50.0, 50.0], [60.0, 40.0], [70.0, 30.0], [80.0, 20.0]]
    # Verbosity ranks 4, 2.5, 2.5, 1 against 4, 3, 2, 1: 4.5 / sqrt(5 * 4.5) = sqrt(0.9).
    tied = [[80.0, 50.0], [70.0, 40.0], [60.0, 40.0], [50.0, 20.0]]
    # Helpfulness is the same everywhere: no control of it.
    flat = [[60.0, 50.0], [60.0, 40.0], [60.0, 30.0], [60.0, 20.0]]
    found = controls(np.array([follows, against, tied, flat]), requested)
    assert found == pytest.approx([1, 0, (1 + np.sqrt(0.9)) / 2, 0.5])


def test_control_leaves_out_what_is_not_asked_to_vary():
    requested = np.array([[0.8, -0.6, 0.0], [0.8, 0.0, 0.6]])
    fronts = np.array([[[70.0, 20.0, 50.0], [90.0, 40.0, 40.0]]])
    assert controls(fronts, requested) == pytest.approx([0])  # verbosity 1, the third -1
    assert np.isnan(controls(fronts, requested[[0, 0]])).all()
    assert np.isnan(controls(fronts, None)).all()


def test_infeasible_share_by_hand():
    fronts = np.array([[[55.0, 30.0], [80.0, 61.0]], [[49.0, 20.0], [80.0, 61.0]]])
    conditions = np.array([[60.0, 20.0], [80.0, 50.0]])
    # (55, 30) misses by 5 and by exactly the tolerance; (80, 61) by 11; (49, 20) by 11.
    asked = PolicyPoints(fronts, None, conditions)
    assert infeasible_shares(fronts, asked).tolist() == [0.5, 1.0]
    # A direction asks for no rewards that could be missed.
    assert np.isnan(infeasible_shares(fronts, PolicyPoints(fronts, conditions, None))).all()
    assert np.isnan(infeasible_shares(fronts, PolicyPoints(fronts, None, None))).all()
