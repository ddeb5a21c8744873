/* Takes in what the server sends, and keeps what belongs to the visitor: zoom, pause, the chosen event.

   A message is the whole picture ("full"), its "tail", or the finer columns of a "window". Zoom is set on every step
   axis at once, so a message never undoes it. */

(function () {
  "use strict";

  const fs = window.foreshock;
  const kept = {
    raw: {}, fine: null, spliced: {}, cursor: null, run: null, look: "", extent: null, best: "", zoom: null, chosen: false,
    page: Math.random().toString(36).slice(2), attached: null, attachedAt: 0, heard: 0, asked: 0, owed: 0, askedFine: 0, asking: false, late: null, zoomTold: true, place: {}, schemes: null, askedRuns: 0, askedCompare: 0, selected: [],
    paused: false, missed: false, waiting: [], focusOf: "", state: "", arrived: false, layers: [], scale: "ratio",
    columns: 1000, view: null, event: null,
  };
  const SILENCE_MS = 5000, POLL_MS = 2000, AGAIN_MS = 15000, FINE_MS = 2000;
  const PATIENCE_MS = 150;  // the columns that are there are drawn wider when finer ones have not come so long
  const STEPS = ["run", "event", "settings", "precursors"];  // views that are about one run
  const same = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);

  // ---- messages ----

  function merge(push) {
    for (const [name, part] of Object.entries(push.figures)) {
      const held = kept.raw[name];
      if (!held || held.data.length !== part.data.length) return false;
      kept.raw[name] = {
        layout: part.layout || held.layout,
        data: held.data.map((trace, i) => {
          const tail = part.data[i];
          return tail === null ? trace : tail.type ? fs.decoded(tail) : fs.grown(trace, tail, push.from);
        }),
      };
    }
    return true;
  }

  function whole(push) {
    for (const [name, figure] of Object.entries(push.figures)) {
      kept.raw[name] = { ...figure, data: figure.data.map(fs.decoded) };
    }
    kept.fine = null;
    set("layers", { data: push.layers });
    if (kept.zoom) askFine();
  }

  function expected(cursor) {
    return kept.cursor && cursor.epoch === kept.cursor.epoch && cursor.width === kept.cursor.width;
  }

  /* Take one message in; true if the charts must be drawn again. */
  function take(push) {
    if (push.run !== kept.run) return false;
    if (push.state) kept.state = push.state;
    if (push.cursor && push.cursor.look !== kept.look) return false;  // an answer to an older question
    if (push.kind === "window") {
      if (!kept.zoom || !expected(push.cursor)) return false;
      kept.fine = push.low === null ? { of: push.window.join(), low: 0, high: -1, figures: {} } : { ...push, of: push.window.join() };
      return true;
    }
    if (kept.paused && push.via === "socket" && push.figures) { kept.missed = true; return false; }
    if (push.kind === "full") {
      whole(push);
    } else if (push.kind === "tail") {
      if (!expected(push.cursor) || !merge(push)) { ask(null); return false; }
      const edge = kept.zoom && kept.fine && kept.zoom[1] > kept.fine.high && push.extent[1] > kept.fine.high;
      if (edge && Date.now() - kept.askedFine > FINE_MS) askFine();
    } else {
      return false;
    }
    Object.assign(kept, { cursor: push.cursor, extent: push.extent, best: push.best || "" });
    if (push.kind === "full") attach();
    return true;
  }

  function dragging() {
    return Array.from(document.querySelectorAll(".js-plotly-plot")).some((plot) => plot._dragging || plot._dragged);
  }

  function columns() {  // one a pixel of the charts' width, or a line of one step could fall between two pixels
    const plot = fs.charts.node("knn");
    const width = plot && plot.clientWidth ? plot.clientWidth : window.innerWidth;
    return Math.max(200, Math.min(2000, Math.round(width - 90)));
  }

  function question(cursor) {
    const { run, page, layers, scale } = kept;
    return { run, page, cursor, columns: kept.columns, layers, scale, nonce: Math.random() };
  }

  function ask(cursor) {
    kept.asked = kept.owed = Date.now();
    set("want", { data: question(cursor) });
  }

  /* Ask for the finer columns of the zoom: one question at a time, and then the newest. */
  async function askFine() {
    if (kept.asking || !kept.cursor || !kept.zoom) return;
    const window_ = kept.zoom;
    Object.assign(kept, { asking: true, askedFine: Date.now() });
    try {
      const body = JSON.stringify({ ...question(kept.cursor), window: window_ });
      const answer = await fetch("columns", { method: "POST", headers: { "content-type": "application/json" }, body });
      const push = answer.ok ? await answer.json() : null;
      if (push) { kept.waiting.push(push); settle(); }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;  // no connection: the clock asks again
    } finally {
      kept.asking = false;
    }
    if (kept.zoom && kept.zoom !== window_) askFine();
  }

  /* Take in what has come, unless a chart is being dragged; true if the charts along the steps have changed. */
  function takeAll() {
    if (dragging()) return false;
    return kept.waiting.splice(0).reduce((steps, item) => take(item) || steps, false);
  }

  function settle() {
    if (dragging()) setTimeout(settle, 50);
    else if (takeAll()) drawSteps();
  }

  function draw(name) {
    fs.charts.due(name, () => {
      const held = figure(name);  // none where another run was chosen meanwhile
      return held && fs.dress(held, kept.schemes[scheme()], fs.shared(name) ? kept.zoom || kept.extent : null);
    });
  }

  function drawSteps() {
    clearTimeout(kept.late);
    kept.late = null;
    if (!kept.schemes) return;
    for (const name of fs.charts.names()) if (kept.raw[name] && fs.shared(name)) draw(name);
    fs.brush(kept, kept.schemes[scheme()]);
  }

  function attach() {
    if (kept.attached === kept.run) return;
    Object.assign(kept, { attached: kept.run, attachedAt: Date.now(), heard: Date.now() });
    set("attach", { data: question(kept.cursor) });
  }

  function scheme() {
    return document.documentElement.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light";
  }

  function changed(name) {
    return (window.dash_clientside.callback_context.triggered || []).some((item) => item.prop_id.startsWith(name));
  }

  function figure(name) {
    const held = kept.raw[name], part = kept.fine && kept.fine.figures[name];
    if (!held || !part || part.data.length !== held.data.length) return held;
    const last = kept.spliced[name];
    if (last && last.held === held && last.part === part) return last.figure;
    const data = held.data.map((trace, i) => fs.finer(trace, part.data[i], kept.fine.low, kept.fine.high));
    kept.spliced[name] = { held, part, figure: { ...held, data } };
    return kept.spliced[name].figure;
  }

  // ---- what the visitor does ----

  function setZoom(range) {
    if (range && kept.zoom && range[0] === kept.zoom[0] && range[1] === kept.zoom[1]) return;
    kept.zoom = range;
    if (range) {
      askFine();
      fs.brushed();
      if (kept.late === null) kept.late = setTimeout(drawSteps, PATIENCE_MS);
    } else {
      kept.fine = null;
      drawSteps();
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
    if (!kept.paused && kept.missed) { kept.missed = false; ask(null); }
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

  // ---- what Dash calls ----

  const callbacks = {
    compose(push, focus, evidence, signals, comparison, _scheme, schemes) {
      if (changed("push") && push) {
        if (push.via === "socket") kept.heard = Date.now();
        else kept.owed = 0;
        kept.waiting.push(push);
      }
      kept.schemes = schemes;
      const all = changed("scheme") || !changed("");
      const steps = takeAll() || all;
      const fresh = {};
      for (const [name, sent] of Object.entries({ focus, evidence, signals, comparison })) {
        if (changed(name) && sent && (name === "comparison" || sent.run === kept.run)) Object.assign(fresh, sent.figures);
      }
      Object.assign(kept.raw, fresh);
      if (steps) drawSteps();
      for (const name of fs.charts.names()) if (kept.raw[name] && !fs.shared(name) && (all || name in fresh)) draw(name);
    },

    arrive(search, options) {
      const given = new URLSearchParams(search || window.location.search);
      const names = (options || []).map((option) => option.value);
      if (kept.arrived && kept.run && changed("run")) return Array(8).fill(same());
      if (!names.length && !given.get("run")) return Array(8).fill(same());
      const number = (key) => (given.get(key) === null ? NaN : Number(given.get(key)));
      const zoom = [number("from"), number("to")];
      const range = zoom[0] < zoom[1] ? zoom : null;
      const event = given.get("event") || null, run = given.get("run") || kept.run || names[0];
      Object.assign(kept, { arrived: true, chosen: Boolean(event), event, zoom: range });
      zoomTold();
      const usual = names.length > 1 && !given.get("run") ? "runs" : "run";
      const view = document.querySelector(`[data-view="${CSS.escape(given.get("view") || "")}"]`) ? given.get("view") : usual;
      const layers = (given.get("layers") || "").split(",").filter(Boolean);
      if (kept.run) {  // Back or Forward
        if (range) askFine(); else kept.fine = null;
        drawSteps();
      }
      const versus = [given.getAll("with"), given.get("by"), given.get("axis") || "step"];
      return [run, event, view, layers, given.get("scale") || "ratio", ...versus];
    },

    choose(run, layers, scale, view) {
      kept.view = view;
      if (!run || !STEPS.includes(view)) return same();
      const look = [scale, ...(layers || [])].join("|");
      if (run === kept.run && look === kept.look) return same();
      if (run !== kept.run) {
        const first = kept.run === null;
        Object.assign(kept, { run, raw: {}, fine: null, extent: null, zoom: first ? kept.zoom : null, missed: false });
        Object.assign(kept, { columns: columns(), waiting: [], focusOf: "", best: "" });
        if (!first) Object.assign(kept, { chosen: false, event: null });
        zoomTold();
      }
      Object.assign(kept, { look, layers: layers || [], scale, cursor: null, attached: null });
      Object.assign(kept, { asked: Date.now(), owed: Date.now(), heard: Date.now() });
      return question(null);
    },

    address(run, layers, scale, compared, by, axis, event, view, push) {
      if (!kept.arrived) return same();
      const wanted = event && kept.chosen ? event : "";
      kept.place = { view, run, layers, scale, compared, by, axis };
      tellAddress();
      if (!run || run !== kept.run) return same();
      const mine = push && push.run === run, beat = mine && push.kind === "beat";
      const before = kept.focusOf.startsWith(`${run}|`);  // a beat tells nothing new, and no less is there than before it
      const there = mine && (!beat || before) ? "there" : "", best = beat ? kept.best : (mine && push.best) || "";
      const key = `${run}|${wanted || best}|${there}`;
      if (key === kept.focusOf || !there) return same();
      kept.focusOf = key;
      return { run, event: wanted || best };
    },

    show(view) {
      if (!view) return window.dash_clientside.callback_context.outputs_list.map(same);
      document.body.dataset.view = view;
      for (const link of document.querySelectorAll("[data-view]")) {
        if (link.closest("nav")) link.toggleAttribute("aria-current", link.dataset.view === view);
      }
      setTimeout(() => window.dispatchEvent(new Event("resize")), 0);  // a grid that was hidden takes its size
      return window.dash_clientside.callback_context.outputs_list.map((output) => output.id.name !== view);
    },

    tick() {
      if (!kept.run || document.hidden) return same();
      const now = Date.now(), silent = now - kept.heard > SILENCE_MS;
      const owed = kept.owed && now - kept.owed < AGAIN_MS;  // a new question would make Dash drop the answer to the old
      const coarse = kept.zoom && kept.cursor && !(kept.fine && kept.fine.of === kept.zoom.join());
      if (coarse && now - kept.askedFine > FINE_MS) askFine();
      // A beat of the socket may have taken the place of the answer before it was read: then there is no picture yet.
      else if ((silent || !kept.cursor) && !owed && !kept.paused && now - kept.asked > POLL_MS) ask(kept.cursor);
      if (silent && kept.cursor && now - kept.attachedAt > AGAIN_MS) { kept.attached = null; attach(); }
      if (kept.paused) return "paused";
      if (!["running", "stalled"].includes(kept.state)) return "";
      return silent ? "polling" : "live";
    },

    wantRuns(view, _ticks, rows) {
      if (view !== "runs" || document.hidden) return same();
      const pending = !rows || !rows.length || rows.some((row) => row.spikes === null);
      const narrow = window.innerWidth < 700, turned = narrow !== kept.narrow;
      if (!changed("view") && !turned && Date.now() - kept.askedRuns < (pending ? 1500 : 5000)) return same();
      Object.assign(kept, { askedRuns: Date.now(), narrow });
      return { narrow, nonce: Math.random() };
    },

    wantEvidence(view, push, run, layer) {
      if (view !== "precursors" || !run) return same();
      const cursor = (push && push.cursor) || {}, live = push && push.state === "running";
      const key = [run, layer || "", cursor.epoch, cursor.events, live ? "" : cursor.rows].join("|");
      const again = live && kept.evidenceOf && Date.now() - kept.askedEvidence < 30000 && kept.evidenceRun === `${run}|${layer}`;
      if (key === kept.evidenceOf || again) return same();
      if (!(kept.evidenceRun || "").startsWith(`${run}|`)) {  // the panels still show another run
        set("precursors-told", { children: "Testing…" });
        set("precursors-facts", { children: "" });
        set("precursors-cards", { hidden: true });
      }
      Object.assign(kept, { evidenceOf: key, askedEvidence: Date.now(), evidenceRun: `${run}|${layer}` });
      return { run, layer, nonce: Math.random() };
    },

    wantCompare(view, compared, by, axis, _ticks, comparison) {
      if (view !== "compare" || document.hidden) return same();
      const key = JSON.stringify([compared, by, axis]), now = Date.now();
      const due = now - kept.askedCompare > (comparison && !comparison.pending ? 10000 : 1500);
      if (key === kept.compareOf && !due) return same();
      Object.assign(kept, { compareOf: key, askedCompare: now });
      return { runs: compared || [], by, axis, nonce: Math.random() };
    },

    selected(rows) {
      kept.selected = (rows || []).map((row) => row.run);
      set("compare-selected", { disabled: kept.selected.length < 2 });
      return kept.selected.length ? `Compare ${kept.selected.length} runs` : "Compare";
    },

    wantSettings(view, push, run) {
      if (view !== "settings" || !run) return same();
      const key = `${run}|${push && push.cursor ? push.cursor.epoch + push.state : ""}`;
      if (key === kept.settingsOf) return same();
      kept.settingsOf = key;
      return { run, nonce: Math.random() };
    },

    search(text, options) {
      return { ...options, quickFilterText: text || "" };
    },
  };

  Object.assign(fs, { kept, callbacks, set, setZoom, scaled, choose, go, pause, neighbour });
  if (!document.getElementById("react-entry-point")) return;  // the report draws by itself
  window.dash_clientside = Object.assign(window.dash_clientside || {}, { foreshock: callbacks });
  new MutationObserver(() => set("scheme", { data: scheme() })).observe(
    document.documentElement, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });
})();
