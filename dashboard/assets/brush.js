/* The strip over the whole run: the highest layer and the kNN curve, dips shaded, and a window to drag: the zoom. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});
  const HEIGHT = 54, LEFT = 88, RIGHT = 16, SMALLEST = 4;  // the charts' own margins, so that the steps stand in line
  let shown = null, parts = null, held = null;

  function make(tag, name, label) {
    const node = document.createElement(tag);
    node.className = name;
    if (label) {
      node.setAttribute("role", "slider");
      node.setAttribute("aria-label", label);
      node.tabIndex = 0;
    }
    return node;
  }

  function build(root) {
    const canvas = make("canvas", "fs-brush-canvas"), frame = make("div", "fs-brush-window");
    const low = make("div", "fs-brush-edge", "Zoom from step"), high = make("div", "fs-brush-edge fs-brush-high", "Zoom to step");
    frame.append(low, high);
    root.append(canvas, frame);
    parts = { root, canvas, frame, low, high };
    root.addEventListener("pointerdown", begin);
    root.addEventListener("pointermove", move);
    root.addEventListener("pointerup", end);
    root.addEventListener("pointercancel", () => { held = null; place(); });
    root.addEventListener("dblclick", () => fs.setZoom(null));
    for (const edge of [low, high]) edge.addEventListener("keydown", nudge);
    new ResizeObserver(() => shown && paint()).observe(root);
  }

  // ---- steps and pixels ----

  const inner = () => Math.max(50, parts.root.clientWidth - LEFT - RIGHT);
  const extent = () => shown.kept.extent;
  const pixel = (step) => LEFT + ((step - extent()[0]) / (extent()[1] - extent()[0])) * inner();

  function stepAt(event) {
    const x = event.clientX - parts.root.getBoundingClientRect().left - LEFT;
    const share = Math.max(0, Math.min(1, x / inner()));
    return extent()[0] + share * (extent()[1] - extent()[0]);
  }

  // ---- painting ----

  function highest(kept) {  // of all layers, column by column
    const map = kept.raw.heatmap && kept.raw.heatmap.data[0];
    return map && map.map ? { x: map.x, y: fs.map.highest(map.map) } : { x: [], y: [] };
  }

  function curve(context, x, y, colour, fill) {
    const seen = x.map((step, i) => [pixel(step), y[i]]).filter((point) => point[1] !== null && Number.isFinite(point[1]));
    if (seen.length < 2) return;
    const sorted = seen.map((point) => point[1]).sort((a, b) => a - b);
    const low = sorted[Math.floor(sorted.length * 0.02)], high = sorted[sorted.length - 1];
    const at = (v) => HEIGHT - 4 - (Math.max(0, v - low) / (high - low || 1)) * (HEIGHT - 10);
    context.beginPath();
    seen.forEach((point, i) => context[i ? "lineTo" : "moveTo"](point[0], at(point[1])));
    context.strokeStyle = colour;
    context.lineWidth = 1.2;
    if (fill) {
      context.lineTo(seen[seen.length - 1][0], HEIGHT);
      context.lineTo(seen[0][0], HEIGHT);
      context.fillStyle = fill;
      context.fill();
    } else {
      context.stroke();
    }
  }

  function paint() {
    const { kept, tokens } = shown, { canvas } = parts, ratio = window.devicePixelRatio || 1;
    const width = parts.root.clientWidth;
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = HEIGHT * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const knn = kept.raw.knn || { data: [], layout: {} };
    context.fillStyle = `${tokens.$dip}40`;
    for (const dip of knn.layout.shapes || []) context.fillRect(pixel(dip.x0), 0, Math.max(1.5, pixel(dip.x1) - pixel(dip.x0)), HEIGHT);
    const top = highest(kept), line = knn.data.find((trace) => trace.name === "kNN accuracy");
    curve(context, top.x, top.y, tokens.$first, `${tokens.$first}90`);
    if (line) curve(context, line.x, line.y, tokens.$knn);
    place();
  }

  function place(range) {
    const [from, to] = range || shown.kept.zoom || extent(), left = pixel(Math.max(from, extent()[0]));
    parts.frame.style.left = `${left}px`;
    parts.frame.style.width = `${Math.max(6, pixel(Math.min(to, extent()[1])) - left)}px`;
    parts.frame.classList.toggle("fs-brush-all", !range && !shown.kept.zoom);
    for (const [edge, value] of [[parts.low, from], [parts.high, to]]) {
      edge.setAttribute("aria-valuemin", Math.round(extent()[0]));
      edge.setAttribute("aria-valuemax", Math.round(extent()[1]));
      edge.setAttribute("aria-valuenow", Math.round(value));
    }
  }

  // ---- dragging ----

  function begin(event) {
    if (!shown || !extent() || event.button) return;
    const step = stepAt(event), zoom = shown.kept.zoom;
    const range = (zoom || extent()).slice();
    const kind = event.target === parts.low ? "low" : event.target === parts.high ? "high"
      : zoom && step > zoom[0] && step < zoom[1] ? "move" : "new";
    held = { kind, step, range, now: null };
    parts.root.setPointerCapture(event.pointerId);
  }

  function move(event) {
    if (!held) return;
    const step = stepAt(event), [from, to] = held.range, [first, last] = extent();
    const by = Math.max(first - from, Math.min(last - to, step - held.step));
    held.now = { low: [step, to], high: [from, step], move: [from + by, to + by], new: [held.step, step] }[held.kind];
    held.now = [Math.min(...held.now), Math.max(...held.now)];
    place(held.now);
  }

  function end() {
    const range = held && held.now;
    held = null;
    if (!range || range[1] - range[0] < SMALLEST) return place();
    const all = range[0] <= extent()[0] && range[1] >= extent()[1];
    fs.setZoom(all ? null : range);
  }

  function nudge(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const range = (shown.kept.zoom || extent()).slice(), by = (way * (extent()[1] - extent()[0])) / 50;
    const i = event.target === parts.low ? 0 : 1;
    range[i] = Math.max(extent()[0], Math.min(extent()[1], range[i] + by));
    if (range[1] - range[0] >= SMALLEST) fs.setZoom(range);
  }

  /* Draw the strip for what is kept; called whenever the charts along the steps are drawn. */
  fs.brush = (kept, scheme) => {
    const root = document.getElementById("brush");
    if (!root || !kept.extent) return;
    if (!parts || parts.root !== root) build(root);
    shown = { kept, tokens: scheme.tokens };
    if (!held) paint();
  };

  /* The window alone, where it is now. */
  fs.brushed = () => { if (shown && !held) place(); };
})();
