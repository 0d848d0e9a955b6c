"""The growth benchmark as a command: its arguments, report, table and figure."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ttt3r
from benchmarks import growth, growth_networks
from benchmarks.growth import find_device, measure
from benchmarks.growth_figure import draw, round_ticks, spread_apart
from benchmarks.growth_report import COLUMNS, growth_per_frame, report

NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_labels_keep_their_order_and_distance():
    moved = spread_apart([0.0, 0.01, 0.5, 0.98, 0.99, 1.0], 0.1)
    assert moved == sorted(moved) and moved[-1] == 1.0 and moved[0] == 0.0
    assert min(np.diff(moved)) > 0.1 - 1e-9
    assert spread_apart([0.2, 0.6], 0.1) == [0.2, 0.6]


def test_ticks_are_round_and_few():
    assert round_ticks(0.9, 12.0) == [1.0, 2.0, 5.0, 10.0]
    assert round_ticks(0.9, 1100.0) == [1.0, 10.0, 100.0, 1000.0]
    assert round_ticks(253.0, 331.0) == [253.0, 331.0]


def test_growth_is_that_between_the_first_and_the_last_measured_frame():
    rows = [{"frame": frame, "state_bytes": 100 + 6 * frame} for frame in (1, 2, 5, 9)]
    assert growth_per_frame(rows) == 6.0
    assert growth_per_frame(rows[:1]) is None and growth_per_frame([]) is None


def test_a_gpu_is_named_with_its_memory(tmp_path):
    facts = {"cpu": "a processor", "cores": 8, "threads": 8, "torch": "2", "commit": "c"}
    row = {"state_bytes": 2**20, "peak_bytes": 2**21, "pointers": None}
    result = {
        "family": "ttt3r",
        "title": "CUT3R, ttt3r",
        "rows": [row | {"frame": 1, "seconds": 0.5}, row | {"frame": 2, "seconds": 0.1}],
        "ended": "stopped at frame 3: out of memory",
        "base_bytes": 2**20,
        "weights_bytes": 2**20,
        "size": [32, 32],
        "machine": facts | {"gpu": "a GPU"},
    }
    settings = {"width": "full", "precision": "bfloat16", "command": "the command"}
    printed = report([result], settings, (1, 2))
    assert "Machine: a GPU, a processor" in printed
    assert "full networks in bfloat16, 32x32 pixels" in printed
    assert "| GPU memory before (MiB) | GPU peak (MiB) |" in printed
    assert "| Peak GPU memory so far (MiB) at frame |" in printed
    assert "| CUT3R, ttt3r | stopped at frame 3: out of memory | 1 | 1 | 2 | 0 |" in printed
    draw([result], tmp_path / "gpu.png")
    with Image.open(tmp_path / "gpu.png") as picture:
        assert picture.width > 1000


def run_here(monkeypatch, *arguments):
    """Run the command with its workers in this process."""
    options = {}

    def here(module, words):
        options.update(zip(words[::2], words[1::2], strict=True))
        assert module == "growth"
        budgets = (float(options["--seconds"]), float(options["--memory"]) * 2.0**30)
        frames, path = int(options["--frames"]), Path(options["--stream"])
        more = (torch.device(options["--device"]), options["--precision"])
        result = measure(options["--worker"], options["--width"], path, frames, budgets, *more)
        return json.loads(json.dumps(result))

    monkeypatch.setattr("benchmarks.machine.in_subprocess", here)
    monkeypatch.setattr(sys, "argv", ["growth", "--width", "tiny", *arguments])
    growth.main()


def test_the_command_writes_report_table_and_figure(monkeypatch, capsys, tmp_path):
    paths = {kind: tmp_path / "new" / f"growth.{kind}" for kind in ("csv", "png", "json")}
    run_here(
        monkeypatch, "--frames", "6", "--only", "ttt3r,point3r", "--csv", str(paths["csv"]),
        "--plot", str(paths["png"]), "--json", str(paths["json"]),
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "| CUT3R, ttt3r | all 6 frames |" in printed
    assert "python -m benchmarks.growth --width tiny --frames 6" in printed
    pointers = [line for line in printed.splitlines() if line.startswith("| Point3R, fuse | 4 |")]
    assert len(pointers) == 1
    constant = [line for line in printed.splitlines() if line.startswith("| CUT3R, ttt3r | all")]
    assert constant[0].endswith("| 0 |") and "grows by (MiB per frame)" in printed

    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["family"], row["frame"]) for row in rows] == [
        (title, frame) for title in ("CUT3R, ttt3r", "Point3R, fuse") for frame in "1256"
    ]
    kept = json.loads(paths["json"].read_text())
    flat = [row for result in kept["results"] for row in result["rows"]]
    assert [int(row["state_bytes"]) for row in rows] == [row["state_bytes"] for row in flat]

    picture = np.asarray(Image.open(paths["png"]).convert("RGB"))
    assert picture.shape[1] > 2 * picture.shape[0]
    for panel in np.array_split(picture, 3, axis=1):
        for colour in ((0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73)):  # of the two families
            assert (panel == colour).all(-1).sum() > 100


def test_a_spent_budget_is_a_result(monkeypatch, capsys):
    run_here(monkeypatch, "--frames", "5", "--only", "vggt", "--seconds", "0")
    assert "| VGGT, keep_all | stopped at frame 1: time budget |" in capsys.readouterr().out


def test_the_end_of_memory_is_a_result(monkeypatch, capsys, tmp_path):
    push, pushed = ttt3r.Session.push, []

    def fail(session, image):
        pushed.append(image)
        if len(pushed) == 4:  # the first one warms up
            raise NO_ROOM
        return push(session, image)

    monkeypatch.setattr(ttt3r.Session, "push", fail)
    table, figure = tmp_path / "growth.csv", tmp_path / "growth.png"
    arguments = ("--frames", "6", "--only", "fast3r,vggt", "--precision", "bfloat16")
    run_here(monkeypatch, *arguments, "--csv", str(table), "--plot", str(figure))
    printed = capsys.readouterr().out
    assert "| Fast3R, keep_all | stopped at frame 3: out of memory |" in printed
    assert "| VGGT, keep_all | all 6 frames |" in printed
    assert "tiny networks in bfloat16" in printed
    assert [line.count("stopped") for line in table.read_text().splitlines()][:4] == [0, 1, 1, 0]
    assert figure.exists()


def test_a_family_without_room_for_its_weights_is_in_the_report(monkeypatch, capsys, tmp_path):
    def build(*_):
        raise NO_ROOM

    monkeypatch.setattr(growth_networks, "build", build)
    table, figure = tmp_path / "growth.csv", tmp_path / "growth.png"
    files = ("--csv", str(table), "--plot", str(figure))
    run_here(monkeypatch, "--frames", "2", "--only", "vggt", *files)
    assert (
        "| VGGT, keep_all | stopped at frame 1: out of memory |  |  |  |  |"
        in capsys.readouterr().out
    )
    assert table.read_text() == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--only", "ttt3r,dust3r"),
        ("--frames", "0"),
        ("--width", "huge"),
        ("--precision", "half"),
        ("--device", "mps"),
        ("--device", "cuda:x"),
    ],
)
def test_wrong_arguments_are_named(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        run_here(monkeypatch, *arguments)
    assert caught.value.code == 2
    assert arguments[1].split(",")[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "name", "error"),
    [
        (0, "cuda", "cuda is not available: PyTorch finds no CUDA GPU"),
        (2, "cuda:2", "cuda:2 is not available: the last GPU here is cuda:1"),
    ],
)
def test_an_absent_gpu_is_an_error_of_one_sentence(monkeypatch, capsys, count, name, error):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(SystemExit) as caught:
        run_here(monkeypatch, "--device", name)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: argument --device: {error}")


def test_gpus_are_found_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("cpu") == growth.CPU
