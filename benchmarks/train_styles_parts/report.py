"""Tables and a picture of what was measured."""

from typing import Any

from PIL import Image, ImageDraw

from benchmarks.train_styles_parts.ways import WAYS

STYLE_ROOM, STRUCTURE_ROOM = 0.01, 0.005
"""How much worse still counts as equal: what another seed changes."""

Curve = list[dict[str, float]]
"""Points of one run: iteration, style, structure, edges."""
Curves = dict[tuple[str, str], Curve]
"""The longest run of a way on a style."""
Paces = dict[str, dict[str, Any]]
"""What :func:`~benchmarks.train_styles_parts.runs.measure_pace` wrote, by way."""


def equal(ours: dict[str, float], release: dict[str, float]) -> bool:
    """Whether pictures are as near to the reference as the release's, and keep as much structure."""
    return ours["style"] <= release["style"] + STYLE_ROOM and ours["structure"] <= release["structure"] + STRUCTURE_ROOM


def write_report(styles: list[str], paces: Paces, curves: Curves) -> str:
    """Tables of all ways, means over styles, and of every style; the last line, ``cheaper: N.N``, is of the cheapest
    way that is equal on all."""
    lines = [
        "| way | what it adds | s an iteration | TFLOP | iterations | s to equal quality | times cheaper | style |"
        " structure | edges | MB stored | MB of a state | peak MB |",
        "|---" * 13 + "|",
    ]
    release = {style: _reached("release", style, paces, curves) for style in styles}
    judged = [name for name in paces if name != "release" and not WAYS[name].timed]
    each = {style: [f"{release[style]['seconds']:.3g}"] for style in styles}
    cheaper = 0.0
    for name, pace in paces.items():
        row = [name, WAYS[name].lever, f"{pace['seconds']:.3g}", f"{pace['flop'] / 1e12:.2f}"]
        if WAYS[name].timed:
            row += [""] * 6
        else:
            points = {style: _reached(name, style, paces, curves) for style in styles}
            seconds = _mean([point["seconds"] for point in points.values()])
            times = _mean([point["seconds"] for point in release.values()]) / seconds
            same = sum(bool(point["equal"]) for point in points.values())
            if same == len(styles):
                cheaper = max(cheaper, times)
            row += [f"{_mean([point['iteration'] for point in points.values()]):.1f}"]
            row += [f"{seconds:.3g} (equal on {same} of {len(styles)})", f"{times:.1f}"]
            row += [f"{_mean([p[figure] for p in points.values()]):.3f}" for figure in ("style", "structure", "edges")]
            for style, point in points.items() if name in judged else ():
                each[style] += [f"{point['seconds']:.3g}" + ("" if point["equal"] else " (not equal)")]
                each[style] += [f"{release[style]['seconds'] / point['seconds']:.1f}"]
        row += [f"{pace[size] / 1e6:.2f}" for size in ("bytes", "state_bytes")] + [f"{pace['memory'] / 1e6:.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", f"| style, s to equal quality | release | {' | '.join(f'{name} | times' for name in judged)} |"]
    lines += ["|---" * (2 + 2 * len(judged)) + "|"]
    lines += [f"| {style} | {' | '.join(cells)} |" for style, cells in each.items()]
    return "\n".join([*lines, "", f"cheaper: {cheaper:.1f}"])


def _reached(way: str, style: str, paces: Paces, curves: Curves) -> dict[str, Any]:
    """The first point of the curve that is as good as the release's end, or its last point."""
    curve, target = curves[way, style], curves["release", style][-1]
    point: dict[str, Any] = next((p | {"equal": True} for p in curve if equal(p, target)), curve[-1] | {"equal": False})
    return point | {"seconds": paces[way]["seconds"] * point["iteration"]}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(styles: list[str], paces: Paces, curves: Curves) -> Image.Image:
    """Style distance (above) and structure distance (below) by seconds of training, one line a way and style."""
    width, height, margin = 900, 320, 40
    image = Image.new("RGB", (width, 2 * height), "white")
    pen = ImageDraw.Draw(image)
    shown = [name for name in paces if not WAYS[name].timed]
    hues = ["black", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e"]
    colors = {name: hues[i % len(hues)] for i, name in enumerate(shown)}
    lines = [(name, curves[name, style]) for name in shown for style in styles]
    right = max(point["iteration"] * paces[name]["seconds"] for name, curve in lines for point in curve)
    for part, figure in enumerate(("style", "structure")):
        top = max(point[figure] for _, curve in lines for point in curve)
        foot = height * (part + 1) - margin
        pen.line([(margin, foot), (width - margin, foot)], "gray")
        title = f"{figure} distance, 0 to {top:.2f}; 0 to {right:.3g} seconds of training"
        pen.text((margin, height * part + 5), title, "black")
        across, up = (width - 2 * margin) / right, (height - 2 * margin) / top
        for name, curve in lines:
            pace = paces[name]["seconds"]
            spots = [(margin + p["iteration"] * pace * across, foot - p[figure] * up) for p in curve]
            pen.line(spots, colors[name], 2)
    for row, name in enumerate(shown):
        pen.text((width - 140, 20 + 12 * row), name, colors[name])
    return image
