"""What a camera does to light: exposure, blur, noise and compression, in plain torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# The usual quantisation tables grow with frequency about like this.
JPEG_BASE, JPEG_SLOPE = 10.0, 9.0
MID_GREY = 0.25  # linear light


@dataclass(frozen=True)
class CameraEffects:
    """Settings of a camera for one clip.

    Attributes:
        exposure: factor on the light of each frame.
        balance: factor per colour.
        blur: standard deviation in pixels.
        noise: standard deviation of the noise at mid grey, in [0, 1] units.
        jpeg: strength of the compression; 0 is none, 1 about quality 50.
    """

    exposure: Float[Tensor, " frames"]
    balance: Float[Tensor, "3"]
    blur: float
    noise: float
    jpeg: float

    def at(self, frame: int, gain: float) -> "CameraEffects":
        """Settings for one frame alone, with `gain` as a further factor on its light."""
        return replace(self, exposure=self.exposure[frame : frame + 1] * gain)

    def to(self, device: torch.device | str) -> "CameraEffects":
        """Move to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("exposure", "balance")}
        return replace(self, **moved)


def settled_gain(light: Float[Tensor, "3 h w"]) -> float:
    """Factor that makes the mean of a frame's light mid grey, as automatic exposure does."""
    with _one_thread():  # the last bits of a sum depend on how many threads share it
        mean = light.clamp(max=2).mean()
    return float(MID_GREY / mean.clamp(min=1e-3))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def blurred(image: Float[Tensor, "frames 3 h w"], sigma: float) -> Float[Tensor, "frames 3 h w"]:
    """Gaussian blur over five pixels along rows and columns; none if `sigma` is below 0.05."""
    if sigma < 0.05:
        return image
    taps = torch.exp(-(torch.arange(-2, 3, device=image.device) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(image)
    image = F.pad(image, (2, 2, 2, 2), mode="replicate")
    image = F.conv2d(image, taps.view(1, 1, 1, 5).expand(3, 1, 1, 5), groups=3)
    return F.conv2d(image, taps.view(1, 1, 5, 1).expand(3, 1, 5, 1), groups=3)


def cosine_basis(device: torch.device) -> Float[Tensor, "8 8"]:
    """Rows of the orthonormal discrete cosine transform of length 8."""
    k, n = torch.arange(8.0, device=device)[:, None], torch.arange(8.0, device=device)
    basis = torch.cos(torch.pi * (2 * n + 1) * k / 16) / 2
    basis[0] /= 2**0.5
    return basis


def compressed(
    image: Float[Tensor, "frames 3 h w"], strength: float
) -> Float[Tensor, "frames 3 h w"]:
    """Round the coefficients of 8x8 blocks, as JPEG does; sides must be multiples of 8."""
    if strength <= 0:
        return image
    basis = cosine_basis(image.device)
    grey = image.mean(1, keepdim=True)
    planes = torch.cat((grey, image - grey), 1)  # colour differences are rounded more coarsely
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    index = torch.arange(8.0, device=image.device)
    step = (JPEG_BASE + JPEG_SLOPE * (index[:, None] + index)) / 255 * strength
    step = step * torch.tensor([1.0, 2.0, 2.0, 2.0], device=image.device).view(4, 1, 1, 1, 1)
    coefficients = (coefficients / step).round() * step
    planes = (basis.T @ coefficients @ basis).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return planes[:, 1:] + planes[:, :1]


def photograph(
    light: Float[Tensor, "frames 3 h w"], effects: CameraEffects, generator: torch.Generator
) -> Float[Tensor, "frames 3 h w"]:
    """Turn linear light into images in [0, 1].

    Args:
        light: 0 is black, about 1 white.
        effects: settings, with the exposure of each of these frames.
        generator: source of the noise, on the CPU.
    """
    image = light * effects.exposure[:, None, None, None] * effects.balance[:, None, None]
    image = (image / (1 + 0.15 * image)).clamp(0, 1)  # a soft shoulder, then the usual gamma
    image = blurred(image, effects.blur) ** (1 / 2.2)
    if effects.noise > 0:
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        image = image + effects.noise * noise * (1.3 - image)
    return compressed(image.clamp(0, 1), effects.jpeg).clamp(0, 1)
