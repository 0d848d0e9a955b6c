"""Errors against the length of the stream, as a picture."""

from pathlib import Path
from typing import Any

from benchmarks.card_parts import RESET, STREAM_RULES
from benchmarks.card_rows import CONSTANT, STATIC, WALK
from benchmarks.card_streams import Variant
from benchmarks.card_verdicts import mean, stream_rows
from ttt3r.errors import Ttt3rError

# Distinct also to most colour-blind eyes (Okabe and Ito).
COLOURS = ("#000000", "#0072b2", "#e69f00", "#009e73")
GREYS = {STATIC: ":", WALK: "-.", CONSTANT: (0, (1, 3))}
PANELS = (
    ("ate", "ATE (m)", (STATIC, WALK)),
    ("abs_rel", "AbsRel, scaled", (CONSTANT,)),
)


def require_matplotlib() -> None:
    """Find out early.

    Raises:
        Ttt3rError: if matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise Ttt3rError(
            "the figure needs matplotlib, which is not installed. "
            "Install it with: pip install --group dev"
        ) from error


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw ATE and AbsRel against the length; solid is never reset, dashed is reset.

    Args:
        results: as of `card_text.render_card`.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    streams, prefixes = results["streams"], results["settings"]["prefixes"]
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for axis, (key, title, baselines) in zip(axes, PANELS, strict=True):

        def line(
            method: str, *, label: str, axis: Any = axis, key: str = key, **style: Any
        ) -> None:
            points = [(n, mean(stream_rows(streams, n, method), key)) for n in prefixes]
            known = [(n, y) for n, y in points if y is not None]
            if known:
                axis.plot(*zip(*known, strict=True), label=label, **style)

        for rule, colour in zip(STREAM_RULES, COLOURS, strict=True):
            for reset, dashes in (("never", "-"), (RESET, "--")):
                name = Variant(rule, reset).name
                line(name, label=name, color=colour, linestyle=dashes, marker=".")
        for name in baselines:
            line(name, label=name, color="0.5", linestyle=GREYS[name])
        axis.set_xscale("log", base=2)
        axis.set_xticks(prefixes, [str(n) for n in prefixes])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel("frames of the stream")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    known = {label: handle for axis in axes for handle, label in _legend(axis)}
    figure.legend(known.values(), known.keys(), loc="outside right center", fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path), metadata={"Software": None})


def _legend(axis: Any) -> list[tuple[Any, str]]:
    return list(zip(*axis.get_legend_handles_labels(), strict=True))
