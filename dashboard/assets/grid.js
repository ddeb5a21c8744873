/* Cells of the list of runs: a button that opens the run, a state, a progress bar, a small curve. */

(function () {
  "use strict";

  const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  const make = (...args) => window.React.createElement(...args);
  const WIDTH = 104, HEIGHT = 26;

  cells.FsRun = (props) => make("button", { type: "button", className: "fs-open", "data-run": props.value }, props.value);

  /* Where there is no room for columns: the run with its state and how far it is below. */
  cells.FsRunBrief = (props) => {
    const { run, state, progress, left } = props.data;
    const far = state === "running" && progress !== null ? ` ${progress.toFixed(0)} %` : "";
    return make("div", { className: "fs-brief" },
      make("button", { type: "button", className: "fs-open", "data-run": run }, run),
      make("span", { className: `fs-state fs-state-${state}` }, `${state}${far}`),
      left ? make("span", { className: "fs-muted" }, `${left} left`) : null);
  };

  cells.FsState = (props) => make("span", { className: `fs-state fs-state-${props.value}` }, props.value);

  cells.FsProgress = (props) => {
    if (props.value === null || props.value === undefined) return "–";
    const bar = make("span", { className: "fs-bar", "aria-hidden": true }, make("span", { style: { width: `${props.value}%` } }));
    return make("span", { className: "fs-progress" }, bar, make("span", null, props.value.toFixed(0)));
  };

  cells.FsSpark = (props) => {
    const values = props.value || [];
    if (values.length < 2) return "–";
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    const at = (v, i) => `${((i / (values.length - 1)) * WIDTH).toFixed(1)},${(HEIGHT - 3 - ((v - low) / span) * (HEIGHT - 6)).toFixed(1)}`;
    const told = `kNN from ${(100 * values[0]).toFixed(0)} to ${(100 * values[values.length - 1]).toFixed(0)} %`;
    return make("svg", { width: WIDTH, height: HEIGHT, role: "img", "aria-label": told, className: "fs-spark" },
      make("polyline", { points: values.map(at).join(" ") }));
  };
})();
