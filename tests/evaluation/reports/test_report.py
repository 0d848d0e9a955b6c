import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from tests.evaluation.evaluations import FACTS, POSE, evaluation, pair
from ttt3r.errors import SettingError
from ttt3r.evaluation.reports.published import published_beside, published_for
from ttt3r.evaluation.reports.report import latex, markdown
from ttt3r.evaluation.reports.tables import (
    Best,
    Table,
    heading,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    percent,
    ranked,
)
from ttt3r.evaluation.results import METRICS, Metric

KITTI = {"task": "depth", "protocol": "kitti/stride1/500", "data": "kitti", "lengths": (500,)}


def section(text, title):
    """What stands below a heading, to the next one of its level."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.S | re.M)[1]


def rows(text):
    """Cells of every table row in a text, without the two lines of each head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.M):
        for line in block.splitlines()[2:]:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


# Reports


def test_title_settings_and_facts():
    text = markdown(pair())
    assert text.startswith(
        "# Camera poses: scannet/stride3/1000 (published), 3 sequences of scannet\n"
    )
    settings = {row[0]: row[1] for row in rows(section(text, "Settings"))}
    assert settings["rules"] == "overwrite; ttt3r"
    assert settings["model"] == "cut3r_512_dpt_4_64"
    assert settings["SHA-256"] == POSE.fingerprint
    assert settings["longer side of images"] == "512 pixels"
    assert settings["precision"] == "float32"
    assert settings["frames"] == "90, 500"
    assert settings["commit"] == "abc1234" and settings["torch"] == "2.6.0"
    assert settings["processor"] == r"a \| b_c"


def test_facts_that_differ_are_told_apart():
    first, second = pair()
    facts = {**FACTS, "commit": "fff", "gpu": "H100"}
    entries = tuple(dataclasses.replace(entry, facts=facts) for entry in second.sequences)
    second = dataclasses.replace(second, sequences=entries)
    settings = {row[0]: row[1] for row in rows(section(markdown([first, second]), "Settings"))}
    assert settings["commit"] == "overwrite: abc1234; ttt3r: fff"
    assert settings["gpu"] == "overwrite: unknown; ttt3r: H100"
    assert settings["torch"] == "2.6.0"


def test_numbers_and_the_best_of_them():
    text = section(markdown(pair()), "Results")
    assert rows(text) == [
        ["90", "overwrite", "0.200", "0.100", "0.100", "n = 3", "8.0"],
        ["90", "ttt3r", "**0.117**", "**0.058**", "**0.058**", "n = 3", "8.0"],
        ["500", "overwrite", "0.500", "0.250", "0.250", "n = 2, 1 dropped", "8.0"],
        ["500", "ttt3r", "**0.450**", "**0.225**", "**0.225**", "n = 2, 1 dropped", "8.0"],
    ]
    assert "ATE (m) ↓" in text and "RPE rot (°) ↓" in text


def test_a_single_rule_has_nothing_to_beat():
    assert "**" not in markdown([pair()[0]])


def test_means_over_different_sequences_are_not_ranked():
    first = evaluation({"a_00": [0.1], "b_00": [0.9]}, rule="overwrite")
    second = evaluation({"a_00": [0.2], "b_00": ["failed: NaN"]})
    text = section(markdown([first, second]), "Results")
    assert "**" not in text and "nothing is marked as best" in " ".join(text.split())
    assert rows(text)[1][5] == "n = 1, 1 failed"
    sequences = section(markdown([first, second]), "Sequences")
    assert ["mean", "0.500", "0.200"] in rows(sequences)


def test_shorter_sequences_are_counted():
    found = evaluation({"a_00": [0.1]}, lengths=(90,))
    score = dataclasses.replace(found.sequences[0].scores[0], frames=77)
    entry = dataclasses.replace(found.sequences[0], scores=(score,))
    text = markdown([dataclasses.replace(found, sequences=(entry,))])
    assert "n = 1, 1 shorter" in text


def test_sequences_of_one_rule_have_every_headline():
    values = {"a_00": [0.1], "b_00": [0.4], "c_00": ["dropped: no truth"]}
    text = section(markdown([evaluation(values)]), "Sequences")
    assert rows(text) == [
        ["a_00", "0.100", "0.050", "0.050"],
        ["b_00", "0.400", "0.200", "0.200"],
        ["c_00", "dropped", "dropped", "dropped"],
        ["mean", "0.250", "0.125", "0.125"],
        ["median", "0.250", "0.125", "0.125"],
    ]


def test_sequences_of_several_rules_stand_side_by_side():
    text = section(markdown(pair()), "Sequences")
    assert "At 500 frames." in text
    tables = text.split("### ")[1:]
    assert [table.splitlines()[0] for table in tables] == [
        "ATE (m) ↓", "RPE trans (m) ↓", "RPE rot (°) ↓"]  # fmt: skip
    assert rows(tables[0]) == [
        ["a_00", "0.400", "**0.200**"],
        ["b_00", "**0.600**", "0.700"],
        ["c_00", "dropped", "dropped"],
        ["mean", "0.500", "**0.450**"],
        ["median", "0.500", "**0.450**"],
    ]


def test_depth_shows_weighted_and_plain_means():
    values = {"a": [0.1], "b": [0.2], "c": [0.6]}
    found = evaluation(values, weights={"a": 8.0}, **KITTI)
    means = {row[0]: row[1] for row in rows(section(markdown([found]), "Sequences"))}
    assert means["mean, by valid pixels"] == "0.160"
    assert (means["mean"], means["median"]) == ("0.300", "0.200")


def test_failures_and_drops_have_their_reasons():
    lengths = {"lengths": (50, 90, None)}
    first = evaluation(
        {
            "a_00": [0.1, 0.2, "failed: pose of frame 95\nis | not finite"],
            "b_00": ["dropped: 2 unknown", "dropped: 2 unknown", "dropped: 9 unknown"],
        },
        rule="overwrite",
        **lengths,
    )
    second = evaluation({"a_00": [0.1] * 3, "b_00": ["dropped: 2 unknown"] * 2 + [0.3]}, **lengths)
    assert section(markdown([first, second]), "Failures, drops and notes").strip() == (
        "* Failed: a_00 (overwrite, all frames): pose of frame 95 is \\| not finite\n"
        "* Dropped: b_00 (50, 90 frames): 2 unknown\n"
        "* Dropped: b_00 (overwrite, all frames): 9 unknown"
    )


def test_notes_on_scores_are_shown_and_their_absence_is_said():
    found = evaluation({"a_00": [0.1]})
    assert section(markdown([found]), "Failures, drops and notes").strip() == "None."
    score = dataclasses.replace(found.sequences[0].scores[0], note="1 of 90 masked")
    entry = dataclasses.replace(found.sequences[0], scores=(score,))
    text = markdown([dataclasses.replace(found, sequences=(entry,))])
    assert "* Noted: a_00 (90 frames): 1 of 90 masked" in text


def test_corrected_says_that_drops_hold_everywhere():
    values = {"a_00": [0.1, 0.2], "b_00": ["dropped: none known", 0.3]}
    found = evaluation(values, lengths=(90, 500), variant="corrected")
    text = markdown([found])
    assert "left out at all of them" in section(text, "Results")
    assert ["b_00", "left out", "left out", "left out"] in rows(section(text, "Sequences"))
    assert [row[-2] for row in rows(section(text, "Results"))] == ["n = 1, 1 dropped"] * 2


def test_time_and_memory():
    text = section(markdown(pair()), "Time and memory")
    assert rows(text) == [["overwrite", "8.0", "3.00", "4.5"], ["ttt3r", "8.0", "3.00", "4.5"]]
    assert "TTT3R 20 FPS, 6 GB (TTT3R paper (arXiv:2509.26645), abstract)" in text


def test_what_was_not_measured_is_a_dash():
    found = evaluation({"a_00": [0.1]})
    score = dataclasses.replace(found.sequences[0].scores[0], frames_per_second=None)
    entry = dataclasses.replace(found.sequences[0], scores=(score,), peak_memory=None, seconds=None)
    text = markdown([dataclasses.replace(found, sequences=(entry,))])
    assert rows(section(text, "Time and memory")) == [["ttt3r", "-", "-", "-"]]


def test_a_subset_is_labelled_and_lists_of_sequences_may_differ():
    text = markdown([evaluation({"a_00": [0.1]}, complete=False)])
    assert text.startswith(
        "# Camera poses: scannet/stride3/1000 (published), 1 sequence of scannet, a subset\n"
    )
    assert "**A subset:**" in text
    whole = evaluation({"a_00": [0.1], "b_00": [0.1], "c_00": [0.1]}, rule="overwrite")
    assert "ubset" not in markdown([whole])
    part = evaluation({"a_00": [0.1], "b_00": ["failed: unreadable"]}, complete=False)
    text = markdown([whole, part])
    assert "3 sequences of scannet" in text and "the sequences of ttt3r are not those" in text
    settings = {row[0]: row[1] for row in rows(section(text, "Settings"))}
    assert settings["sequences"] == "overwrite: 3, all that count; ttt3r: 2, a subset"
    assert "cannot be ranked" in text and ["c_00", "0.100", "-"] in rows(section(text, "Sequences"))


def test_plots_are_linked():
    text = section(
        markdown(pair(), [Path("plots/ATE & length.png"), Path("plots/a_00.png")]), "Figures"
    )
    assert "![ATE & length](plots/ATE%20%26%20length.png)\n\n![a_00](plots/a_00.png)" in text
    assert "Figures" not in markdown(pair())


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize(
    "values", [{}, {"a_00": ["failed: NaN", "failed: NaN"], "b_00": ["dropped: x", "dropped: x"]}]
)
def test_nothing_was_scored(task, values):
    found = evaluation(values, task=task, lengths=(90, None))
    text = markdown([found, evaluation(values, task=task, lengths=(90, None), rule="overwrite")])
    assert "**No sequence has a score.**" in text
    assert all(r[2:-2] == ["-"] * (len(r) - 4) for r in rows(section(text, "Results")))
    assert ("No sequence has been evaluated." in text) == (not values)
    assert (f"n = 0{', 1 dropped, 1 failed' if values else ''}") in text
    assert r"\bottomrule" in latex([found])


@pytest.mark.parametrize("write", [markdown, latex])
def test_what_cannot_stand_side_by_side(write):
    first, second = pair()
    with pytest.raises(SettingError, match="no evaluation"):
        write([])
    with pytest.raises(SettingError, match="differ in precision, size"):
        write([first, evaluation({}, lengths=(90, 500), size=224, precision="bfloat16")])
    with pytest.raises(SettingError, match="two evaluations are both ttt3r"):
        write([second, second])


# Published numbers


def test_published_numbers_stand_beside_ones_own():
    values = {"a_00": [0.08], "b_00": [0.08], "c_00": [0.08]}
    text = section(markdown([evaluation(values)]), "Published numbers")
    assert "Comparable only with the published weights" in text
    found = {(row[1], row[-1].split(";")[0]): row for row in rows(text)}
    ours = found["TTT3R", "R3 paper (arXiv:2605.26519), Table 2, quoted"]
    assert ours[:3] == ["90", "TTT3R", "0.064 (+25.0 %)"]
    assert found["VGGT (offline)", "R3 paper (arXiv:2605.26519), Table 2, quoted"][2] == "0.035"
    assert "(" not in found["CUT3R", "CUT3R paper (arXiv:2501.12387), Table 3, quoted"][2]
    doubtful = found["TTT3R", "TTT3R paper (arXiv:2509.26645)"]
    assert "unconfirmed: from memory" in doubtful[-1]
    rerun = found["TTT3R", "re-run, github.com/szy233/TTT3R"]
    assert rerun[2] == "0.064" and rerun[-1].endswith("not comparable: n = 3 here")


def test_the_same_number_of_sequences_is_comparable():
    names = tuple(f"s{i}" for i in range(65))
    values = {name: [0.2 + 0.01 * i] for i, name in enumerate(names)}
    found = evaluation(values, lengths=(1000,))
    notes = {row.entry.title: row for row in published_beside([found])[0]}
    assert notes["TTT3R"].own == {"ate": pytest.approx(0.52)}
    assert notes["TTT3R, median"].own == {"ate": pytest.approx(0.52)}
    assert notes["CUT3R"].own == {} and notes["CUT3R"].note == ""
    values["s3"] = ["failed: NaN"]
    found = evaluation(values, lengths=(1000,))
    assert {row.note for row in published_beside([found])[0]} == {"not comparable: 1 failed here"}


def test_single_sequences_are_compared_even_in_a_subset():
    found = evaluation(
        {"heads/seq-01": [0.0337]},
        task="recon", protocol="7scenes/step2/200", data="7scenes", lengths=(200,),
        complete=False,
    )  # fmt: skip
    (row,), reason = published_beside([found])
    assert row.entry.title == "TTT3R, heads/seq-01" and row.entry.n == 1
    assert row.own["accuracy"] == pytest.approx(0.0337) and row.note == ""
    assert "a subset" in reason
    text = section(markdown([found]), "Published numbers")
    assert "0.017 (+100.0 %)" in text and "Other published numbers exist, but" in text


def test_several_sequences_are_averaged():
    short = ("static", "xyz", "halfsphere", "rpy")
    names = tuple(f"{who}_{how}" for who in ("sitting", "walking") for how in short)
    values = {name: [0.1 if name.startswith("sitting") else 0.2] for name in names}
    values["walking_xyz"] = ["failed: NaN"]
    found = evaluation(values, protocol="tum-dynamics/stride1/1000", lengths=(1000,))
    beside = [row for row in published_beside([found])[0] if row.entry.rule == "ttt3r"]
    by = {row.entry.sequences[0]: row for row in beside if row.entry.sequences}
    assert by["sitting_static"].own == {"ate": pytest.approx(0.1)}
    assert by["walking_static"].note == "not comparable: no score here"


def test_only_a_rule_without_resets_is_the_published_method():
    values = {"a_00": [0.08], "b_00": [0.08], "c_00": [0.08]}
    found = evaluation(values, reset="every 100")
    assert all(row.own == {} for row in published_beside([found])[0])
    text = markdown([found])
    assert "ttt3r, reset every 100" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variant": "corrected"}, "follow the published protocol, but this is the corrected one"),
        ({"size": 224}, "images of 512 pixels, these with 224"),
        ({"complete": False}, "these over a subset"),
    ],
)
def test_a_sentence_says_why_nothing_is_comparable(changes, reason):
    found = evaluation({"a_00": [0.1]}, **changes)
    text = section(markdown([found]), "Published numbers")
    assert not rows(text)
    assert text.strip().startswith("Published numbers exist, but cannot be compared with these:")
    assert reason in text
    assert "paper" not in latex([found])


def test_nothing_is_published():
    text = markdown([evaluation({"a_00": [0.1]}, protocol="scannet/stride7/90")])
    assert "No published number of this protocol" in text


# LaTeX


def test_latex_holds_the_same_numbers():
    names = tuple(f"s_{i}" for i in range(65))
    found = [
        evaluation({n: [v] for n in names}, lengths=(500,), rule=rule)
        for rule, v in (("overwrite", 0.5), ("damped(ttt3r, 0.5)", 0.25))
    ]
    text = latex(found)
    assert "500 & overwrite & 0.500 & 0.250 & 0.250 & n = 65 & 8.0 \\\\" in text
    assert r"500 & damped(ttt3r, 0.5) & \textbf{0.250} & \textbf{0.125}" in text
    assert "500 & CUT3R, re-run & 0.667 & - & - & n = 65 & - \\\\" in text
    assert r"Weights cut3r\_512\_dpt\_4\_64" in text
    assert "Published numbers: re-run, github.com/szy233/TTT3R." in text


@pytest.mark.parametrize("found", [pair(), (evaluation({"a": [0.1]}, **KITTI),)])
def test_latex_is_well_formed(found):
    text = latex(found)
    assert text.isascii()
    depth = list(itertools.accumulate((c == "{") - (c == "}") for c in re.sub(r"\\.", "", text)))
    assert min(depth) == 0 == depth[-1]
    begun, ended = (re.findall(rf"\\{w}{{(\w+)}}", text) for w in ("begin", "end"))
    assert begun == ["table", "tabular"] == ended[::-1]
    columns = len(re.search(r"\\begin{tabular}{([lr]+)}", text)[1])
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert lines and {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}


# Tables


def test_best_is_what_the_digits_show():
    low, high = Metric("a", "A", "", 2), Metric("b", "B", "", 2, "higher")
    values = [0.101, 0.104, None, 0.2]
    assert [isinstance(cell, Best) for cell in ranked(values, low)] == [True, True, False, False]
    assert [isinstance(cell, Best) for cell in ranked(values, high)] == [False, False, False, True]
    assert [str(cell) for cell in ranked(values, low)] == ["0.10", "0.10", "-", "0.20"]
    info = Metric("c", "C", "", 2, "none")
    assert not any(isinstance(cell, Best) for cell in ranked([1.0, 2.0], info))
    assert not any(isinstance(cell, Best) for cell in ranked([1.0, None], low))


def test_headings():
    titles = {metric.key: heading(metric) for metric in METRICS["depth"] + METRICS["pose"]}
    assert titles["ate"] == "ATE (m) ↓"
    assert titles["scale"] == "Sim(3) scale"
    assert titles["scale/rmse"] == "RMSE (scale, m) ↓"
    assert titles["scale/delta_1"] == "δ<1.25 (scale) ↑"


def test_percent():
    assert percent(1.1, 1.0) == "+10.0 %" and percent(0.5, 1.0) == "-50.0 %"
    assert percent(1.0, 0.0) == "-"


def test_markdown_lines_up_and_shows_text_as_it_is():
    rows = (("a|b", Best("1")), ("<b>*x*\n`y`", "-"))
    text = markdown_table(Table(("name", "δ"), (rows,)))
    assert text.splitlines() == [
        r"| name            |     δ |",
        r"| --------------- | ----: |",
        r"| a\|b            | **1** |",
        r"| \<b>\*x\* \`y\` |     - |",
    ]
    assert markdown_text("a_b _c_ [d](e) δ<1.25 C:\\x") == r"a_b \_c\_ \[d](e) δ<1.25 C:\\x"


def test_latex_shows_text_as_it_is():
    assert latex_text("50 % of a_b & #1 {x} ~ ^ \\ $") == (
        r"50 \% of a\_b \& \#1 \{x\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \$"
    )
    table = latex_table(Table(("a_b", "c (d)"), ((("x&y", Best("1")),), ())))
    assert r"a\_b & \shortstack{c\\(d)} \\" in table
    assert r"x\&y & \textbf{1} \\" in table
    assert table.count(r"\midrule") == 1


def test_every_title_can_be_printed():
    for metric in itertools.chain(*METRICS.values()):
        assert latex_text(heading(metric)).isascii(), metric
    for found in (published_for("pose", "sintel/stride1/all", None),):
        assert all(latex_text(entry.title).isascii() for entry in found)


def test_what_needs_no_image_stands_beside_the_results():
    found = evaluation({"a_00": [0.1, 0.2]}, lengths=(90, 500))
    values = [mean.metrics["ate_static"] for mean in found.means]  # all baselines are alike here
    section = markdown([found]).split("## Baselines without images")[1].split("##")[0]
    assert "never moves" in section
    for length, value in zip((90, 500), values, strict=True):
        assert re.search(rf"\| *{length} \| *{value:.3f} \|", section)
    failed = evaluation({"a_00": ["failed: NaN"]}, lengths=(90,))
    assert "Baselines without images" not in markdown([failed])
