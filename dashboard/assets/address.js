/* The address bar: what makes a link, and which charts share the step axis. */

(function () {
  "use strict";

  const fs = (window.foreshock = window.foreshock || {});
  const OWN = ["neighbourhood"];  // charts with an axis of their own, beside the run's

  /* Write the state into the address; a step of the history where a view or run was changed. */
  fs.address = (state) => {
    const given = new URLSearchParams();
    if (state.view) given.set("view", state.view);
    if (state.run) given.set("run", state.run);
    if (state.layers && state.layers.length) given.set("layers", state.layers.join(","));
    if (state.scale && state.scale !== "ratio") given.set("scale", state.scale);
    if (state.zoom) { given.set("from", Math.round(state.zoom[0])); given.set("to", Math.round(state.zoom[1])); }
    if (state.event) given.set("event", state.event);
    for (const name of state.compared || []) given.append("with", name);
    if (state.by) given.set("by", state.by);
    if (state.axis && state.axis !== "step") given.set("axis", state.axis);
    const search = "?" + given.toString(), old = new URLSearchParams(window.location.search);
    if (search === window.location.search) return;
    const moved = old.get("view") !== null && (old.get("view") !== state.view || old.get("run") !== state.run);
    window.history[moved ? "pushState" : "replaceState"](null, "", search);
    document.title = state.view === "runs" || !state.run ? "foreshock" : `${state.run} – foreshock`;
  };

  /* Whether a chart's x axis is the run's steps: those in the run view's main column. */
  fs.shared = (name) => {
    const card = document.getElementById(`card-${name}`);
    return Boolean(card && card.closest(".fs-main")) && !OWN.includes(name);
  };
})();
