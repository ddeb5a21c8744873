/* What Dash calls in the browser when something on the page changes; app.py says which of them when. */

(function () {
  "use strict";

  const fs = window.foreshock, { kept, set, same } = fs;
  const SILENCE_MS = 5000, POLL_MS = 2000, AGAIN_MS = 15000;
  const STEPS = ["run", "event", "settings", "precursors"];  // views that are about one run

  function changed(name) {
    return (window.dash_clientside.callback_context.triggered || []).some((item) => item.prop_id.startsWith(name));
  }

  const hooks = {
    compose(push, focus, evidence, signals, comparison, _scheme, schemes) {
      if (changed("push") && push) {
        if (push.via === "socket") kept.heard = Date.now();
        else kept.owed = 0;
        kept.waiting.push(push);
      }
      kept.schemes = schemes;
      const all = changed("scheme") || !changed("");
      const steps = fs.takeAll() || all;
      const fresh = {};
      for (const [name, sent] of Object.entries({ focus, evidence, signals, comparison })) {
        if (changed(name) && sent && (name === "comparison" || sent.run === kept.run)) Object.assign(fresh, sent.figures);
      }
      Object.assign(kept.raw, fresh);
      if (steps) fs.drawSteps();
      for (const name of fs.charts.names()) if (kept.raw[name] && !fs.shared(name) && (all || name in fresh)) fs.draw(name);
    },

    arrive(search, options) {
      const given = new URLSearchParams(search || window.location.search);
      const names = (options || []).map((option) => option.value);
      if (kept.arrived && kept.run && changed("run")) return Array(8).fill(same());
      if (!names.length && !given.get("run")) return Array(8).fill(same());
      const number = (key) => (given.get(key) === null ? NaN : Number(given.get(key)));
      const zoom = [number("from"), number("to")];
      const range = zoom[0] < zoom[1] ? zoom : null;
      const event = given.get("event") || null, run = given.get("run") || kept.run || names[0];
      Object.assign(kept, { arrived: true, chosen: Boolean(event), event, zoom: range });
      fs.zoomTold();
      const usual = names.length > 1 && !given.get("run") ? "runs" : "run";
      const view = document.querySelector(`[data-view="${CSS.escape(given.get("view") || "")}"]`) ? given.get("view") : usual;
      const layers = (given.get("layers") || "").split(",").filter(Boolean);
      if (kept.run) {  // Back or Forward
        if (range) fs.askFine(); else kept.fine = null;
        fs.drawSteps();
      }
      const versus = [given.getAll("with"), given.get("by"), given.get("axis") || "step"];
      return [run, event, view, layers, given.get("scale") || "ratio", ...versus];
    },

    choose(run, layers, scale, view) {
      kept.view = view;
      if (!run || !STEPS.includes(view)) return same();
      const look = [scale, ...(layers || [])].join("|");
      if (run === kept.run && look === kept.look) return same();
      if (run !== kept.run) {
        const first = kept.run === null;
        Object.assign(kept, { run, raw: {}, fine: null, extent: null, zoom: first ? kept.zoom : null, missed: false });
        Object.assign(kept, { columns: fs.columns(), waiting: [], focusOf: "", best: "" });
        if (!first) Object.assign(kept, { chosen: false, event: null });
        fs.zoomTold();
      }
      Object.assign(kept, { look, layers: layers || [], scale, cursor: null, attached: null });
      fs.takeAhead();
      Object.assign(kept, { asked: Date.now(), owed: Date.now(), heard: Date.now() });
      return fs.question(null);
    },

    address(run, layers, scale, compared, by, axis, event, view, push) {
      if (!kept.arrived) return same();
      const wanted = event && kept.chosen ? event : "";
      kept.place = { view, run, layers, scale, compared, by, axis };
      fs.tellAddress();
      if (!run || run !== kept.run) return same();
      const mine = push && push.run === run, beat = mine && push.kind === "beat";
      const before = kept.focusOf.startsWith(`${run}|`);  // a beat tells nothing new, and no less is there than before it
      const there = mine && (!beat || before) ? "there" : "", best = beat ? kept.best : (mine && push.best) || "";
      const key = `${run}|${wanted || best}|${there}`;
      if (key === kept.focusOf || !there) return same();
      kept.focusOf = key;
      return { run, event: wanted || best };
    },

    show(view) {
      if (!view) return window.dash_clientside.callback_context.outputs_list.map(same);
      document.body.dataset.view = view;
      for (const link of document.querySelectorAll("[data-view]")) {
        if (link.closest("nav")) link.toggleAttribute("aria-current", link.dataset.view === view);
      }
      setTimeout(() => window.dispatchEvent(new Event("resize")), 0);  // a grid that was hidden takes its size
      return window.dash_clientside.callback_context.outputs_list.map((output) => output.id.name !== view);
    },

    tick() {
      if (!kept.run || document.hidden) return same();
      const now = Date.now(), silent = now - kept.heard > SILENCE_MS;
      const owed = kept.owed && now - kept.owed < AGAIN_MS;  // a new question would make Dash drop the answer to the old
      const coarse = kept.zoom && kept.cursor && !(kept.fine && kept.fine.of === kept.zoom.join());
      if (coarse && now - kept.askedFine > fs.FINE_MS) fs.askFine();
      // A beat of the socket may have taken the place of the answer before it was read: then there is no picture yet.
      else if ((silent || !kept.cursor) && !owed && !kept.paused && now - kept.asked > POLL_MS) fs.ask(kept.cursor);
      if (silent && kept.cursor && now - kept.attachedAt > AGAIN_MS) { kept.attached = null; fs.attach(); }
      if (kept.paused) return "paused";
      if (!["running", "stalled"].includes(kept.state)) return "";
      return silent ? "polling" : "live";
    },

    wantRuns(view, _ticks, rows) {
      if (view !== "runs" || document.hidden) return same();
      const pending = !rows || !rows.length || rows.some((row) => row.spikes === null);
      const narrow = window.innerWidth < 700, turned = narrow !== kept.narrow;
      if (!changed("view") && !turned && Date.now() - kept.askedRuns < (pending ? 1500 : 5000)) return same();
      Object.assign(kept, { askedRuns: Date.now(), narrow });
      return { narrow, nonce: Math.random() };
    },

    wantEvidence(view, push, run, layer) {
      if (view !== "precursors" || !run) return same();
      const cursor = (push && push.cursor) || {}, live = push && push.state === "running";
      const key = [run, layer || "", cursor.epoch, cursor.events, live ? "" : cursor.rows].join("|");
      const again = live && kept.evidenceOf && Date.now() - kept.askedEvidence < 30000 && kept.evidenceRun === `${run}|${layer}`;
      if (key === kept.evidenceOf || again) return same();
      if (!kept.evidenceRun.startsWith(`${run}|`)) {  // the panels still show another run
        set("precursors-told", { children: "Testing…" });
        set("precursors-facts", { children: "" });
        set("precursors-cards", { hidden: true });
      }
      Object.assign(kept, { evidenceOf: key, askedEvidence: Date.now(), evidenceRun: `${run}|${layer}` });
      return { run, layer, nonce: Math.random() };
    },

    wantCompare(view, compared, by, axis, _ticks, comparison) {
      if (view !== "compare" || document.hidden) return same();
      const key = JSON.stringify([compared, by, axis]), now = Date.now();
      const due = now - kept.askedCompare > (comparison && !comparison.pending ? 10000 : 1500);
      if (key === kept.compareOf && !due) return same();
      Object.assign(kept, { compareOf: key, askedCompare: now });
      return { runs: compared || [], by, axis, nonce: Math.random() };
    },

    selected(rows) {
      kept.selected = (rows || []).map((row) => row.run);
      set("compare-selected", { disabled: kept.selected.length < 2 });
      return kept.selected.length ? `Compare ${kept.selected.length} runs` : "Compare";
    },

    wantSettings(view, push, run) {
      if (view !== "settings" || !run) return same();
      const key = `${run}|${push && push.cursor ? push.cursor.epoch + push.state : ""}`;
      if (key === kept.settingsOf) return same();
      kept.settingsOf = key;
      return { run, nonce: Math.random() };
    },

    search(text, options) {
      return { ...options, quickFilterText: text || "" };
    },
  };

  window.dash_clientside = Object.assign(window.dash_clientside || {}, { foreshock: hooks });
  new MutationObserver(() => set("scheme", { data: fs.scheme() })).observe(
    document.documentElement, { attributes: true, attributeFilter: ["data-mantine-color-scheme"] });
})();
