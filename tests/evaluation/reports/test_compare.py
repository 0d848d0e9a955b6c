import itertools
import sys

import pytest

from tests.evaluation.evaluations import evaluation, pair
from ttt3r.errors import MissingExtraError, SettingError
from ttt3r.evaluation.reports.compare import (
    OnlyOne,
    compare,
    comparison_text,
    sign_test,
)


def slow_sign_test(wins, losses):
    """Toss every possible row of coins, and count those that are as uneven or more so."""
    tosses = list(itertools.product((0, 1), repeat=wins + losses))
    uneven = abs(wins - losses)
    return sum(abs(2 * sum(t) - len(t)) >= uneven for t in tosses) / len(tosses)


@pytest.mark.parametrize(("wins", "losses"), [(a, b) for a in range(6) for b in range(6)])
def test_sign_test_counts_coin_tosses(wins, losses):
    assert sign_test(wins, losses) == pytest.approx(slow_sign_test(wins, losses), abs=1e-15)


def test_sign_test_of_many():
    assert sign_test(18, 0) == pytest.approx(2 / 2**18)
    assert 0.0 < sign_test(900, 100) < 1e-100
    assert sign_test(500, 500) == 1.0


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"ttt3r\[eval\]"):
        sign_test(3, 1)


def test_numbers_by_hand():
    rows = {(row.length, row.metric.key): row for row in compare(*pair()).rows}
    assert len(rows) == 6
    row = rows[90, "ate"]
    assert (row.first, row.second) == (pytest.approx(0.2), pytest.approx(0.35 / 3))
    assert (row.count, row.wins, row.ties, row.losses, row.p_value) == (3, 2, 1, 0, 0.5)
    row = rows[500, "ate"]
    assert (row.first, row.second) == (pytest.approx(0.5), pytest.approx(0.45))
    assert (row.count, row.wins, row.ties, row.losses, row.p_value) == (2, 1, 0, 1, 1.0)


def test_swapping_swaps_everything():
    first, second = pair()
    for row, back in zip(compare(first, second).rows, compare(second, first).rows, strict=True):
        assert (row.first, row.wins, row.p_value) == (back.second, back.losses, back.p_value)
        assert (row.second, row.ties) == (back.first, back.ties)


def test_higher_is_better_where_it_is():
    recon = {"task": "recon", "protocol": "7scenes/step2/200", "lengths": (200,)}
    first, second = (evaluation({"a_00": [v], "b_00": [v]}, **recon) for v in (0.4, 0.6))
    rows = {row.metric.key: row for row in compare(first, second).rows}
    assert (rows["accuracy"].wins, rows["accuracy"].losses) == (0, 2)
    assert (rows["f_score"].wins, rows["f_score"].losses) == (2, 0)


def test_means_are_weighted_and_over_shared_sequences():
    depth = {"task": "depth", "protocol": "kitti/stride1/500", "lengths": (500,)}
    weights = {"a_00": 3.0, "b_00": 1.0, "c_00": 100.0}
    first = evaluation({"a_00": [0.1], "b_00": [0.5], "c_00": [0.9]}, weights=weights, **depth)
    second = evaluation(
        {"a_00": [0.2], "b_00": [0.6], "c_00": ["failed: not finite"]}, weights=weights, **depth
    )
    comparison = compare(first, second)
    row = comparison.rows[0]
    assert row.metric.key == "scale/abs_rel"
    assert (row.first, row.second) == (pytest.approx(0.2), pytest.approx(0.3))
    assert row.count == 2
    assert comparison.only_one == (OnlyOne(500, "c_00", "A", "failed: not finite"),)


def test_rounding_noise_is_a_tie():
    first = evaluation({"a_00": [0.3]})
    second = evaluation({"a_00": [0.1 + 0.2]})
    row = compare(first, second).rows[0]
    assert row.first != row.second and (row.wins, row.ties, row.losses) == (0, 1, 0)


def test_what_only_one_has_is_listed():
    first = evaluation({"a_00": [0.1], "b_00": [0.2]})
    second = evaluation({"a_00": [0.1], "c_00": [0.4], "b_00": ["failed: NaN in frame 3"]})
    comparison = compare(first, second)
    assert set(comparison.only_one) == {
        OnlyOne(90, "b_00", "A", "failed: NaN in frame 3"),
        OnlyOne(90, "c_00", "B", "not evaluated"),
    }
    text = comparison_text(comparison)
    assert "* b_00, 90 frames: only A; the other: failed: NaN in frame 3" in text
    assert "* c_00, 90 frames: only B; the other: not evaluated" in text


def test_lengths_with_the_same_reason_are_listed_together():
    first = evaluation({"a_00": [0.1, 0.2]}, lengths=(90, 500))
    second = evaluation({"a_00": ["failed: NaN", "failed: NaN"]}, lengths=(90, 500))
    text = comparison_text(compare(first, second))
    assert "* a_00, 90, 500 frames: only A; the other: failed: NaN" in text
    assert "No sequence was scored by both" in text


def test_corrected_leaves_out_what_is_dropped_anywhere():
    values = {"a_00": [0.1, 0.2], "b_00": [0.1, "dropped: unknown poses"]}
    either = {
        variant: evaluation(values, lengths=(90, 500), variant=variant)
        for variant in ("published", "corrected")
    }
    assert set(either["published"].scores(90)) == {"a_00", "b_00"}
    assert set(either["corrected"].scores(90)) == {"a_00"}
    assert {name: found.left_out for name, found in either.items()} == {
        "published": set(),
        "corrected": {"b_00"},
    }
    for found in either.values():
        assert [len(found.scores(n)) for n in (90, 500)] == [m.count for m in found.means]
    full = evaluation({"a_00": [0.1, 0.2], "b_00": [0.1, 0.2]}, lengths=(90, 500),
                      variant="corrected")  # fmt: skip
    comparison = compare(full, either["corrected"])
    assert [row.count for row in comparison.rows] == [1] * 6
    assert comparison.only_one[0].reason == "left out: no score at another length"


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "scannet/stride1/1000"},
        {"variant": "corrected"},
        {"data": "tum-dynamics"},
        {"task": "recon"},
    ],
)
def test_what_measures_other_things_is_refused(changes):
    with pytest.raises(SettingError, match=f"their {next(iter(changes))} is"):
        compare(evaluation({"a_00": [0.1]}), evaluation({"a_00": [0.1]}, **changes))


def test_lengths_must_overlap():
    first = evaluation({"a_00": [0.1, 0.2]}, lengths=(50, 90))
    second = evaluation({"a_00": [0.3, 0.4]}, lengths=(90, None))
    assert {row.length for row in compare(first, second).rows} == {90}
    with pytest.raises(SettingError, match="no length in common"):
        compare(first, evaluation({"a_00": [0.3]}, lengths=(100,)))


def test_differing_settings_are_listed():
    first, second = evaluation({}), evaluation({}, precision="bfloat16", size=224)
    settings = compare(first, second).settings
    assert settings["precision"] == ("float32", "bfloat16")
    assert settings["size"] == ("512", "224")
    assert settings.keys() == {"precision", "size"}
    assert "| precision |" in comparison_text(compare(first, second))


def test_text_lines_up_and_holds_the_numbers():
    text = comparison_text(compare(*pair()))
    assert "pose on scannet/stride3/1000 (published)" in text
    assert "* A: overwrite\n* B: ttt3r\n" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = [list(group) for _, group in itertools.groupby(lines, key=len)]
    assert [len(table) for table in tables] == [3, 8]  # settings, and six rows below a head
    assert len({line.count("|") for line in tables[1]}) == 1
    cells = [cell.strip() for cell in tables[1][2].strip("|").split("|")]
    assert cells == ["90", "3", "ATE (m) ↓", "0.200", "0.117", "-0.083", "-41.7 %",
                     "2", "1", "0", "0.5"]  # fmt: skip


@pytest.mark.parametrize("values", [{}, {"a_00": ["failed: NaN"]}])
def test_nothing_to_compare(values):
    found = evaluation(values)
    comparison = compare(found, found)
    assert comparison.rows == () and comparison.only_one == ()
    assert "nothing to compare" in comparison_text(comparison)


def test_zero_has_no_relative_difference():
    zero = evaluation({"a_00": [0.0]})
    text = comparison_text(compare(zero, evaluation({"a_00": [0.1]})))
    assert "%" not in text
