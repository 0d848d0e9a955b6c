"""The sketch against its slow twin, which keeps every row."""

import numpy as np
import pytest

from ttt3r.trace.sketch import Row, Sketch, means

VALUES, MOST = 5, 8


def rows(count: int) -> list[Row]:
    """Random rows, a third of whose values are not known."""
    generator = np.random.default_rng(count)
    made = []
    for _ in range(count):
        mean = generator.normal(size=VALUES)
        mean[generator.random(VALUES) < 1 / 3] = np.nan
        apart = generator.random((2, VALUES))
        made.append(Row(mean, mean - apart[0], mean + apart[1]))
    return made


def sketched(made: list[Row]) -> Sketch:
    sketch = Sketch(most=MOST)
    for row in made:
        sketch = sketch.add(row)
    return sketch


def twin(made: list[Row], width: int) -> list[np.ndarray]:
    """Count, mean, least and most of each stretch of `width` frames, of all rows at once."""
    parts = [np.stack(part) for part in zip(*made, strict=True)]
    stretches = [[part[i : i + width] for part in parts] for i in range(0, len(made), width)]
    found = []
    for mean, least, most in stretches:
        known = np.isfinite(mean)
        count = known.sum(0)
        total = np.where(known, mean, 0.0).sum(0)
        found.append(
            [
                count,
                np.where(count > 0, total / np.maximum(count, 1), np.nan),
                np.where(count > 0, np.where(known, least, np.inf).min(0), np.nan),
                np.where(count > 0, np.where(known, most, -np.inf).max(0), np.nan),
            ]
        )
    return [np.stack(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 100, 515])
def test_equals_the_twin(count: int):
    made = rows(count)
    sketch = sketched(made)
    assert sketch.frames == count and len(sketch.bins) <= MOST
    assert sketch.width & (sketch.width - 1) == 0
    assert sketch.width == 1 or len(sketch.bins) > MOST // 2
    assert sketch.firsts == list(range(0, count, sketch.width))
    column = sketch.column(slice(None))
    wanted = twin(made, sketch.width)
    np.testing.assert_array_equal(column.known, wanted[0])
    # The sum runs in another order: at most 128 additions, each off by half a float64 eps.
    np.testing.assert_allclose(means(column), wanted[1], rtol=0, atol=1e-13)
    np.testing.assert_array_equal(column.least, wanted[2])
    np.testing.assert_array_equal(column.most, wanted[3])


@pytest.mark.parametrize("count", [0, 1, 8, 27])
def test_goes_on_from_its_tensors(count: int):
    made = rows(count + 20)
    again = Sketch.from_tensors(sketched(made[:count]).to_tensors())
    for row in made[count:]:
        again = again.add(row)
    whole = sketched(made).to_tensors()
    for name, tensor in again.to_tensors().items():
        np.testing.assert_array_equal(tensor.numpy(), whole[name].numpy())


def test_older_sketches_stay_as_they_are():
    before = sketched(rows(8))
    kept = before.to_tensors()
    before.add(rows(1)[0])
    for name, tensor in before.to_tensors().items():
        np.testing.assert_array_equal(tensor.numpy(), kept[name].numpy())


def test_what_is_not_finite_is_not_known():
    column = sketched([Row(*(np.array([np.inf, np.nan, 1.0, 2.0, 3.0]) for _ in range(3)))])
    bin = column.bins[0]
    assert bin.known.tolist() == [0, 0, 1, 1, 1]
    assert np.isnan(bin.least[:2]).all() and bin.total.tolist() == [0, 0, 1, 2, 3]


def test_tensors_that_do_not_agree_are_refused():
    tensors = sketched(rows(5)).to_tensors()
    with pytest.raises(ValueError, match="do not agree"):
        Sketch.from_tensors(tensors | {"total": tensors["total"][:2]})
