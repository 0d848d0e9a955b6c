"""How Fast3R tells views apart: each has a row of a fixed table of sines and cosines.

There are 1000 rows. Training showed the network about 20 views at a time, at rows drawn from the
whole table so that all of them were seen; inference draws them likewise (arXiv 2501.13928, section
3). The first view, whose camera is the world, always has row 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.nn.tables import sines_and_cosines

TABLE_ROWS = 1000


def random_view_indices(batch: int, views: int, seed: int = 0) -> Int[Tensor, "batch views"]:
    """Draw a row for each view of each sample, as the released network does.

    The published draw hangs on the global random state; `seed` stands for the seed that would have
    been set just before. The rows of n views begin those of n + 1 views, so a growing set keeps
    the rows it has.

    Args:
        batch: samples, each with rows of its own.
        views: views per sample.
        seed: any integer that PyTorch takes as a seed.

    Returns:
        Rows, on the CPU: 0 for the first view of a sample, and distinct ones for the others.

    Raises:
        SettingError: if there are more views than rows.
    """
    check_view_count(views)
    outer = torch.Generator().manual_seed(seed)
    inner = torch.Generator()
    inner.manual_seed(int(torch.randint(0, 2**32, (1,), generator=outer)))
    indices = torch.zeros(batch, views, dtype=torch.int64)
    for row in indices:
        row[1:] = torch.randperm(TABLE_ROWS - 1, generator=inner)[: views - 1] + 1
    return indices


def sequential_view_indices(batch: int, views: int) -> Int[Tensor, "batch views"]:
    """Count the views of each sample from 0.

    Raises:
        SettingError: if there are more views than rows.
    """
    check_view_count(views)
    return torch.arange(views).repeat(batch, 1)


def index_embedding(
    indices: Int[Tensor, "*batch"], dim: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch dim"]:
    """Rows of the table: [sin(i ω), cos(i ω)] with ω_k = 10000^(−k / (dim / 2)).

    Args:
        indices: rows, 0 to 999.
        dim: channels, even.
        dtype: of the result; the arithmetic is float64.
    """
    return sines_and_cosines(TABLE_ROWS, dim, dtype, indices.device)[indices]


def check_view_count(views: int) -> None:
    """Check that every view can have a row of its own.

    Raises:
        SettingError: if not, or if there is no view at all.
    """
    if views < 1:
        raise SettingError("there is no view to look at; give at least one image")
    if views > TABLE_ROWS:
        raise SettingError(
            f"Fast3R tells at most {TABLE_ROWS} views of a set apart, not {views}. Leave out views "
            f"(one in {-(-views // TABLE_ROWS)} is few enough), or reconstruct overlapping parts "
            "one by one and align them"
        )


def check_view_indices(indices: Int[Tensor, "batch views"], batch: int, views: int) -> None:
    """Check rows that a caller has chosen.

    Raises:
        SettingError: if there is not one row of the table for each view of each sample.
    """
    check_view_count(views)
    if tuple(indices.shape) != (batch, views):
        raise SettingError(
            f"view indices must be [{batch}, {views}], one for each view of each sample, not "
            f"{list(indices.shape)}"
        )
    if indices.numel() and not (0 <= int(indices.min()) <= int(indices.max()) < TABLE_ROWS):
        raise SettingError(f"view indices must lie between 0 and {TABLE_ROWS - 1}")
