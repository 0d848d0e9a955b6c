"""The notebook of the tutorial runs, and the page that is made of it has the same cells."""

import json
import re
import warnings

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipykernel")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that only run notebooks
    pytest.importorskip("nbclient")

from examples import tutorial


def test_the_notebook_has_no_outputs():
    cells = json.loads(tutorial.NOTEBOOK.read_text("utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_the_page_has_the_cells_of_the_notebook():
    notebook, text = tutorial.read(), tutorial.PAGE.read_text("utf-8")
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert re.findall(r"```python\n(.*?)\n```", text, re.DOTALL) == code
    end = 0
    for cell in notebook["cells"][1:]:
        begin = text.find(tutorial.cell_text(cell), end)
        assert begin >= 0, f"run `python -m examples.tutorial`: {cell['source'][:80]}"
        end = begin + len(cell["source"])
    assert text.startswith(notebook["cells"][0]["source"].split("\n\n")[0])
    for name in re.findall(r"images/(tutorial-\d+\.png)", text):
        assert (tutorial.IMAGES / name).stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of packages that only run notebooks
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where it writes
    text, pictures = tutorial.page(tutorial.execute(tutorial.read()))
    assert "the same points: True" in text
    assert "24 complete ttt3r" in text
    shown = tutorial.PAGE.read_text("utf-8")
    assert pictures.keys() == set(re.findall(r"images/(tutorial-\d+\.png)", shown))
