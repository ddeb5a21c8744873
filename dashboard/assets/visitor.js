/* What the visitor does: zoom, choose an event, pause; with the keys (keys.js), the strip (brush.js) or in a chart. */

(function () {
  "use strict";

  const fs = window.foreshock, { kept, set } = fs;
  const PATIENCE_MS = 150;  // the columns that are there are drawn wider when finer ones have not come so long

  function setZoom(range) {
    if (range && kept.zoom && range[0] === kept.zoom[0] && range[1] === kept.zoom[1]) return;
    kept.zoom = range;
    if (range) {
      fs.askFine();
      fs.brushed();
      if (kept.late === null) kept.late = setTimeout(fs.drawSteps, PATIENCE_MS);
    } else {
      kept.fine = null;
      fs.drawSteps();
    }
    zoomTold();
    tellAddress();
  }

  /* Enable the button for the whole run. Dash looks at the whole page for every property set: not at every zoom. */
  function zoomTold() {
    const told = kept.zoom === null;
    if (kept.zoomTold !== told) set("whole", { disabled: told });
    kept.zoomTold = told;
  }

  function tellAddress() {
    fs.address({ ...kept.place, zoom: kept.zoom, event: kept.event && kept.chosen ? kept.event : "" });
  }

  function choose(key, view) {
    Object.assign(kept, { chosen: true, event: key });
    set("event", { data: key });
    if (view) return go(view);
    const card = document.getElementById("card-neighbourhood");
    if (card && window.innerWidth < 1100) {
      const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      card.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
    }
  }

  function go(view) {
    if (!document.querySelector(`[data-view="${view}"]`)) return;
    set("view", { data: view });
    window.scrollTo(0, 0);
  }

  function pause() {
    kept.paused = !kept.paused;
    if (!kept.paused && kept.missed) { kept.missed = false; fs.ask(null); }
    set("pause", { children: kept.paused ? "Resume" : "Pause" });
    set("link", { children: kept.paused ? "paused" : "" });
  }

  /* The steps of the spikes that the map has rings for: [step, key] in the order of time. */
  function spikes() {
    const rings = kept.raw.heatmap && kept.raw.heatmap.data[1];
    return rings ? rings.x.map((x, i) => [x, rings.customdata[i]]).sort((a, b) => a[0] - b[0]) : [];
  }

  function neighbour(direction) {
    const all = spikes(), current = kept.event || kept.best;
    if (!all.length) return;
    const index = all.findIndex((item) => item[1] === current);
    const at = index < 0 ? (direction > 0 ? 0 : all.length - 1) : index + direction;
    const next = all[Math.max(0, Math.min(all.length - 1, at))];
    choose(next[1]);
    if (kept.zoom && (next[0] < kept.zoom[0] || next[0] > kept.zoom[1])) {
      const half = (kept.zoom[1] - kept.zoom[0]) / 2;
      setZoom([next[0] - half, next[0] + half]);
    }
  }

  function scaled(factor, shift) {
    const range = kept.zoom || kept.extent;
    if (!range) return;
    const middle = (range[0] + range[1]) / 2 + shift * (range[1] - range[0]);
    const half = Math.max(4, (factor * (range[1] - range[0])) / 2);
    const low = Math.max(kept.extent[0], middle - half), high = Math.min(kept.extent[1], middle + half);
    if (high - low < 4) return;
    setZoom(low <= kept.extent[0] && high >= kept.extent[1] ? null : [low, high]);
  }

  /* The spike whose ring is close to a clicked cell of the map, or else the cell itself. */
  function nearest(cell) {
    const range = kept.zoom || kept.extent;
    let best = null, distance = Math.max(16, 0.015 * (range[1] - range[0]));
    for (const [x, key] of spikes()) {
      if (Math.abs(x - cell.step) <= distance) { distance = Math.abs(x - cell.step); best = key; }
    }
    return best || `${cell.layer}@${Math.round(cell.step)}`;
  }

  // ---- what happens in a chart ----

  function zoomed(change) {
    if (change["xaxis.autorange"]) return setZoom(null);
    const range = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (typeof range[0] === "number" && typeof range[1] === "number") setZoom(range.slice());
  }

  function clicked({ points }) {
    const marked = points.find((point) => typeof point.customdata === "string");
    if (marked) choose(marked.customdata);
  }

  /* Act on the zooms and clicks of a chart along the steps. */
  fs.listen = (name, plot) => {
    if (!fs.shared(name)) return;
    plot.on("plotly_relayout", zoomed);
    plot.on("plotly_click", clicked);
    if (plot.data[0] && plot.data[0].map) fs.map.listen(plot, (cell) => choose(nearest(cell)));
  };

  Object.assign(fs, { setZoom, zoomTold, tellAddress, scaled, choose, go, pause, neighbour });
})();
