"""The report of the distances between simulated and real CT: JSON, Markdown and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from triage.simulate.realism.measure import FREQUENCIES, Sample, spectrum_distance
from triage.simulate.realism.published import USUAL

WINDOW = (-150.0, 250.0)  # HU
Rows = list[dict[str, Any]]


def _tile(plane: NDArray[np.float32], size: tuple[float, float], scale: float) -> Image.Image:
    """A plane (first axis to the patient's right, second upwards) as seen by a radiologist."""
    grey = (plane - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    pixels = (np.clip(grey, 0, 1) * 255).astype(np.uint8)[::-1, ::-1].T
    shape = tuple(round(n * s * scale) for n, s in zip(plane.shape, size, strict=True))
    return Image.fromarray(pixels).resize((shape[0], shape[1]), Image.Resampling.BICUBIC)


def preview(s: Sample, levels: int = 6, scale: float = 0.9) -> list[Image.Image]:
    """Axial slices from head to feet, and a coronal one."""
    body = np.argwhere((s.hu[::2, ::2] > -300).mean(2) > 0.1) * 2
    (x0, y0), (x1, y1) = body.min(0), body.max(0) + 2
    tiles = []
    for share in np.linspace(0.93, 0.12, levels):
        k = round(float(share) * (s.hu.shape[2] - 1))
        tiles.append(_tile(s.hu[x0:x1, y0:y1, k], s.spacing[:2], scale))
    middle = round(y0 + 0.5 * (y1 - y0))
    tiles.append(_tile(s.hu[x0:x1, middle], (s.spacing[0], s.spacing[2]), 0.6 * scale))
    return tiles


def montage(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    """One row of pictures for each CT, with its name."""
    columns = max(len(tiles) for _, tiles in rows)
    wide = [max(t[k].width for _, t in rows if k < len(t)) + 4 for k in range(columns)]
    high = [max(i.height for i in tiles) + 14 for _, tiles in rows]
    sheet = Image.new("L", (sum(wide), sum(high)), 30)
    draw, y = ImageDraw.Draw(sheet), 0
    for (name, tiles), height in zip(rows, high, strict=True):
        draw.text((4, y), name, fill=255)
        x = 0
        for tile, step in zip(tiles, wide, strict=False):
            sheet.paste(tile, (x, y + 12))
            x += step
        y += height
    sheet.save(path)


def plot_spectra(rows: Rows, path: Path) -> None:
    """Normalised noise power spectra of all CTs: real bold, simulated thin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    axes = figure.add_subplot()
    for row in rows:
        if row["noise"]:
            power = [np.nan if v is None else v for v in row["noise"]["power"]]
            style: dict[str, Any] = (
                {"lw": 0.8, "alpha": 0.6, "color": "tab:blue"}
                if row["simulated"]
                else {"lw": 2.2, "label": row["name"]}
            )
            axes.plot((FREQUENCIES[:-1] + FREQUENCIES[1:]) / 2, power, **style)
    axes.set_xlabel("spatial frequency, 1/mm")
    axes.set_ylabel("noise power, normalised (thin blue: simulated)")
    axes.legend()
    figure.savefig(path, dpi=90)


def compare(rows: Rows) -> dict[str, Any]:
    """Distances between the simulated and the real, and what agrees.

    A figure agrees where the simulated range (all patients) overlaps the real one, or the published
    one, and the simulated median lies no further from it than its width.
    """
    sim = [r for r in rows if r["simulated"]]
    true = [r for r in rows if not r["simulated"]]
    hu = []
    for row in USUAL:
        here = [
            r["hu"][row.structure]
            for r in sim
            if r["phase"] == row.phase.value and row.structure in r["hu"]
        ]
        if here:
            mean = float(np.mean([h["mean"] for h in here]))
            hu.append(
                {
                    "structure": row.structure,
                    "phase": row.phase.value,
                    "mean": mean,
                    "between_patients": float(np.std([h["mean"] for h in here])),
                    "within_patient": float(np.mean([h["sd"] for h in here])),
                    "patients": len(here),
                    "published": [row.low, row.high],
                    "real": [
                        round(r["hu"][row.structure]["mean"], 1)
                        for r in true
                        if r["phase"] == row.phase.value and row.structure in r["hu"]
                    ],
                    "basis": row.basis,
                    "source": row.source,
                    "agrees": row.low <= mean <= row.high,
                }
            )
    scalars = {
        "noise sd (HU)": lambda r: r["noise"] and r["noise"]["sd"],
        "mean noise frequency (1/mm)": lambda r: r["noise"] and r["noise"]["mean_frequency"],
        "slice correlation": lambda r: r["slice_correlation"],
        "liver-fat rise (mm)": lambda r: r["edge_mm"]["liver"] and r["edge_mm"]["liver"]["median"],
        "kidney-fat rise (mm)": lambda r: (
            r["edge_mm"]["kidney"] and r["edge_mm"]["kidney"]["median"]
        ),
        "spleen-fat rise (mm)": lambda r: (
            r["edge_mm"]["spleen"] and r["edge_mm"]["spleen"]["median"]
        ),
        "sd of fat (HU)": lambda r: r["hu"].get("fat", {}).get("sd"),
        "sd of muscle (HU)": lambda r: r["hu"].get("muscle", {}).get("sd"),
    }
    ranges = [_range(name, get, sim, true) for name, get in scalars.items()]
    return {"hu": hu, "ranges": [r for r in ranges if r], "spectra": _spectra(sim, true)}


def _range(name: str, get: Any, sim: Rows, true: Rows) -> dict[str, Any] | None:
    a, b = ([v for r in rows if (v := get(r)) is not None] for rows in (sim, true))
    if not a or not b:
        return None
    middle, low, high = float(np.median(a)), min(b), max(b)
    room = max(high - low, 0.25 * high)
    near = low - room <= middle <= high + room
    return {
        "measure": name,
        "simulated": [min(a), middle, max(a)],
        "real": [round(v, 3) for v in b],
        "agrees": bool(near and min(a) <= high and max(a) >= low),
    }


def _spectra(sim: Rows, true: Rows) -> Rows:
    """For each real CT: distance to the nearest simulated spectrum, and among the real ones."""
    out = []
    for row in true:
        if not row["noise"]:
            continue
        mine = [spectrum_distance(row["noise"], s["noise"]) for s in sim if s["noise"]]
        others = [
            spectrum_distance(row["noise"], t["noise"]) for t in true if t is not row and t["noise"]
        ]
        out.append(
            {
                "real": row["name"],
                "nearest_simulated": min(mine, default=None),
                "median_simulated": float(np.median(mine)) if mine else None,
                "other_real": [round(v, 3) for v in others],
                "agrees": bool(mine) and min(mine) < 0.15,
            }
        )
    return out


def write(rows: Rows, out: Path) -> dict[str, Any]:
    """report.json and report.md in `out`; returns the comparison."""
    result = compare(rows)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"comparison": result, "samples": rows}, indent=1)
    (out / "report.json").write_text(text + "\n")
    (out / "report.md").write_text(_markdown(result, rows))
    return result


def _mark(agrees: bool) -> str:
    return "yes" if agrees else "**no**"


def _markdown(result: dict[str, Any], rows: Rows) -> str:
    """The report for reading."""
    count = sum(r["simulated"] for r in rows)
    lines = [
        "# Simulated and real CT, measured alike",
        "",
        f"{count} simulated, {len(rows) - count} real CTs. Pictures: `montage.png`, `spectra.png`.",
        "",
        "## Attenuation",
        "",
        "| structure | phase | simulated: mean, between, within | usual | real CTs | basis | "
        "agrees |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in result["hu"]:
        mean = f"{r['mean']:.0f}, {r['between_patients']:.0f}, {r['within_patient']:.0f}"
        known = " ".join(f"{v:.0f}" for v in r["real"]) or "-"
        lines.append(
            f"| {r['structure']} | {r['phase']} | {mean} | {r['published'][0]:.0f} to "
            f"{r['published'][1]:.0f} | {known} | {r['basis']}: {r['source']} | "
            f"{_mark(r['agrees'])} |"
        )
    lines += [
        "",
        "## Texture and sharpness",
        "",
        "| measure | simulated: least, median, most | real CTs | agrees |",
        "|---|---|---|---|",
    ]
    for r in result["ranges"]:
        low, middle, high = r["simulated"]
        known = " ".join(f"{v:.2f}" for v in r["real"])
        lines.append(
            f"| {r['measure']} | {low:.2f}, {middle:.2f}, {high:.2f} | {known} | "
            f"{_mark(r['agrees'])} |"
        )
    lines += [
        "",
        "## Noise power spectra",
        "",
        "Half the area between normalised spectra: 0 alike, 1 disjoint.",
        "",
        "| real CT | nearest simulated | median | other real CTs | agrees |",
        "|---|---|---|---|---|",
    ]
    for r in result["spectra"]:
        known = " ".join(f"{v:.2f}" for v in r["other_real"])
        near, middle = (
            "-" if r[k] is None else f"{r[k]:.2f}"
            for k in ("nearest_simulated", "median_simulated")
        )
        lines.append(f"| {r['real']} | {near} | {middle} | {known} | {_mark(r['agrees'])} |")
    return "\n".join(lines) + "\n"
