/* Draws the charts: those on the screen first, one a task, so that the page answers in between; a chart that is hidden
   is drawn when it is shown. Plotly is called directly: a chart that waits costs nothing. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});
  const CONFIG = {
    displaylogo: false, responsive: false, doubleClick: "autosize", displayModeBar: "hover", showTips: false,
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],  // none that uploads
  };
  const LEISURE_MS = 8;  // between two charts that are not on the screen
  const waiting = new Map();  // by chart: what makes its figure
  const channel = new MessageChannel();
  let timer = null, posted = false, watched = null;

  const nodes = () => Array.from(document.querySelectorAll(".fs-chart"));
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const drawn = target._fullLayout;
      if (drawn && target.clientWidth && !waiting.has(target.dataset.chart)
        && (drawn.width !== target.clientWidth || drawn.height !== target.clientHeight)) window.Plotly.Plots.resize(target);
    }
    wake();
  });

  const onScreen = new Set();  // by name
  const screen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) onScreen[isIntersecting ? "add" : "delete"](target.dataset.chart);
    wake();
  });

  /* The next chart to draw and whether it is on the screen; none if all that wait are hidden. */
  function next() {
    if (!waiting.size) return [undefined, false];
    const shown = nodes().filter((node) => waiting.has(node.dataset.chart) && node.clientWidth);
    const urgent = shown.find((node) => onScreen.has(node.dataset.chart));
    return [urgent || shown[0], Boolean(urgent)];
  }

  function draw(node) {
    const make = waiting.get(node.dataset.chart);
    waiting.delete(node.dataset.chart);
    const figure = make();
    if (!figure) return;
    const { data, layout } = figure, first = !node._fullLayout;
    window.Plotly.react(node, data, layout, CONFIG);
    if (first) fs.listen(node.dataset.chart, node);
  }

  function pump() {
    posted = false;
    clearTimeout(timer);
    timer = null;
    if (!window.Plotly) return plotly();
    const [node] = next();
    if (!node) return;
    draw(node);
    wake();
  }

  function wake() {
    if (posted) return;
    const [node, urgent] = next();
    if (!node) return;
    if (urgent) {
      posted = true;
      channel.port2.postMessage(0);
    } else if (timer === null) {
      timer = setTimeout(pump, LEISURE_MS);
    }
  }

  function plotly() {
    const script = document.getElementById("plotly");
    if (script && watched !== script) script.addEventListener("load", wake);
    watched = script;
  }

  channel.port1.onmessage = pump;

  fs.charts = {
    names: () => nodes().map((node) => node.dataset.chart),
    node: (name) => document.querySelector(`.fs-chart[data-chart="${name}"]`),
    /* Whether a chart on the screen has yet to be drawn. */
    busy: () => Boolean(next()[1]),
    /* Have a chart drawn soon; the figure is made when its turn comes, so that only the newest state is drawn. */
    due(name, make) {
      waiting.set(name, make);
      const node = fs.charts.node(name);
      if (node) { sizes.observe(node); screen.observe(node); }
      wake();
    },
  };
})();
