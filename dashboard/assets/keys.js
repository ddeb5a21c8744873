/* Keys and clicks: navigation, events, the help. Single keys act only outside of fields, and can be turned off. */

(function () {
  "use strict";

  const fs = window.foreshock;
  if (!document.getElementById("react-entry-point")) return;  // the report has none

  const help = (open) => {
    const dialog = document.getElementById("help");
    if (open) dialog.showModal(); else dialog.close();
  };
  const views = () => Array.from(document.querySelectorAll("nav [data-view]")).map((link) => link.dataset.view);
  const actions = {
    n: () => fs.neighbour(1), p: () => fs.neighbour(-1), "+": () => fs.scaled(0.5, 0), "=": () => fs.scaled(0.5, 0),
    "-": () => fs.scaled(2, 0), "0": () => fs.setZoom(null), ArrowLeft: () => fs.kept.zoom && fs.scaled(1, -0.25),
    ArrowRight: () => fs.kept.zoom && fs.scaled(1, 0.25), " ": () => fs.pause(), e: () => fs.go("event"),
    t: () => document.getElementById("toggle").click(), "?": () => help(true),
  };

  function typing(target) {
    return target.closest("input, textarea, select, button, a, summary, [role=grid], [role=slider], [role=listbox], dialog");
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const box = document.getElementById("keys-on");
    if (box && !box.checked && event.key !== "?") return;
    const idle = !typing(event.target);
    const letter = /^[a-z0-9?+=-]$/.test(event.key) && !event.target.closest("input, textarea, select, [role=listbox], dialog");
    if (!idle && !letter) return;
    const number = views()[Number(event.key) - 1];
    if (number && event.key !== "0") fs.go(number);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });

  const buttons = {
    whole: () => fs.setZoom(null), pause: () => fs.pause(), previous: () => fs.neighbour(-1), next: () => fs.neighbour(1),
  };

  document.addEventListener("click", (event) => {
    const at = (css) => event.target.closest(css);
    const row = at("[data-row], [data-event]"), link = at("[data-view]"), run = at("[data-run]"), dialog = at("[data-help]");
    const button = at("button[id]"), step = at("[data-neighbour]");
    if (row) fs.choose(row.dataset.event || row.dataset.row);
    if (link) fs.go(link.dataset.view);
    if (run) { fs.set("run", { value: run.dataset.run }); fs.go("run"); }
    if (dialog) help(dialog.dataset.help === "open");
    if (at("#compare-selected") && fs.kept.selected.length > 1) {
      fs.set("compared", { value: fs.kept.selected });
      fs.go("compare");
    }
    if (step) fs.neighbour(Number(step.dataset.neighbour));
    if (button && buttons[button.id]) buttons[button.id]();
    for (const menu of document.querySelectorAll(".fs-save[open]")) if (!menu.contains(event.target)) menu.open = false;
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "settings-search") return;
    const wanted = event.target.value.toLowerCase();
    for (const row of document.querySelectorAll("#settings-config tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
    }
  });
})();
