"""What the camera does to light."""

import pytest
import torch

from ttt3r.scenes.effects import (
    CameraEffects,
    blurred,
    compressed,
    cosine_basis,
    photograph,
    settled_gain,
)


def picture(frames: int = 2, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def plain(frames: int = 2, **changes) -> CameraEffects:
    settings = {"blur": 0.0, "noise": 0.0, "jpeg": 0.0} | changes
    return CameraEffects(torch.ones(frames), torch.ones(3), **settings)


def shoot(light: torch.Tensor, effects: CameraEffects, seed: int = 0) -> torch.Tensor:
    return photograph(light, effects, torch.Generator().manual_seed(seed))


def test_strength_zero_changes_nothing():
    image = picture()
    assert torch.equal(blurred(image, 0.0), image)
    assert torch.equal(compressed(image, 0.0), image)
    assert torch.equal(shoot(image, plain(), seed=1), shoot(image, plain(), seed=2))
    # What is left is the tone curve alone.
    torch.testing.assert_close(shoot(image, plain()), (image / (1 + 0.15 * image)) ** (1 / 2.2))


@pytest.mark.parametrize(
    "changes", [{}, {"blur": 1.2}, {"noise": 0.05}, {"jpeg": 1.0}, {"blur": 1, "jpeg": 0.3}]
)
def test_shape_and_range(changes: dict[str, float]):
    changes = {name: float(value) for name, value in changes.items()}
    image = shoot(5 * picture() - 1.0, plain(**changes))
    assert image.shape == (2, 3, 48, 64) and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.05


def test_blur_is_a_gaussian():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8, 8] = 1
    result = blurred(image, 0.8)
    away = torch.arange(-2.0, 3) ** 2
    expected = torch.exp(-(away[:, None] + away) / (2 * 0.8**2))
    torch.testing.assert_close(result[0, 1, 6:11, 6:11], expected / expected.sum())
    torch.testing.assert_close(result.sum(), image.sum())


def test_cosines_are_orthonormal():
    basis = cosine_basis(torch.device("cpu"))
    torch.testing.assert_close(basis @ basis.T, torch.eye(8))
    torch.testing.assert_close(basis[0], torch.full((8,), 8**-0.5))


def test_compression_rounds_coefficients_of_each_block():
    """Against one block and one coefficient at a time."""
    image, strength = picture(1, 16, 24), 0.7
    result = compressed(image, strength)
    grey = image.mean(1, keepdim=True)
    planes, basis = torch.cat((grey, image - grey), 1)[0], cosine_basis(torch.device("cpu"))
    rounded = torch.zeros_like(planes)
    for plane in range(4):
        for top in range(0, 16, 8):
            for left in range(0, 24, 8):
                block = planes[plane, top : top + 8, left : left + 8]
                back = torch.zeros(8, 8)
                for i in range(8):
                    for j in range(8):
                        wave = basis[i][:, None] * basis[j]
                        step = (10 + 9 * (i + j)) / 255 * strength * (1 if plane == 0 else 2)
                        back += ((block * wave).sum() / step).round() * step * wave
                rounded[plane, top : top + 8, left : left + 8] = back
    torch.testing.assert_close(result[0], rounded[1:] + rounded[:1], atol=1e-5, rtol=0)


def test_stronger_compression_loses_more():
    image = picture()
    losses = [float((compressed(image, s) - image).abs().mean()) for s in (0.1, 0.4, 1.0)]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_noise_follows_its_generator():
    image, effects = torch.full((1, 3, 48, 64), 0.25), plain(1, noise=0.03)
    assert torch.equal(shoot(image, effects, 1), shoot(image, effects, 1))
    assert not torch.equal(shoot(image, effects, 1), shoot(image, effects, 2))
    level = shoot(image, plain(1)).mean()
    spread = float(shoot(image, effects).std())
    assert spread == pytest.approx(0.03 * float(1.3 - level), rel=0.05)


def test_settled_gain():
    light = picture(1)[0] * 0.4
    assert settled_gain(light) * float(light.mean()) == pytest.approx(0.25)
    assert settled_gain(torch.zeros(3, 8, 8)) == pytest.approx(250)  # never infinite
    lamp = light.clone()
    lamp[:, :4] = 1e6  # counts as 2
    assert settled_gain(lamp) > 0.1


def test_settled_gain_does_not_depend_on_threads():
    threads = torch.get_num_threads()
    gains: list[set[float]] = []
    try:
        for light in picture(10, 240, 320):
            gains.append(set())
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                gains[-1].add(settled_gain(light))
                assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(len(values) == 1 for values in gains)


def test_settings_of_one_frame():
    effects = CameraEffects(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), 0.5, 0.1, 0.2)
    one = effects.at(1, 10.0)
    assert one.exposure.tolist() == [20.0] and (one.blur, one.noise, one.jpeg) == (0.5, 0.1, 0.2)
