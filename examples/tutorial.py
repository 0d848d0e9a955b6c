"""The page docs/tutorial.md, made from docs/tutorial.ipynb: `python -m examples.tutorial`.

Runs the notebook and writes what its cells print and draw below them. A test fails if the page has
other cells than the notebook.
"""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
PAGE = NOTEBOOK.with_suffix(".md")
IMAGES = ROOT / "docs" / "images"
SECONDS = 300  # for each cell
MARK = (
    "<!-- Written by `python -m examples.tutorial` from tutorial.ipynb; changes made by hand are "
    "lost. -->\n\n*This page is a notebook: [tutorial.ipynb](tutorial.ipynb).*"
)


def read() -> Any:
    """The notebook as it is stored, without outputs."""
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook: Any) -> Any:
    """Run all cells, and return the notebook with their outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises an error.
    """
    from nbclient import NotebookClient

    return NotebookClient(notebook, timeout=SECONDS, kernel_name="python3").execute()


def cell_text(cell: Any) -> str:
    """A cell without its outputs, as Markdown."""
    source = cell["source"]
    return f"```python\n{source}\n```" if cell["cell_type"] == "code" else source


def page(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """Text of the page, and its pictures by name."""
    title, *cells = notebook["cells"]
    heading, _, rest = title["source"].partition("\n\n")
    texts, pictures = [heading, MARK, rest], {}
    for cell in cells:
        texts.append(cell_text(cell))
        printed = ""
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                printed += output["text"]
            elif "image/png" in output.get("data", {}):
                name = f"tutorial-{len(pictures)}.png"
                pictures[name] = small_png(base64.b64decode(output["data"]["image/png"]))
                texts.append(f"![What this cell draws](images/{name})")
        if printed:
            texts.append(f"```text\n{printed.rstrip()}\n```")
    return "\n\n".join(texts) + "\n", pictures


def small_png(data: bytes) -> bytes:
    """The same picture in 256 colours."""
    kept = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").quantize(256).save(kept, "PNG", optimize=True)
    return kept.getvalue()


def main() -> None:
    """Run the notebook, and write the page and its pictures."""
    text, pictures = page(execute(read()))
    for old in IMAGES.glob("tutorial-*.png"):
        old.unlink()
    for name, data in pictures.items():
        (IMAGES / name).write_bytes(data)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
