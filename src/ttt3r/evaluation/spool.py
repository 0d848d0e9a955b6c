"""Arrays that grow on disk while a stream runs, so that memory does not."""

from pathlib import Path
from typing import Any

import numpy as np

from ttt3r.errors import InputError


class Spool:
    """Rows of one shape, appended one after the other to a file.

    Args:
        path: the file; replaced if it exists, and deleted by `close`.
        dtype: of the values.

    The first rows decide on the shape.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self.row: tuple[int, ...] | None = None
        self.count = 0
        self._file = path.open("wb")

    def append(self, rows: np.ndarray) -> None:
        """Write rows [count, *row].

        Raises:
            InputError: if their shape is not that of the rows before.
            OSError: if the disk is full, for example.
        """
        if self.row not in (None, rows.shape[1:]):
            raise InputError(f"rows of shape {rows.shape[1:]} cannot follow rows of {self.row}")
        self.row = rows.shape[1:]
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self.count += len(rows)

    def rows(self, until: int | None = None) -> np.ndarray:
        """Return the first rows [until, *row] (all if None), read from the file when touched."""
        self._file.flush()
        count = self.count if until is None else min(until, self.count)
        shape = (count, *(self.row or ()))
        if 0 in shape:
            return np.zeros(shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=shape)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)
