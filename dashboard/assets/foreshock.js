/* What the page knows of a run, and the messages that it comes in.

   A message is the whole picture ("full"), its "tail", or the finer columns of a "window". Zoom is set on every step
   axis at once, so a message never undoes it. What the visitor does is in visitor.js, what Dash calls in hooks.js. */

(function () {
  "use strict";

  const fs = window.foreshock;
  const kept = {
    // the picture: figures as they came, finer columns of the zoom and both put together, by chart
    run: null, raw: {}, fine: null, spliced: {}, cursor: null, extent: null, best: "", state: "", columns: 1000, schemes: null,
    // what the visitor chose; `chosen` is whether the event is theirs, or the best one
    view: null, zoom: null, event: null, chosen: false, layers: [], scale: "ratio", look: "", paused: false, selected: [],
    // between page and server: when (ms) it was asked, heard or owed an answer, what waits, what was missed in a pause
    page: Math.random().toString(36).slice(2), attached: null, attachedAt: 0, heard: 0, asked: 0, owed: 0, askedFine: 0,
    asking: false, late: null, waiting: [], missed: false,
    // what was asked or told last, so that it is not again
    arrived: false, narrow: null, place: {}, zoomTold: true, focusOf: "", settingsOf: "", askedRuns: 0,
    evidenceOf: "", evidenceRun: "", askedEvidence: 0, compareOf: "", askedCompare: 0,
  };
  const FINE_MS = 2000;  // between two questions for finer columns while a run grows
  const same = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);

  function merge(push) {
    for (const [name, part] of Object.entries(push.figures)) {
      const held = kept.raw[name];
      if (!held || held.data.length !== part.data.length) return false;
      kept.raw[name] = {
        layout: part.layout || held.layout,
        data: held.data.map((trace, i) => {
          const tail = part.data[i];
          return tail === null ? trace : tail.type ? fs.decoded(tail) : fs.grown(trace, tail, push.from);
        }),
      };
    }
    return true;
  }

  function whole(push) {
    for (const [name, figure] of Object.entries(push.figures)) {
      kept.raw[name] = { ...figure, data: figure.data.map(fs.decoded) };
    }
    kept.fine = null;
    set("charts", { hidden: false });
    set("layers", { data: push.layers });
    if (kept.zoom) askFine();
  }

  function expected(cursor) {
    return kept.cursor && cursor.epoch === kept.cursor.epoch && cursor.width === kept.cursor.width;
  }

  /* Take one message in; true if the charts must be drawn again. */
  function take(push) {
    if (push.run !== kept.run) return false;
    if (push.state) kept.state = push.state;
    if (push.cursor && push.cursor.look !== kept.look) return false;  // an answer to an older question
    if (push.kind === "full" && JSON.stringify(push.cursor) === JSON.stringify(kept.cursor)) return false;  // it came ahead
    if (push.figures) push = { ...push, figures: fs.unfolded(push) };
    if (push.kind === "window") {
      if (!kept.zoom || !expected(push.cursor)) return false;
      kept.fine = push.low === null ? { of: push.window.join(), low: 0, high: -1, figures: {} } : { ...push, of: push.window.join() };
      return true;
    }
    if (kept.paused && push.via === "socket" && push.figures) { kept.missed = true; return false; }
    if (push.kind === "full") {
      whole(push);
    } else if (push.kind === "tail") {
      if (!expected(push.cursor) || !merge(push)) { ask(null); return false; }
      const edge = kept.zoom && kept.fine && kept.zoom[1] > kept.fine.high && push.extent[1] > kept.fine.high;
      if (edge && Date.now() - kept.askedFine > FINE_MS) askFine();
    } else {
      return false;
    }
    Object.assign(kept, { cursor: push.cursor, extent: push.extent, best: push.best || "" });
    if (push.kind === "full") attach();
    return true;
  }

  function dragging() {
    return Array.from(document.querySelectorAll(".js-plotly-plot")).some((plot) => plot._dragging || plot._dragged);
  }

  function columns() {  // one a pixel of the charts' width, or a line of one step could fall between two pixels
    const plot = fs.charts.node("knn"), hidden = [];
    for (let node = plot; node; node = node.parentElement) if (node.hidden) hidden.push(node);
    hidden.forEach((node) => { node.hidden = false; });  // before the first picture it is, and has no width
    const width = plot && plot.clientWidth ? plot.clientWidth : window.innerWidth;
    hidden.forEach((node) => { node.hidden = true; });
    return Math.max(200, Math.min(2000, Math.round(width - 90)));
  }

  function question(cursor) {
    const { run, page, layers, scale } = kept;
    return { run, page, cursor, columns: kept.columns, layers, scale, nonce: Math.random() };
  }

  function ask(cursor) {
    kept.asked = kept.owed = Date.now();
    set("want", { data: question(cursor) });
  }

  /* Ask for the finer columns of the zoom: one question at a time, and then the newest. */
  async function askFine() {
    if (kept.asking || !kept.cursor || !kept.zoom) return;
    const window_ = kept.zoom;
    Object.assign(kept, { asking: true, askedFine: Date.now() });
    try {
      const body = JSON.stringify({ ...question(kept.cursor), window: window_ });
      const answer = await fetch("columns", { method: "POST", headers: { "content-type": "application/json" }, body });
      const push = answer.ok ? await answer.json() : null;
      if (push) { kept.waiting.push(push); settle(); }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;  // no connection: the clock asks again
    } finally {
      kept.asking = false;
    }
    if (kept.zoom && kept.zoom !== window_) askFine();
  }

  /* The picture that was asked for before the page was there, if it is the one that is wanted now. */
  async function takeAhead() {
    const ahead = fs.ahead;
    fs.ahead = null;
    if (!ahead || ahead.run !== kept.run || ahead.look !== kept.look) return;
    kept.columns = ahead.columns;
    const push = await ahead.answer;
    if (!push || kept.cursor) return;
    kept.waiting.push(push);
    settle();
  }

  /* Take in what has come, unless a chart is being dragged; true if the charts along the steps have changed. */
  function takeAll() {
    if (dragging()) return false;
    return kept.waiting.splice(0).reduce((steps, item) => take(item) || steps, false);
  }

  function settle() {
    if (dragging()) setTimeout(settle, 50);
    else if (takeAll()) drawSteps();
  }

  function draw(name) {
    fs.charts.due(name, () => {
      const held = figure(name);  // none where another run was chosen meanwhile
      return held && fs.dress(held, kept.schemes[scheme()], fs.shared(name) ? kept.zoom || kept.extent : null);
    });
  }

  function drawSteps() {
    clearTimeout(kept.late);
    kept.late = null;
    if (!kept.schemes) return;
    for (const name of fs.charts.names()) if (kept.raw[name] && fs.shared(name)) draw(name);
    fs.brush(kept, kept.schemes[scheme()]);
  }

  function attach() {
    if (kept.attached === kept.run) return;
    Object.assign(kept, { attached: kept.run, attachedAt: Date.now(), heard: Date.now() });
    set("attach", { data: question(kept.cursor) });
  }

  function scheme() {
    return document.documentElement.getAttribute("data-mantine-color-scheme") === "dark" ? "dark" : "light";
  }

  function figure(name) {
    const held = kept.raw[name], part = kept.fine && kept.fine.figures[name];
    if (!held || !part || part.data.length !== held.data.length) return held;
    const last = kept.spliced[name];
    if (last && last.held === held && last.part === part) return last.figure;
    const data = held.data.map((trace, i) => fs.finer(trace, part.data[i], kept.fine.low, kept.fine.high));
    kept.spliced[name] = { held, part, figure: { ...held, data } };
    return kept.spliced[name].figure;
  }

  Object.assign(fs, { FINE_MS, kept, set, same, columns, question, ask, askFine, takeAhead, takeAll, draw, drawSteps, attach, scheme });
})();
