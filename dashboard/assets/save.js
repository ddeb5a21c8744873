/* A chart as PNG, SVG or CSV. Nothing is sent anywhere: pictures are made in the browser, and so is the CSV of what is
   drawn; the recorded rows come from the dashboard's own server. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});

  function plotOf(name) {
    const card = document.getElementById(`card-${name}`);
    return card && card.querySelector(".js-plotly-plot");
  }

  function quoted(value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    const text = String(value);
    return /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  const spelt = (name) => name && name.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

  /* The name of a trace; the edges of a band are called after the line that is drawn over it. */
  function nameOf(data, at) {
    const edge = (trace) => trace && trace.hoverinfo === "skip" && trace.line && trace.line.width === 0;
    const upper = edge(data[at]) && data[at].fill === "tonexty";
    const lower = edge(data[at]) && data[at + 1] && data[at + 1].fill === "tonexty";
    if (!upper && !lower) return data[at].hoverinfo === "skip" ? null : data[at].name || data[at].type || `series ${at}`;
    const line = data[at + (upper ? 1 : 2)];
    return line ? `${line.name}, ${upper ? "upper edge" : "lower edge"}` : null;
  }

  /* What is drawn: every trace as rows of series, x, y; a map as layer, x, value. */
  fs.csv = (plot) => {
    const axis = (name) => ((plot.layout[name] || {}).title || {}).text || name[0];
    const rows = [["series", axis("xaxis"), axis("yaxis")]];
    plot.data.forEach((trace, at) => {
      const x = Array.from(trace.x || []), name = spelt(nameOf(plot.data, at));
      if (trace.map) {
        const { map } = trace;
        trace.layers.forEach((layer, i) => map.x.forEach((step, j) => rows.push([layer, step, Number(fs.map.value(map, i, j).toPrecision(4))])));
      } else if (trace.type === "heatmap") {
        const grid = trace.customdata || trace.z;
        trace.y.forEach((layer, i) => x.forEach((step, j) => rows.push([layer, step, Number(grid[i][j]).toPrecision(4)])));
      } else if (trace.yaxis === "y2") {  // marks along the bottom have steps alone
        x.forEach((step) => rows.push([name, step, ""]));
      } else if (name !== null) {
        const line = / edge$/.test(name) ? plot.data[at + (trace.fill ? 1 : 2)].y : trace.y;  // a band has none in a gap
        x.forEach((step, i) => { if (step !== null && !(line[i] === null && line !== trace.y)) rows.push([name, step, trace.y[i]]); });
      }
    });
    if (plot.data.some((trace) => trace.map || trace.type === "heatmap")) rows[0] = ["layer", axis("xaxis"), "value"];
    return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  };

  /* Where the server has the recorded rows of what a chart shows, or null where there is no server or no such rows. */
  fs.rowsOf = (name, kind) => {
    const kept = fs.kept, plot = plotOf(name);
    if (!kind || !kept || !kept.run || !plot) return null;
    const given = new URLSearchParams({ run: kept.run, panel: name });
    const range = kind === "event" ? plot.layout.xaxis.range : kept.zoom || kept.extent;
    if (!range) return null;
    given.set("from", range[0]);
    given.set("to", range[1]);
    if (kind === "event") given.set("event", kept.event || kept.best);
    else for (const layer of kept.layers || []) given.append("layers", layer);
    return `rows.csv?${given}`;
  };

  function keep(text, filename) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = filename;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  /* A sentence beside the button, for a while; read out too. */
  function tell(menu, text) {
    const note = document.createElement("p");
    Object.assign(note, { className: "fs-note fs-save-note", textContent: text });
    note.setAttribute("role", "alert");
    menu.after(note);
    setTimeout(() => note.remove(), 10000);
  }

  async function saveRows(address, filename, menu) {
    try {
      const answer = await fetch(address);
      const text = await answer.text();
      if (answer.ok) keep(text, filename);
      else tell(menu, text.trim());
    } catch (error) {
      tell(menu, "The server did not answer.");
    }
  }

  function save(name, kind, rows, menu) {
    const plot = plotOf(name);
    if (!plot || !window.Plotly) return;
    const run = (fs.kept && fs.kept.run) || document.body.dataset.run || "run";
    const filename = `${run}-${name}`.replace(/[^\w.-]+/g, "_");
    if (kind === "csv") {
      const address = fs.rowsOf(name, rows);
      if (address) saveRows(address, `${filename}.csv`, menu);
      else keep(fs.csv(plot), `${filename}.csv`);
      return;
    }
    const filled = { paper_bgcolor: getComputedStyle(document.body).getPropertyValue("--fs-card").trim() };
    const figure = { data: plot.data, layout: { ...plot.layout, ...filled } };
    window.Plotly.downloadImage(figure, { format: kind, filename, width: plot.clientWidth, height: plot.clientHeight, scale: kind === "png" ? 2 : 1 });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-save]");
    if (!button) return;
    const menu = button.closest("details");
    save(button.dataset.panel, button.dataset.save, button.dataset.rows, menu);
    menu.open = false;
  });
})();
