"""``ttt3r convert``: make a weight file that loads fast and holds no code."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.files import bytes_text

Dtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ConvertCommand(Command):
    """Convert weights to a folder that loads fast and holds no code.

    Nothing in the file is ever executed. The licence of the weights stays with them.
    """

    file: Annotated[tyro.conf.Positional[str], option("FILE")]
    """Weights to convert, such as the upstream cut3r_512_dpt_4_64.pth."""

    out_dir: Annotated[tyro.conf.Positional[Path], option("OUT_DIR")]
    """Folder to write; give it to --model later."""

    dtype: Dtype = "float32"
    """How to store the numbers; the shorter ones save space on disk and lose accuracy."""

    family: Annotated[str | None, option("FAMILY", "what the file or its name says")] = None
    """Family of the weights; `ttt3r models` lists them. StreamVGGT's file looks like VGGT's."""

    overwrite: Flag = False
    """Replace weights that are in the folder already."""

    debug: Debug = False

    def main(self) -> int:
        """Convert."""
        from ttt3r.weights import convert, licence_notice
        from ttt3r.weights.card import read_card
        from ttt3r.weights.catalogue import TENSORS_FILE
        from ttt3r.weights.sources import CARD_FILE

        folder = convert(self.file, self.out_dir, self.dtype, self.overwrite, self.family)
        size = (folder / TENSORS_FILE).stat().st_size
        print(f"wrote {folder} ({bytes_text(size)})")
        info = read_card((folder / CARD_FILE).read_text("utf-8"), CARD_FILE)
        print(licence_notice(info))
        print(f"next: ttt3r run VIDEO --model {shlex.quote(str(folder))}")
        return 0
