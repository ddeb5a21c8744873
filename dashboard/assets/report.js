/* Draws a written report: the figures in the page's own scheme, their step axes linked. */

(function () {
  "use strict";

  const store = document.getElementById("data");
  if (!store || !window.Plotly) return;  // the dashboard, which loads this file too, draws by itself
  const data = JSON.parse(store.textContent), root = document.documentElement;
  const config = {
    displaylogo: false, responsive: true, showTips: false, doubleClick: "autosize",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  for (const figure of Object.values(data.figures)) figure.data = figure.data.map(window.foreshock.decoded);
  const whole = document.getElementById("whole"), chooser = document.getElementById("close-up");
  let zoom = null;

  function draw(name) {
    const scheme = data.schemes[root.dataset.mantineColorScheme];
    const range = data.shared.includes(name) ? zoom || data.extent : null;
    const dressed = window.foreshock.dress(data.figures[name], scheme, range);
    return window.Plotly.react(document.getElementById("panel-" + name), dressed.data, dressed.layout, config);
  }

  function drawAll() {
    whole.disabled = zoom === null;
    return Object.keys(data.figures).map(draw);
  }

  function zoomed(change) {
    const range = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (change["xaxis.autorange"]) zoom = null;
    else if (typeof range[0] === "number" && typeof range[1] === "number") zoom = range.slice();
    else return;
    drawAll();
  }

  function closeUp(key) {
    for (const [name, part] of Object.entries(data.closeUps[key] || {})) {
      if (part.figure) data.figures[name] = { ...part.figure, data: part.figure.data.map(window.foreshock.decoded) };
      document.getElementById("words-" + name).innerHTML = part.words;  // written by us, every cell and name escaped
      document.getElementById("tables-" + name).innerHTML = part.tables;
      const card = document.getElementById("card-" + name);
      if (card) card.hidden = part.absent;
      if (part.figure && !part.absent) draw(name);
    }
    if (chooser && data.closeUps[key]) chooser.value = key;
  }

  Promise.all(drawAll()).then(() => {
    for (const name of data.shared.filter((shared) => data.figures[shared])) {
      const plot = document.getElementById("panel-" + name);
      plot.on("plotly_relayout", zoomed);
      plot.on("plotly_click", (event) => event.points.forEach((point) => closeUp(point.customdata)));
    }
    root.dataset.drawn = "yes";
  });
  if (chooser) chooser.addEventListener("change", () => closeUp(chooser.value));
  whole.addEventListener("click", () => { zoom = null; drawAll(); });
  document.getElementById("toggle").addEventListener("click", () => {
    root.dataset.mantineColorScheme = root.dataset.mantineColorScheme === "dark" ? "light" : "dark";
    drawAll();
  });
})();
