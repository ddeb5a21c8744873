/* Draws what the server sends, and keeps what belongs to the visitor: zoom, pause, the chosen spike, light or dark.

   A message is the whole picture ("full") or its "tail". Figures are kept undressed here: a colour is a token such as
   "$first" until the scheme is known. Zoom is set on every step axis at once, so a message never undoes it. */

(function () {
  "use strict";

  const kept = {
    raw: {}, cursor: null, run: null, extent: null, best: "", zoom: null, chosen: false,
    page: Math.random().toString(36).slice(2), attached: null, attachedAt: 0, heard: 0, asked: 0,
    paused: false, missed: false, waiting: [], focusOf: "", state: "",
  };
  const SILENCE_MS = 5000, POLL_MS = 2000, AGAIN_MS = 15000;
  const same = () => window.dash_clientside.no_update;

  // ---- colours ----

  function channels(hex) {
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  }

  function colour(token, tokens) {
    const [name, alpha] = token.split("/");
    const [from, to, share] = name.split("~");
    if (to === undefined && alpha === undefined) return tokens[from] === undefined ? token : tokens[from];
    let rgb = channels(tokens[from]);
    if (to !== undefined) rgb = channels(tokens[to]).map((v, i) => Math.round(rgb[i] + (v - rgb[i]) * share));
    return `rgba(${rgb.join(",")},${alpha === undefined ? 1 : alpha})`;
  }

  function painted(value, tokens) {
    if (typeof value === "string") return value[0] === "$" ? colour(value, tokens) : value;
    if (Array.isArray(value)) {
      const plain = !value.length || typeof value[0] === "number" || value[0] === null || ArrayBuffer.isView(value[0]);
      return plain ? value : value.map((item) => painted(item, tokens));
    }
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item, tokens)]));
    }
    return value;
  }

  /* A figure in the colours of a scheme, its step axis (if it has one) at `range`. */
  function dress(figure, scheme, range) {
    const base = scheme.layout, given = figure.layout || {};
    const layout = { ...base, ...given };
    for (const name of ["xaxis", "yaxis", "legend"]) layout[name] = { ...base[name], ...given[name] };
    if (range && layout.xaxis.visible !== false) {
      Object.assign(layout.xaxis, { range: range.slice(), autorange: false, uirevision: range.join() });
    }
    if (window.innerWidth < 700) {  // a finger scrolls the page
      layout.dragmode = false;
      const top = (layout.margin || {}).t || 10;
      layout.margin = { ...layout.margin, l: 94, r: 8, t: layout.showlegend ? top + 18 : top };
    }
    return painted({ data: figure.data, layout }, scheme.tokens);
  }

  // ---- messages ----

  function rows(packed) {  // base64 of a float32 matrix, or one that was decoded before
    if (Array.isArray(packed)) return packed;
    const text = atob(packed.bdata), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const flat = new Float32Array(bytes.buffer), [height, width] = packed.shape.split(",").map(Number);
    return Array.from({ length: height }, (_, i) => flat.slice(i * width, (i + 1) * width));
  }

  function joined(old, add, keep) {
    const line = new Float32Array(keep + add.length);
    line.set(old.subarray(0, keep));
    line.set(add, keep);
    return line;
  }

  function grow(trace, tail, from) {
    let keep = trace.x.length;
    if (from !== null) while (keep && trace.x[keep - 1] >= from) keep--;
    const grown = { ...trace, x: trace.x.slice(0, keep).concat(tail.x) };
    if (tail.z) {
      for (const key of ["z", "customdata"]) {
        const old = rows(trace[key]), add = rows(tail[key]);
        grown[key] = old.map((line, i) => joined(line, add[i], keep));
      }
    } else {
      grown.y = trace.y.slice(0, keep).concat(tail.y);
    }
    return grown;
  }

  function merge(push) {
    for (const [name, part] of Object.entries(push.figures)) {
      const held = kept.raw[name];
      if (!held || held.data.length !== part.data.length) return false;
      kept.raw[name] = {
        layout: part.layout || held.layout,
        data: held.data.map((trace, i) => {
          const tail = part.data[i];
          return tail === null ? trace : tail.type ? tail : grow(trace, tail, push.from);
        }),
      };
    }
    return true;
  }

  /* Take one message in; true if the charts must be drawn again. */
  function take(push) {
    if (push.run !== kept.run) return false;
    if (push.state) kept.state = push.state;
    if (kept.paused && push.via === "socket" && push.figures) { kept.missed = true; return false; }
    if (push.kind === "full") {
      Object.assign(kept.raw, push.figures);
      if (kept.zoom && !push.zoomed) ask(null);  // one that the stream sent: the window is wanted finer
    } else if (push.kind === "tail") {
      if (!kept.cursor || push.cursor.epoch !== kept.cursor.epoch || push.cursor.width !== kept.cursor.width) {
        ask(null);
        return false;
      }
      if (!merge(push)) { ask(null); return false; }
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
    const plot = document.querySelector(".js-plotly-plot");
    const width = plot && plot.clientWidth ? plot.clientWidth : window.innerWidth;
    return Math.max(200, Math.min(2000, Math.round(width - 90)));
  }

  function question(cursor) {
    return { run: kept.run, page: kept.page, cursor, columns: kept.columns, window: kept.zoom, nonce: Math.random() };
  }

  function ask(cursor) {
    kept.asked = Date.now();
    window.dash_clientside.set_props("want", { data: question(cursor) });
  }

  function attach() {
    if (kept.attached === kept.run) return;
    Object.assign(kept, { attached: kept.run, attachedAt: Date.now(), heard: Date.now() });
    window.dash_clientside.set_props("attach", { data: { ...question(kept.cursor), window: null } });
  }

  function scheme() {
    return document.documentElement.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light";
  }

  function changed(name) {
    return (window.dash_clientside.callback_context.triggered || []).some((item) => item.prop_id.startsWith(name));
  }

  function setZoom(range) {
    kept.zoom = range;
    window.dash_clientside.set_props("whole", { disabled: range === null });
    if (range !== null || kept.cursor) ask(null);
    return range;
  }

  function searchOf(run, spike) {
    const search = new URLSearchParams();
    if (run) search.set("run", run);
    if (spike) search.set("spike", spike);
    return "?" + search.toString();
  }

  // ---- what Dash calls ----

  const callbacks = {
    compose(push, focus, zoom, _scheme, schemes) {
      if (changed("push") && push) {
        if (push.via === "socket") kept.heard = Date.now();
        kept.waiting.push(push);
      }
      let draw = !changed("push") || changed("focus") || changed("zoom") || changed("scheme");
      if (!dragging()) {
        for (const item of kept.waiting.splice(0)) draw = take(item) || draw;
      }
      if (focus && focus.run === kept.run) Object.assign(kept.raw, focus.figures);
      const outputs = window.dash_clientside.callback_context.outputs_list;
      const range = kept.zoom || kept.extent;
      return outputs.map((output) => {
        const figure = kept.raw[output.id.name];
        if (!draw || !figure) return same();
        return dress(figure, schemes[scheme()], output.id.name === "neighbourhood" ? null : range);
      });
    },

    arrive(search, options, run) {
      const given = new URLSearchParams(search || window.location.search);
      const names = (options || []).map((option) => option.value);
      const wanted = given.get("run");
      kept.chosen = Boolean(given.get("spike"));
      if (changed("run") && run) return [same(), same()];
      return [wanted || run || names[0] || null, given.get("spike") || null];
    },

    choose(run) {
      if (!run || run === kept.run) return same();
      Object.assign(kept, { run, raw: {}, cursor: null, extent: null, zoom: null, attached: null, missed: false });
      Object.assign(kept, { columns: columns(), waiting: [], asked: Date.now(), heard: Date.now(), focusOf: "" });
      window.dash_clientside.set_props("whole", { disabled: true });
      return question(null);
    },

    address(run, spike, push) {
      if (!run) return same();
      const wanted = spike && kept.chosen ? spike : "";
      const search = searchOf(run, wanted);
      if (search !== window.location.search) window.history.replaceState(null, "", search);
      const best = push && push.run === run ? push.best || "" : "";
      const key = `${run}|${wanted || best}|${push && push.run === run && push.kind !== "beat" ? "there" : ""}`;
      if (key === kept.focusOf || key.endsWith("|")) return same();
      kept.focusOf = key;
      return { run, spike: wanted || best };
    },

    zoomed(all) {
      const context = window.dash_clientside.callback_context;
      const trigger = (context.triggered || [])[0];
      if (!trigger || !trigger.value || trigger.prop_id.includes("neighbourhood")) return same();
      const layout = trigger.value;
      if (layout["xaxis.autorange"]) return setZoom(null);
      const range = layout["xaxis.range"] || [layout["xaxis.range[0]"], layout["xaxis.range[1]"]];
      if (typeof range[0] !== "number" || typeof range[1] !== "number") return same();
      return setZoom(range.slice());
    },

    whole() {
      return setZoom(null);
    },

    clicked(all) {
      const trigger = (window.dash_clientside.callback_context.triggered || [])[0];
      const points = trigger && trigger.value ? trigger.value.points || [] : [];
      if (!points.length || trigger.prop_id.includes("neighbourhood")) return same();
      const marked = points.find((point) => typeof point.customdata === "string");
      if (marked) return choose(marked.customdata);
      const cell = points.find((point) => typeof point.y === "string");
      return cell ? choose(nearest(cell)) : same();
    },

    pause() {
      kept.paused = !kept.paused;
      if (!kept.paused && kept.missed) { kept.missed = false; ask(null); }
      return kept.paused ? "Resume" : "Pause";
    },

    tick() {
      if (!kept.run || document.hidden) return same();
      const now = Date.now(), silent = now - kept.heard > SILENCE_MS;
      if (silent && !kept.paused && now - kept.asked > POLL_MS) ask(kept.zoom ? null : kept.cursor);
      if (silent && kept.cursor && now - kept.attachedAt > AGAIN_MS) { kept.attached = null; attach(); }
      if (kept.paused) return "paused";
      if (!["running", "stalled"].includes(kept.state)) return "";
      return silent ? "polling" : "live";
    },
  };

  function choose(key) {
    kept.chosen = true;
    const card = document.getElementById("card-neighbourhood");
    if (card && window.innerWidth < 1100) {
      const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      card.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
    }
    return key;
  }

  /* The spike whose ring is close to a clicked cell of the map, or else the cell itself. */
  function nearest(cell) {
    const rings = kept.raw.heatmap.data[1], range = kept.zoom || kept.extent;
    const reach = Math.max(16, 0.015 * (range[1] - range[0]));
    let best = null, distance = reach;
    rings.x.forEach((x, i) => {
      if (Math.abs(x - cell.x) <= distance) { distance = Math.abs(x - cell.x); best = rings.customdata[i]; }
    });
    return best || `${cell.y}@${Math.round(cell.x)}`;
  }

  window.foreshock = { dress, kept };
  if (!document.getElementById("react-entry-point")) return;  // the report draws by itself
  window.dash_clientside = Object.assign(window.dash_clientside || {}, { foreshock: callbacks });
  document.addEventListener("click", (event) => {
    const row = event.target.closest("[data-row], [data-spike]");
    if (row) window.dash_clientside.set_props("spike", { data: choose(row.dataset.spike || row.dataset.row) });
  });
  new MutationObserver(() => window.dash_clientside.set_props("scheme", { data: scheme() })).observe(
    document.documentElement, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });
})();
