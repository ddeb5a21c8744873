/* Takes in what the server sends, and keeps what belongs to the visitor: zoom, pause, the chosen event.

   A message is the whole picture ("full"), its "tail", or the finer columns of a "window". Zoom is set on every step
   axis at once, so a message never undoes it. */

(function () {
  "use strict";

  const fs = window.foreshock;
  const kept = {
    raw: {}, fine: null, spliced: {}, cursor: null, run: null, look: "", extent: null, best: "", zoom: null, chosen: false,
    page: Math.random().toString(36).slice(2), attached: null, attachedAt: 0, heard: 0, asked: 0, owed: 0, askedFine: 0, askedRuns: 0, askedCompare: 0, selected: [],
    paused: false, missed: false, waiting: [], focusOf: "", state: "", arrived: false, layers: [], scale: "ratio",
    columns: 1000, view: null, event: null,
  };
  const SILENCE_MS = 5000, POLL_MS = 2000, AGAIN_MS = 15000, FINE_MS = 2000;
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
    const plot = document.querySelector("#card-knn .js-plotly-plot");
    const width = plot && plot.clientWidth ? plot.clientWidth : window.innerWidth;
    return Math.max(200, Math.min(2000, Math.round(width - 90)));
  }

  function question(cursor, window_) {
    const { run, page, layers, scale } = kept;
    return { run, page, cursor, columns: kept.columns, layers, scale, window: window_, nonce: Math.random() };
  }

  function ask(cursor) {
    kept.asked = kept.owed = Date.now();
    set("want", { data: question(cursor, null) });
  }

  function askFine() {
    kept.askedFine = kept.owed = Date.now();
    if (kept.cursor) set("want", { data: question(kept.cursor, kept.zoom) });
  }

  function attach() {
    if (kept.attached === kept.run) return;
    Object.assign(kept, { attached: kept.run, attachedAt: Date.now(), heard: Date.now() });
    set("attach", { data: question(kept.cursor, null) });
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
    kept.zoom = range;
    if (!range) kept.fine = null;
    set("whole", { disabled: range === null });
    set("zoom", { data: range });
    if (range) askFine();
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
      if (Math.abs(x - cell.x) <= distance) { distance = Math.abs(x - cell.x); best = key; }
    }
    return best || `${cell.y}@${Math.round(cell.x)}`;
  }

  // ---- what Dash calls ----

  const callbacks = {
    compose(push, focus, evidence, signals, comparison, zoom, _scheme, schemes) {
      if (changed("push") && push) {
        if (push.via === "socket") kept.heard = Date.now();
        else kept.owed = 0;
        kept.waiting.push(push);
      }
      const all = changed("scheme") || !changed("");
      let steps = all || changed("zoom");
      if (!dragging()) {
        for (const item of kept.waiting.splice(0)) steps = take(item) || steps;
      }
      const fresh = {};
      for (const [name, sent] of Object.entries({ focus, evidence, signals, comparison })) {
        if (changed(name) && sent && (name === "comparison" || sent.run === kept.run)) Object.assign(fresh, sent.figures);
      }
      Object.assign(kept.raw, fresh);
      const range = kept.zoom || kept.extent;
      if (steps) fs.brush(kept, schemes[scheme()]);
      return window.dash_clientside.callback_context.outputs_list.map((output) => {
        const name = output.id.name, own = !fs.shared(name);
        if (!kept.raw[name] || !(all || (own ? name in fresh : steps))) return same();
        return fs.dress(figure(name), schemes[scheme()], own ? null : range);
      });
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
      set("whole", { disabled: range === null });
      const usual = names.length > 1 && !given.get("run") ? "runs" : "run";
      const view = document.querySelector(`[data-view="${CSS.escape(given.get("view") || "")}"]`) ? given.get("view") : usual;
      const layers = (given.get("layers") || "").split(",").filter(Boolean);
      if (kept.run) set("zoom", { data: range });  // Back or Forward
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
        if (!kept.zoom) set("whole", { disabled: true });
      }
      Object.assign(kept, { look, layers: layers || [], scale, cursor: null, attached: null });
      Object.assign(kept, { asked: Date.now(), owed: Date.now(), heard: Date.now() });
      return question(null, null);
    },

    address(run, layers, scale, compared, by, axis, event, view, zoom, push) {
      if (!kept.arrived) return same();
      const wanted = event && kept.chosen ? event : "";
      fs.address({ view, run, layers, scale, zoom: kept.zoom, event: wanted, compared, by, axis });
      if (!run || run !== kept.run) return same();
      const there = push && push.run === run && push.kind !== "beat" ? "there" : "";
      const best = push && push.run === run ? push.best || "" : "";
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
      setTimeout(() => window.dispatchEvent(new Event("resize")), 0);  // charts that were hidden take their size
      return window.dash_clientside.callback_context.outputs_list.map((output) => output.id.name !== view);
    },

    zoomed() {
      const trigger = (window.dash_clientside.callback_context.triggered || [])[0];
      if (!trigger || !trigger.value || !fs.shared(JSON.parse(trigger.prop_id.replace(/\.[^.]*$/, "")).name)) return same();
      const layout = trigger.value;
      if (layout["xaxis.autorange"]) { setZoom(null); return null; }
      const range = layout["xaxis.range"] || [layout["xaxis.range[0]"], layout["xaxis.range[1]"]];
      if (typeof range[0] !== "number" || typeof range[1] !== "number") return same();
      setZoom(range.slice());
      return range.slice();
    },

    clicked() {
      const trigger = (window.dash_clientside.callback_context.triggered || [])[0];
      const points = trigger && trigger.value ? trigger.value.points || [] : [];
      const marked = points.find((point) => typeof point.customdata === "string");
      const cell = points.find((point) => typeof point.y === "string");
      if (!points.length || !fs.shared(JSON.parse(trigger.prop_id.replace(/\.[^.]*$/, "")).name)) return same();
      if (marked || cell) choose(marked ? marked.customdata : nearest(cell));
      return same();
    },

    tick() {
      if (!kept.run || document.hidden) return same();
      const now = Date.now(), silent = now - kept.heard > SILENCE_MS;
      const owed = kept.owed && now - kept.owed < AGAIN_MS;  // a new question would make Dash drop the answer to the old
      const coarse = kept.zoom && kept.cursor && !(kept.fine && kept.fine.of === kept.zoom.join());
      if (coarse && !owed) askFine();
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
