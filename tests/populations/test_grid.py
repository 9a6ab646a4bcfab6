"""The members of a population, from seeds and lists of settings."""

import numpy as np
import pytest

from mnist_accel.populations.grid import MAX_MEMBERS, make_grid


def grid(model="two-layer", *, seeds=2, fixed=None, **given):
    return make_grid(model, seeds=seeds, given=given, fixed=fixed or {})


def test_members_are_all_settings_with_all_seeds_and_the_seed_changes_fastest():
    members = grid(seeds=[4, 9], lr=[0.1, 0.2], batch_size=[32, 64]).members
    assert [(m.lr, m.batch_size, m.seed) for m in members] == [
        (0.1, 32, 4), (0.1, 32, 9), (0.1, 64, 4), (0.1, 64, 9),
        (0.2, 32, 4), (0.2, 32, 9), (0.2, 64, 4), (0.2, 64, 9),
    ]  # fmt: skip


def test_a_number_of_seeds_means_the_first_ones():
    assert [m.seed for m in grid(seeds=3).members] == [0, 1, 2]


def test_settings_not_given_are_those_of_the_recipe():
    assert {(m.lr, m.batch_size) for m in grid("backprop").members} == {(3.0, 10)}


def test_images_are_held_out_only_if_settings_are_compared():
    assert grid(lr=0.1).members[0].validation_split == 0
    assert grid(lr=[0.1, 0.2]).members[0].validation_split == 0.1
    assert grid(lr=[0.1, 0.2], validation_split=0).members[0].validation_split == 0


def test_a_list_of_integers_is_one_network_and_a_list_of_lists_several():
    assert grid(hidden_sizes=[30, 20]).varied == ()
    several = grid(hidden_sizes=[[30], [30, 20]])
    settings = [several.setting(0), several.setting(2)]
    assert settings == [{"hidden_sizes": (30,)}, {"hidden_sizes": (30, 20)}]


def test_names_of_settings_may_have_other_spellings():
    assert grid(learning_rate=[0.1, 0.2]).varied == ("lr",)


def test_numbers_of_numpy_are_accepted():
    members = grid(seeds=np.arange(2), lr=np.array([0.5, 0.25])).members
    assert [type(m.lr) for m in members] == [float] * 4
    assert grid(lr=np.float32(0.5)).members == grid(lr=np.array(0.5)).members
    assert grid(hidden_sizes=np.array([[30], [20]])).members[2].hidden_sizes == (20,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, r"seeds must have at least one value, got \[\]"),
        ({"seeds": [3, 3]}, "seeds has 3 twice"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"lr": []}, r"lr must have at least one value, got \[\]"),
        ({"lr": [0.1, 0.1]}, "lr has 0.1 twice"),
        ({"lr": "fast"}, "lr: expected `float`, got `str`"),
        ({"lr": [0.1], "learning_rate": 0.2}, "lr is given twice"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"iterations": 2**63}, r"iterations must be at most 2\^63 - 1"),
        ({"seeds": [2**63]}, r"a seed must be at most 2\^63 - 1"),
        ({"target_accuracy": 7}, "target_accuracy must be above 0 and at most 1, got 7"),
        ({"lr": [[0.1], [0.2]]}, r"a value of lr must be a number or a name, got \[0.1\]"),
        ({"speed": 3}, "unknown setting 'speed'"),
        ({"optimizer": ["sgd", "fastest"]}, "unknown optimizer 'fastest'"),
        ({"schedule": "zigzag"}, "unknown schedule 'zigzag'"),
        ({"epochs": 1, "iterations": 1}, "give either epochs or iterations"),
        ({"seeds": MAX_MEMBERS + 1}, "at most 1,000,000 members"),
        ({"seeds": 1000, "lr": list(range(1, 1002))}, "1,001,000 members"),
    ],
)
def test_settings_that_make_no_population_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid(**arguments)


def test_seeds_and_hidden_sizes_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="a seed must be an integer, got 'a'"):
        grid(seeds=["a"])
    with pytest.raises(TypeError, match="hidden_sizes must be a sequence of integers, got 30"):
        grid(hidden_sizes=[30, [20]])
