// Windows of a camera over time: a curve for each label, and the events, labels that hold for a while.

import { $, make, percent, seconds } from "./dom.js";

const HOLDS = 0.5; // A label holds while its share is at least this.
const SPAN = 60; // Seconds of the curves.
const LANES = 4;
const KEPT_EVENTS = 50;
const SVG = "http://www.w3.org/2000/svg";

let windows = []; // Of the last SPAN seconds.
let events = []; // {label, start, end, prob, last}, newest first; end is null while it lasts.

const clock = (time) => new Date(performance.timeOrigin + 1000 * time).toLocaleTimeString("en-GB");

export const liveEvents = {
  open() {
    windows = [];
    events = [];
    $("events-list").replaceChildren();
    $("lanes").replaceChildren();
    $("events").hidden = false;
  },
  close() {
    this.interrupt();
    $("events").hidden = true;
  },
  // No event spans a gap, a change of labels, or a lost connection.
  interrupt() {
    for (const event of events) finish(event);
    drawEvents();
  },
  add({ start, end, labels, gap }) {
    if (gap) this.interrupt();
    windows = [...windows, { start, end, labels }].filter((window) => window.end > end - SPAN);
    // A label alone always has the whole share.
    const holding = labels.length > 1 ? labels.filter(({ prob }) => prob >= HOLDS) : [];
    const names = new Set(holding.map(({ label }) => label));
    for (const event of events) if (!names.has(event.label)) finish(event);
    for (const { label, prob } of holding) {
      let event = events.find((one) => one.end === null && one.label === label);
      if (!event) events.unshift(event = { label, start, end: null, prob, last: end });
      event.last = end;
      event.prob = Math.max(event.prob, prob);
    }
    events = events.slice(0, KEPT_EVENTS);
    $("events-note").textContent = labels.length > 1
      ? `Labels of at least ${100 * HOLDS}\u00a0% of the list, and the last ${SPAN} seconds`
      : "Events need two labels or more: one alone always has the whole share";
    drawEvents();
    drawLanes(end);
  },
  toDocument: () => ({ events: events.map(({ last, ...event }) => event), windows }),
};

function finish(event) {
  event.end ??= event.last;
}

function drawEvents() {
  const list = $("events-list");
  while (list.children.length > events.length) list.lastChild.remove();
  // Rows stay with their events, so that a screen reader announces new ones alone.
  const added = events.length - list.children.length;
  for (let i = 0; i < added; i++) list.prepend(make("li", {}, make("span", { className: "label" }), make("span", { className: "soft" })));
  events.forEach(({ label, start, end, prob, last }, place) => {
    const [name, facts] = list.children[place].children;
    name.textContent = label;
    facts.textContent = `${clock(start)} · ${seconds(last - start)}${end === null ? " so far" : ""} · ${percent(prob)}`;
    list.children[place].classList.toggle("lasting", end === null);
  });
}

function drawLanes(now) {
  const best = new Map();
  for (const { label, prob } of windows.flatMap((window) => window.labels)) {
    best.set(label, Math.max(best.get(label) ?? 0, prob));
  }
  const names = [...best.keys()].sort((a, b) => best.get(b) - best.get(a)).slice(0, LANES);
  $("lanes").replaceChildren(...names.map((name) => {
    const curve = document.createElementNS(SVG, "svg");
    const path = document.createElementNS(SVG, "path");
    const points = windows.map(({ end, labels }) => {
      const prob = labels.find(({ label }) => label === name)?.prob ?? 0;
      return `L${(SPAN - (now - end)).toFixed(2)} ${(1 - prob).toFixed(3)}`;
    });
    const first = SPAN - (now - windows[0].end);
    path.setAttribute("d", `M${first.toFixed(2)} 1${points.join("")}L${SPAN} 1Z`);
    curve.setAttribute("viewBox", `0 0 ${SPAN} 1`);
    curve.setAttribute("preserveAspectRatio", "none");
    curve.append(path);
    return make("div", { className: "lane" }, make("span", { className: "small name", textContent: name }), curve);
  }));
}
