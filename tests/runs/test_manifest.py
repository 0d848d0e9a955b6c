"""The manifest of a run: its types are checked, and its schema is the one in the documentation."""

import json
from pathlib import Path

import pytest

from ttt3r.errors import RunError
from ttt3r.runs.manifest import MANIFEST, read_manifest, schema

SCHEMA = Path(__file__).parents[2] / "docs/reference/manifest.schema.json"


def test_the_documented_schema_is_what_the_reader_checks() -> None:
    """To renew: python -c "from ttt3r.runs.manifest import schema; print(schema(), end='')"."""
    assert SCHEMA.read_text("utf-8") == schema()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"status": "done"}, r"\$.status"),
        ({"model": {"trained": "yes"}}, r"\$.model.trained"),
        ({"outputs": "pose"}, r"\$.outputs"),
        ({"size": 0}, r"\$.size"),
        ({"source": []}, r"\$.source"),
        ({"versions": {"torch": 2}}, r"\$.versions"),
    ],
)
def test_a_wrong_value_is_named(change: dict, place: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, **change}))
    with pytest.raises(RunError, match=f"manifest.json is damaged.*{place}"):
        read_manifest(tmp_path)


def test_keys_of_later_versions_are_kept(tmp_path: Path) -> None:
    content = {"format": 1, "status": "complete", "mood": "fine", "model": {"name": "a", "b": 2}}
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert read_manifest(tmp_path) == content
