/* A chart as PNG, SVG or CSV. The file is made in the browser: nothing is sent anywhere. */

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

  /* Every visible trace as rows of series, x, y; a map as layer, x, value. */
  fs.csv = (plot) => {
    const axis = (name) => ((plot.layout[name] || {}).title || {}).text || name[0];
    const rows = [["series", axis("xaxis"), axis("yaxis")]];
    plot.data.forEach((trace, at) => {
      const x = Array.from(trace.x || []), name = trace.name || trace.type || `series ${at}`;
      if (trace.type === "heatmap") {
        const grid = trace.customdata || trace.z;
        trace.y.forEach((layer, i) => x.forEach((step, j) => rows.push([layer, step, Number(grid[i][j]).toPrecision(4)])));
      } else if (trace.hoverinfo !== "skip") {
        x.forEach((step, i) => rows.push([name, step, trace.y[i]]));
      }
    });
    if (plot.data.some((trace) => trace.type === "heatmap")) rows[0] = ["layer", axis("xaxis"), "value"];
    return rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  };

  function save(name, kind) {
    const plot = plotOf(name);
    if (!plot || !window.Plotly) return;
    const run = (fs.kept && fs.kept.run) || document.body.dataset.run || "run";
    const filename = `${run}-${name}`.replace(/[^\w.-]+/g, "_");
    if (kind !== "csv") {
      const filled = { paper_bgcolor: getComputedStyle(document.body).getPropertyValue("--fs-card").trim() };
      const figure = { data: plot.data, layout: { ...plot.layout, ...filled } };
      window.Plotly.downloadImage(figure, { format: kind, filename, width: plot.clientWidth, height: plot.clientHeight, scale: kind === "png" ? 2 : 1 });
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([fs.csv(plot)], { type: "text/csv" }));
    link.download = `${filename}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-save]");
    if (!button) return;
    save(button.dataset.panel, button.dataset.save);
    button.closest("details").open = false;
  });
})();
