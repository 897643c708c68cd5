"""One self-contained page that turns measured surfaces by mouse: no library, no network."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from analysis.geometry import Landscape

__all__ = ["surfaces_page"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Loss landscapes</title><style>
body{font:14px system-ui,sans-serif;margin:1.5em;max-width:60em}
canvas{border:1px solid #ccc;cursor:grab;touch-action:none}
label{margin-right:1em}#about{color:#444;margin:.6em 0}</style></head><body>
<h1>Loss landscapes</h1><p><label>surface <select id="which"></select></label>
<label><input type="checkbox" id="shared" checked> one scale for all</label>
<label><input type="checkbox" id="log"> logarithm of the rise</label></p>
<canvas id="view" width="760" height="520"></canvas><p id="about"></p>
<p>Drag to turn, scroll to zoom. Points without a finite loss are left out.</p><script>
const surfaces = @DATA@;
const view = document.getElementById("view"), pen = view.getContext("2d"), which = document.getElementById("which");
const shared = document.getElementById("shared"), log = document.getElementById("log");
let turn = -0.7, tilt = 0.6, zoom = 1, grip = null;
surfaces.forEach((s, i) => which.add(new Option(s.title || "surface " + (i + 1), i)));
const height = (s, v) => v === null ? null : log.checked ? Math.log10(Math.max(v - s.center, 1e-9)) : v;
function range(list) {
  let low = Infinity, high = -Infinity;
  for (const s of list) for (const row of s.values) for (const v of row) { const h = height(s, v);
    if (h !== null) { low = Math.min(low, h); high = Math.max(high, h); } }
  return [low, high > low ? high : low + 1];
}
function color(t) {
  const stops = [[68,1,84],[59,82,139],[33,145,140],[94,201,98],[253,231,37]], p = Math.min(Math.max(t, 0), 1) * 4;
  const i = Math.min(3, Math.floor(p)), f = p - i;
  return "rgb(" + stops[i].map((c, k) => Math.round(c + f * (stops[i + 1][k] - c))).join(",") + ")";
}
function draw() {
  const s = surfaces[which.value], [low, high] = range(shared.checked ? surfaces : [s]);
  const n = s.y.length, m = s.x.length, reach = Math.max(...s.x.map(Math.abs), ...s.y.map(Math.abs));
  const put = (x, y, t) => {
    const a = x * Math.cos(turn) - y * Math.sin(turn), b = x * Math.sin(turn) + y * Math.cos(turn);
    return [380 + 230 * zoom * a, 270 + 230 * zoom * (b * Math.sin(tilt) - (t - 0.5) * Math.cos(tilt)), b]; };
  pen.clearRect(0, 0, 760, 520);
  const faces = [];
  for (let i = 0; i + 1 < n; i++) for (let j = 0; j + 1 < m; j++) {
    const at = [[i, j], [i, j + 1], [i + 1, j + 1], [i + 1, j]], hs = at.map(([a, b]) => height(s, s.values[a][b]));
    if (hs.some(h => h === null)) continue;
    const ts = hs.map(h => (h - low) / (high - low));
    const ps = at.map(([a, b], k) => put(s.x[b] / reach, s.y[a] / reach, ts[k]));
    faces.push([ps.reduce((u, p) => u + p[2], 0), ps, ts.reduce((u, t) => u + t, 0) / 4]);
  }
  faces.sort((a, b) => a[0] - b[0]);
  for (const [, ps, t] of faces) { pen.beginPath();
    ps.forEach((p, k) => k ? pen.lineTo(p[0], p[1]) : pen.moveTo(p[0], p[1]));
    pen.closePath(); pen.fillStyle = color(t); pen.fill(); pen.strokeStyle = "rgba(0,0,0,.25)"; pen.stroke(); }
  document.getElementById("about").textContent = s.about +
    " Shown from " + low.toPrecision(3) + " to " + high.toPrecision(3) + ".";
}
for (const control of [which, shared, log]) control.addEventListener("input", draw);
view.addEventListener("pointerdown", e => { grip = [e.clientX, e.clientY]; view.setPointerCapture(e.pointerId); });
view.addEventListener("pointerup", () => grip = null);
view.addEventListener("pointermove", e => { if (!grip) return; turn -= (e.clientX - grip[0]) / 150;
  tilt = Math.min(1.5, Math.max(0.05, tilt + (e.clientY - grip[1]) / 200)); grip = [e.clientX, e.clientY]; draw(); });
view.addEventListener("wheel", e => { e.preventDefault(); zoom *= Math.exp(-e.deltaY / 900); draw(); },
  { passive: false });
draw();
</script></body></html>
"""


def surfaces_page(surfaces: Sequence[Landscape]) -> str:
    """Return the page's text.

    Args:
        surfaces: two-dimensional landscapes; the reader picks one, on one scale for all or on its own.

    Raises:
        ValueError: if there is none, or one is a line.
    """
    if not surfaces or any(surface.is_line for surface in surfaces):
        raise ValueError("a page needs at least one landscape, each of two directions")
    data = [
        {
            "title": surface.title,
            "x": surface.x.tolist(),
            "y": surface.y.tolist(),
            "center": surface.center_loss,
            "values": [[value if math.isfinite(value) else None for value in row] for row in surface.values.tolist()],
            "about": (
                f"{surface.space} space, {surface.directions} directions, {surface.normalization} normalisation, "
                f"{surface.evaluations} evaluations ({surface.method}), loss at the centre {surface.center_loss:.4g}."
            ),
        }
        for surface in surfaces
    ]
    return _PAGE.replace("@DATA@", json.dumps(data).replace("</", "<\\/"))
