// The answer: labels with their share of the list and their score, then times and engine.

import { $, make, percent } from "./dom.js";

const STAGES = ["upload", "queue", "decode", "prepare", "vision", "prompt"];
const RELATIVE = "Shares are relative to this list. Scores, the cosines of video and text from −1 to 1, compare across lists.";
const ALONE = "A label alone has no share, as there is nothing to compare it with. Its score is the cosine of video and text, from −1 to 1.";
const EMPTY = "The label set is empty: add a label, one a line.";
const NOTHING = "Choose a video: its labels appear here.";

let scale = 1; // Between a cosine and its logit.

export const setScale = (value) => { scale = value; };
export const cosineOf = (logit, by = scale) => (logit / by).toFixed(3).replace("-", "−");
export const setStatus = (text) => { $("status").textContent = text; };

export function showScores(labels) {
  const alone = labels.length === 1;
  const rows = $("bars");
  $("hint").hidden = true;
  $("scores").hidden = false;
  $("scores").classList.toggle("alone", alone);
  $("score-note").textContent = alone ? ALONE : RELATIVE;
  while (rows.children.length > labels.length) rows.lastChild.remove();
  labels.forEach(({ label, prob, logit }, place) => {
    const row = rows.children[place] ?? rows.appendChild(emptyRow());
    row.querySelector(".label").textContent = label;
    row.querySelector(".share").textContent = percent(prob);
    row.querySelector(".score").textContent = cosineOf(logit);
    row.querySelector(".score").title = `logit ${logit.toFixed(2)}`;
    row.querySelector("i").style.width = `${100 * Math.max(alone ? logit / scale : prob, 0)}%`;
  });
}

function emptyRow() {
  const bar = make("span", { className: "bar" }, make("i"));
  const name = make("th", { scope: "row" }, make("span", { className: "label" }), bar);
  return make("tr", {}, name, make("td", { className: "share" }), make("td", { className: "score" }));
}

export function showTimings({ timings_ms: ms, provider, precision }) {
  const spent = STAGES.filter((stage) => ms[stage] >= 0.5);
  $("timings").hidden = false;
  $("total").textContent = `${Math.round(ms.total)} ms`;
  $("track").replaceChildren(...spent.map((stage) => {
    const part = make("i", { className: stage });
    part.style.flexGrow = 1000 * ms[stage]; // A sum below 1 would not fill the track.
    return part;
  }));
  $("times").replaceChildren(...spent.map((stage) =>
    make("span", { className: `stage-name ${stage}`, textContent: `${stage} ${Math.round(ms[stage])} ms` })));
  $("engine").textContent = `${precision} on ${provider}`;
}

export function clearScores(hint = "") {
  $("bars").replaceChildren();
  $("scores").hidden = $("timings").hidden = true;
  $("hint").hidden = !hint;
  $("hint").textContent = hint;
}

export const sayEmpty = () => clearScores(EMPTY);
export const sayNothing = () => clearScores(NOTHING);
