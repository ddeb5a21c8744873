/* Asks for a run's first picture while the page still loads its scripts; the head of the page holds this, and hooks.js
   takes the answer. */

(function () {
  "use strict";

  const given = new URLSearchParams(window.location.search), run = given.get("run"), view = given.get("view");
  if (!run || (view && view !== "run")) return;
  const layers = (given.get("layers") || "").split(",").filter(Boolean), scale = given.get("scale") || "ratio";
  // The charts' width as the style sheet will have it: the page's without its margins, and without the cards beside.
  const wide = Math.min(window.innerWidth, 1760), room = wide - (window.innerWidth > 1100 ? 615 : 165);
  const columns = Math.max(200, Math.min(2000, room));
  const body = JSON.stringify({ run, columns, layers, scale });
  const asked = fetch("picture", { method: "POST", headers: { "content-type": "application/json" }, body });
  const answer = asked.then((told) => (told.status === 200 ? told.json() : null)).catch(() => null);
  window.foreshock = { ahead: { run, columns, look: [scale, ...layers].join("|"), answer } };
})();
