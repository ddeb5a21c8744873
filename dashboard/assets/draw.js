/* Figures as the server sends them, made into what plotly draws: levels into numbers, tokens into colours. Used by the
   dashboard and by a written report. A figure keeps its tokens, such as "$first", until the scheme is known. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});

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

  /* Tokens stand only where a colour belongs: a layer may be called "$first" too. What holds none comes back as it is:
     plotly draws anew only what is another object. */
  function painted(value, tokens, key = "") {
    if (typeof value === "string") return value[0] === "$" && /color(scale)?$/.test(key) ? colour(value, tokens) : value;
    if (Array.isArray(value)) {
      const plain = !value.length || typeof value[0] === "number" || value[0] === null || ArrayBuffer.isView(value[0]);
      if (plain) return value;
      const made = value.map((item) => painted(item, tokens, key));
      return made.every((item, i) => item === value[i]) ? value : made;
    }
    if (value && typeof value === "object" && !ArrayBuffer.isView(value)) {
      const made = Object.entries(value).map(([name, item]) => [name, painted(item, tokens, name)]);
      return made.every(([name, item]) => item === value[name]) ? value : Object.fromEntries(made);
    }
    return value;
  }

  // ---- levels ----

  /* A packed matrix as rows of numbers on the colour scale; NaN where nothing was measured. */
  function unpacked(packed) {
    const text = atob(packed.levels), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const levels = packed.bits === 16 ? new Uint16Array(bytes.buffer) : bytes;
    const [height, width] = packed.shape;
    return Array.from({ length: height }, (_, row) => {
      const line = new Float32Array(width);
      for (let i = 0; i < width; i++) {
        const level = levels[row * width + i];
        line[i] = level ? packed.low + (level - 1) * packed.step : NaN;
      }
      return line;
    });
  }

  /* A trace whose matrix is unpacked, with the values themselves beside it for the pointer. */
  function decoded(trace) {
    if (!trace || !trace.z || trace.z.levels === undefined) return trace;
    if (fs.map && trace.x && trace.z.shape[1] === trace.x.length && (trace.meta === "columns" || !trace.type)) return fs.map.of(trace);
    return { ...trace, log: trace.z.log, z: unpacked(trace.z) };
  }

  const known = new WeakMap();  // by matrix: the same one is drawn at every zoom and in both schemes

  function values(z, log) {
    if (!log) return z;
    if (!known.has(z)) known.set(z, z.map((line) => line.map((v) => Math.pow(log, v))));
    return known.get(z);
  }

  /* A message's figures with each `{list: i}` replaced by that list of the message. */
  function unfolded({ figures, lists }) {
    const put = (value) => (value && value.list !== undefined ? lists[value.list] : value);
    const trace = (held) => (held && held.x ? { ...held, x: put(held.x), ...(held.y ? { y: put(held.y) } : {}) } : held);
    return Object.fromEntries(Object.entries(figures).map(([name, part]) => [name, { ...part, data: part.data.map(trace) }]));
  }

  // ---- a figure ----

  /* How many rows the names above a narrow chart take: all are as wide as the widest. */
  function legendRows(data) {
    const names = data.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name);
    const widest = 50 + 6.3 * Math.max(0, ...names.map((name) => name.length)), room = window.innerWidth - 126;
    return Math.max(1, Math.ceil(names.length / Math.max(1, Math.floor(room / widest))));
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
      layout.margin = { ...layout.margin, r: 8, t: layout.showlegend ? top + 19 * (legendRows(figure.data) - 1) : top };
      layout.xaxis.nticks = layout.xaxis.nticks || 5;
      layout.annotations = (layout.annotations || []).filter((note) => note.xref === "paper");  // no room for labels
    }
    const data = figure.data.map(decoded).map((trace) => (
      trace.type === "heatmap" && trace.log !== undefined ? { ...trace, customdata: values(trace.z, trace.log) } : trace
    ));
    const made = painted({ data, layout }, scheme.tokens);
    return made.data[0] && made.data[0].map ? fs.map.dressed(made, scheme.tokens) : made;
  }

  // ---- growing and splicing ----

  function joined(parts) {
    if (!ArrayBuffer.isView(parts[0])) return [].concat(...parts);
    const line = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) { line.set(part, at); at += part.length; }
    return line;
  }

  /* `held` up to its column `keep`, then `middle`, then `held` from `from` on: lines, or matrices row by row. */
  function spliced(held, middle, keep, from) {
    const tail = decoded(middle), result = { ...held, x: held.x.slice(0, keep).concat(tail.x, held.x.slice(from)) };
    if (tail.z) {
      result.z = held.z.map((line, i) => joined([line.slice(0, keep), tail.z[i], line.slice(from)]));
    } else {
      result.y = joined([held.y.slice(0, keep), tail.y, held.y.slice(from)]);
    }
    return result;
  }

  function grown(held, tail, from) {
    let keep = held.x.length;
    if (from !== null) while (keep && held.x[keep - 1] >= from) keep--;
    if (held.map) return fs.map.grown(held, decoded(tail), keep);
    return spliced(held, tail, keep, held.x.length);
  }

  /* A trace with the columns from `low` to `high` replaced by finer ones. */
  function finer(held, fine, low, high) {
    if (!fine || !fine.x || held.meta !== "columns") return held;
    if (held.map) return { ...held, fine: decoded(fine).map };
    let keep = 0, from = held.x.length;
    while (keep < held.x.length && held.x[keep] < low) keep++;
    while (from > keep && held.x[from - 1] > high) from--;
    return spliced(held, fine, keep, from);
  }

  Object.assign(fs, { dress, decoded, unfolded, grown, finer });
})();
