"""Recipes are read strictly, and those that ship make networks of the promised size."""

from pathlib import Path

import pytest

from ttt3r.errors import SettingError
from ttt3r.training.recipe import load_recipe, recipe_from_text
from ttt3r.weights.network import expected_shapes


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_recipes_that_ship_are_small_and_complete(name: str) -> None:
    recipe = load_recipe(name)
    shapes = expected_shapes(recipe.network)
    count = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        count += size
    assert count < 15e6
    assert recipe.stages[0].task == "pairs" and recipe.stages[-1].task == "clips"
    patch = recipe.network.patch_size
    for stage in recipe.stages:
        assert all(side % patch == 0 for side in stage.size)


def test_both_recipes_train_the_same_network() -> None:
    assert load_recipe("cpu").network == load_recipe("gpu").network


SMALLEST = """
name = "x"
seed = 1
image = [32, 48]
clip_sets = { s = { clips = 2, frames = 2 } }
validation = { clips = 1, frames = 2 }
[[stages]]
name = "a"
task = "pairs"
steps = 1
batch = 1
frames = 2
size = [32, 48]
clips = ["s"]
[network]
"""


def test_a_small_recipe_reads() -> None:
    recipe = recipe_from_text(SMALLEST)
    assert recipe.stages[0].size == (32, 48)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 1", "sead = 1", "sead"),
        ("seed = 1", "", "seed"),
        ("steps = 1", "stops = 1", "stops"),
        ('clips = ["s"]', 'clips = ["t"]', "names no clip set"),
        ("batch = 1\nframes = 2", "batch = 1\nframes = 3", "frames from 2"),
        ("[network]", "[network]\nencoder_width = 3", "encoder_width"),
        ("name", "= name", "cannot be read"),
    ],
)
def test_mistakes_in_recipes_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        recipe_from_text(SMALLEST.replace(old, new, 1))


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no recipe"):
        load_recipe(str(tmp_path / "none.toml"))
