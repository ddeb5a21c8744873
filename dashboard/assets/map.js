/* The map of all layers as a picture: levels become the pixels of a palette image, which the browser stretches; the
   pointer is told the value of its cell from the same levels. A map holds x (steps), and levels row by row; 0 is NaN. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});
  const WIDEST = 4096;  // pixels of a picture whose columns are not equally wide
  const HEAD = 54, PALETTE = 1024;  // bytes
  const pictures = new WeakMap();  // by levels: the source of the image, and of what colours

  // ---- levels ----

  /* The trace of a packed map, its levels unpacked as they are: a byte or two a cell. */
  function of(trace) {
    const { levels: text, shape, bits, low, step, log } = trace.z, raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    const levels = bits === 16 ? new Uint16Array(bytes.buffer) : bytes;
    return { ...trace, z: null, map: { x: trace.x, levels, height: shape[0], low, step, log } };
  }

  /* The map with its columns from `keep` on replaced by those of another. */
  function grown(held, tail, keep) {
    const { x, levels, height } = held.map, more = tail.map, width = keep + more.x.length;
    const joined = new levels.constructor(height * width);
    for (let row = 0; row < height; row++) {
      joined.set(levels.subarray(row * x.length, row * x.length + keep), row * width);
      joined.set(more.levels.subarray(row * more.x.length, (row + 1) * more.x.length), row * width + keep);
    }
    const steps = x.slice(0, keep).concat(more.x);
    return { ...held, x: steps, map: { ...held.map, x: steps, levels: joined } };
  }

  function value(map, row, column) {
    const level = map.levels[row * map.x.length + column];
    if (!level) return NaN;
    const scaled = map.low + (level - 1) * map.step;
    return map.log ? Math.pow(map.log, scaled) : scaled;
  }

  /* The highest value of each column, on the colour scale. */
  function highest(map) {
    const width = map.x.length, top = new Uint16Array(width);
    for (let row = 0; row < map.height; row++) {
      for (let i = 0, at = row * width; i < width; i++, at++) if (map.levels[at] > top[i]) top[i] = map.levels[at];
    }
    return Array.from(top, (level) => (level ? map.low + (level - 1) * map.step : null));
  }

  // ---- the picture ----

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  function colour(scale, share) {
    const at = scale.findIndex((stop) => stop[0] >= share), upper = scale[Math.max(at, 1)], lower = scale[Math.max(at, 1) - 1];
    const part = (share - lower[0]) / (upper[0] - lower[0]), [from, to] = [rgb(lower[1]), rgb(upper[1])];
    return from.map((v, i) => Math.round(v + (to[i] - v) * part));
  }

  /* Which of the map's columns each pixel shows: one a column, or as wide as its steps where they are not equal. */
  function places(map) {
    const { x } = map, count = x.length, plain = x.map((_, i) => i);
    if (count < 3) return { columns: plain, left: x[0] - 0.5, width: count < 2 ? 1 : 2 * (x[1] - x[0]) };
    const usual = (x[count - 2] - x[0]) / (count - 2);  // the last column may not be full yet
    const even = x.every((step, i) => i === count - 1 || Math.abs(step - x[0] - i * usual) < usual / 4);
    if (even && x[count - 1] - x[count - 2] < 1.25 * usual) return { columns: plain, left: x[0] - usual / 2, width: usual * count };
    const least = x.reduce((low, step, i) => (i ? Math.min(low, step - x[i - 1]) : low), Infinity);
    const left = x[0] - least / 2, width = x[count - 1] - left + least / 2;
    const pixels = Math.max(1, Math.min(WIDEST, Math.round(width / least)));
    return { columns: Array.from({ length: pixels }, (_, i) => nearest(x, left + ((i + 0.5) * width) / pixels)), left, width };
  }

  function nearest(x, step) {
    let low = 0, high = x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (x[middle] + x[middle + 1] < 2 * step) low = middle + 1; else high = middle;
    }
    return low;
  }

  /* An image file without compression: a head, 256 colours, and a byte a pixel. */
  function bitmap(map, columns, ends, scale, frozen) {
    const wide = columns.length, stride = (wide + 3) & ~3, two = map.levels.BYTES_PER_ELEMENT > 1;
    const bytes = new Uint8Array(HEAD + PALETTE + stride * map.height), view = new DataView(bytes.buffer);
    bytes.set([0x42, 0x4d]);
    for (const [at, number] of [[2, bytes.length], [10, HEAD + PALETTE], [14, 40], [18, wide], [22, -map.height], [46, 256]]) {
      view.setInt32(at, number, true);
    }
    view.setInt16(26, 1, true);
    view.setInt16(28, 8, true);
    const share = (level) => Math.max(0, Math.min(1, (map.low + (level - 1) * map.step - ends[0]) / (ends[1] - ends[0])));
    for (let i = 0; i < 256; i++) {
      const [r, g, b] = i ? colour(scale, two ? (i - 1) / 254 : share(i)) : rgb(frozen);
      bytes.set([b, g, r, 0], HEAD + 4 * i);
    }
    const index = two ? Uint8Array.from({ length: 65536 }, (_, level) => (level ? 1 + Math.round(254 * share(level)) : 0)) : null;
    const straight = wide === map.x.length && !two;
    for (let row = 0; row < map.height; row++) {
      const from = row * map.x.length, to = HEAD + PALETTE + row * stride;
      if (straight) bytes.set(map.levels.subarray(from, from + wide), to);
      else for (let i = 0; i < wide; i++) bytes[to + i] = two ? index[map.levels[from + columns[i]]] : map.levels[from + columns[i]];
    }
    return bytes;
  }

  function base64(bytes) {
    if (bytes.toBase64) return bytes.toBase64();
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode.apply(null, bytes.subarray(i, i + 32768));
    return btoa(text);
  }

  function image(map, ends, scale, frozen) {
    const key = [ends, frozen].join(), held = pictures.get(map.levels);
    if (held && held.key === key) return held.image;
    const { columns, left, width } = places(map);
    const source = `data:image/bmp;base64,${base64(bitmap(map, columns, ends, scale, frozen))}`;
    const made = {
      source, xref: "x", yref: "y", x: left, y: -0.5, sizex: width, sizey: map.height, xanchor: "left", yanchor: "top",
      sizing: "stretch", layer: "below",
    };
    pictures.set(map.levels, { key, image: made });
    return made;
  }

  /* A dressed figure whose first trace is a map: pictures in the layout, and a trace that holds the colour bar. */
  function dressed(figure, tokens) {
    const [trace, ...rest] = figure.data;
    const ends = [trace.zmin, trace.zmax];
    const maps = [trace.map, trace.fine].filter((map) => map && map.x.length);
    const images = maps.map((map) => image(map, ends, tokens.$heat, tokens.$frozen));
    const marker = { color: [trace.zmin], cmin: trace.zmin, cmax: trace.zmax, colorscale: trace.colorscale, colorbar: trace.colorbar, showscale: true };
    const bar = {
      type: "scatter", mode: "markers", name: "levels", meta: trace.meta, hoverinfo: "skip", showlegend: false,
      x: trace.fine ? trace.fine.x.concat(trace.x.slice(-1)) : trace.x, y: [null], marker,
      map: trace.map, fine: trace.fine, layers: trace.y, told: trace.hovertemplate,
    };
    const yaxis = { ...figure.layout.yaxis, categoryorder: "array", categoryarray: trace.y };
    return { data: [bar, ...rest], layout: { ...figure.layout, yaxis, images } };
  }

  // ---- the pointer ----

  /* The cell under the pointer: layer, step and value; null outside. */
  function cell(plot, event) {
    const { map, fine, layers } = plot.data[0], { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
    const across = (event.clientX - box.left - xaxis._offset) / xaxis._length;
    const down = (event.clientY - box.top - yaxis._offset) / yaxis._length;
    if (!map || !map.x.length || across < 0 || across > 1 || down < 0 || down > 1) return null;
    const step = xaxis.range[0] + across * (xaxis.range[1] - xaxis.range[0]);
    const row = Math.round(yaxis.range[1] + down * (yaxis.range[0] - yaxis.range[1]));
    const inside = fine && fine.x.length && step >= fine.x[0] && step <= fine.x[fine.x.length - 1] ? fine : map;
    const column = nearest(inside.x, step);
    if (row < 0 || row >= layers.length) return null;
    return { layer: layers[row], step: inside.x[column], value: value(inside, row, column) };
  }

  function words(told, found) {
    const filled = { y: found.layer, x: Math.round(found.step).toLocaleString("en"), customdata: Number(found.value.toPrecision(3)) };
    return told.replace(/<extra>.*/, "").replace(/%\{(\w+)[^}]*\}/g, (_, name) => filled[name]);
  }

  /* Tell the value under the pointer in a small box; a click on a cell that is no ring chooses what is near. */
  function listen(plot, chosen) {
    const box = document.createElement("div");
    box.className = "fs-tip";
    box.hidden = true;
    plot.appendChild(box);
    plot.addEventListener("mousemove", (event) => {
      const found = plot._dragging ? null : cell(plot, event);
      box.hidden = !found || Number.isNaN(found.value) || (plot._hoverdata || []).length > 0;
      if (box.hidden) return;
      const place = plot.getBoundingClientRect(), x = event.clientX - place.left;
      box.textContent = words(plot.data[0].told, found);
      box.style.left = x > place.width / 2 ? "" : `${x + 12}px`;
      box.style.right = x > place.width / 2 ? `${place.width - x + 12}px` : "";
      box.style.top = `${event.clientY - place.top - 12}px`;
    });
    plot.addEventListener("mouseleave", () => { box.hidden = true; });
    plot.addEventListener("click", (event) => {
      const found = event.target.closest(".nsewdrag") && !(plot._hoverdata || []).length && cell(plot, event);
      if (found) chosen(found);
    });
  }

  fs.map = { of, grown, value, highest, dressed, listen, nearest };
})();
