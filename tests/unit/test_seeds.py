from itertools import product

from dpa.seeds import GROUP_SPACING, derive_seed, sample_seed, short_seed


def test_equal_parts_give_equal_seeds_on_every_machine():
    assert derive_seed(0, "split", "abc") == derive_seed(0, "split", "abc") == 14518968307620


def test_parts_are_told_apart():
    parts = [(0, "a"), (0, "b"), (1, "a"), ("0a",), (0, "a", ""), ("", 0, "a"), (0, "a", 0)]
    assert len({derive_seed(*p) for p in parts}) == len(parts)


def test_sample_seeds_are_distinct_and_fit_an_engine():
    seeds = [
        sample_seed(base, iteration, prompt, direction, sample)
        for base, iteration, prompt, direction, sample in product(
            (0, 1), (1, 2), ("a", "b"), (-1, 0, 1), range(80)
        )
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_samples_of_a_group_count_upwards():
    first = sample_seed(0, 1, "a", 0, 0)
    assert [sample_seed(0, 1, "a", 0, i) - first for i in range(5)] == [0, 1, 2, 3, 4]
    assert first % GROUP_SPACING == 0


def test_short_seeds_are_as_good_as_32_bits_allow():
    seeds = [
        sample_seed(0, 2, f"prompt {prompt}", direction, sample)
        for prompt, direction, sample in product(range(240), range(5), range(16))
    ]
    assert len({seed % 2**32 for seed in seeds}) < len(seeds) - 100  # groups that coincide
    assert len(set(map(short_seed, seeds))) == len(seeds)
    assert all(0 <= short_seed(seed) < 2**32 for seed in seeds)
    first = sample_seed(0, 2, "a", 0, 0)
    group = {short_seed(first + sample) for sample in range(GROUP_SPACING)}
    assert len(group) == GROUP_SPACING
