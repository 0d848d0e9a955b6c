"""Recipes are read strictly, and those that ship make networks of the promised size."""

from pathlib import Path

import pytest

from ttt3r.errors import SettingError
from ttt3r.training.recipe import load_recipe, recipe_from_text
from ttt3r.weights.network import expected_shapes


@pytest.mark.parametrize("name", ["cpu", "gpu", "more"])
def test_recipes_that_ship_are_small_and_complete(name: str) -> None:
    recipe = load_recipe(name)
    shapes = expected_shapes(recipe.network)
    count = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        count += size
    assert count < 15e6  # 30 MB in float16
    assert all(side % recipe.network.patch_size == 0 for side in recipe.size)
    assert recipe.stages[-1].frames == 10
    assert (recipe.start == "builtin") == (name == "more")


def test_all_recipes_train_the_same_network() -> None:
    networks = [load_recipe(name).network for name in ("cpu", "gpu", "more")]
    assert all(network == networks[0] for network in networks)


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = load_recipe("cpu")
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert rates[0] == 1 / recipe.warmup and rates[recipe.warmup] == 1 == rates[recipe.steps // 2]
    fall = rates[int(0.7 * recipe.steps) + 1 :]
    assert fall == sorted(fall, reverse=True) and fall[-1] == 0.02


def test_steps_belong_to_stages() -> None:
    recipe = load_recipe("cpu")
    first = recipe.stages[0].steps
    assert recipe.stage_at(first - 1) == (recipe.stages[0], first - 1)
    assert recipe.stage_at(first) == (recipe.stages[1], 0)
    with pytest.raises(SettingError, match="steps"):
        recipe.stage_at(recipe.steps)


SMALLEST = """
name = "x"
seed = 1
size = [32, 48]
clips = { count = 2, frames = 2 }
[[stages]]
name = "a"
steps = 1
batch = 1
frames = 2
span = [1, 1]
[network]
"""


def test_a_small_recipe_reads() -> None:
    recipe = recipe_from_text(SMALLEST)
    assert recipe.size == (32, 48) and recipe.stages[0].rules == ("overwrite", "ttt3r")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 1", "sead = 1", "sead"),
        ("seed = 1", "", "seed"),
        ("steps = 1", "stops = 1", "stops"),
        ("steps = 1", "steps = 0", "at least 1"),
        ("batch = 1\nframes = 2", "batch = 1\nframes = 3", "from 2 to 2"),
        ("span = [1, 1]", "span = [0, 1]", "span"),
        ("span = [1, 1]", 'span = [1, 1]\nrules = ["guess"]', "guess"),
        ("[network]", "[network]\nencoder_width = 3", "encoder_width"),
        ("[[stages]]", "[[steps]]", "stages"),
        ("name", "= name", "cannot be read"),
    ],
)
def test_mistakes_in_recipes_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        recipe_from_text(SMALLEST.replace(old, new, 1))


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no recipe"):
        load_recipe(str(tmp_path / "none.toml"))


def test_a_tilde_stands_for_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ttt3r.training.commands import main

    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["pack", "cpu", "--folder", "~/nothing", "--out", "~/w.safetensors"]) == 2
    assert f"{tmp_path / 'nothing'}" in capsys.readouterr().err
