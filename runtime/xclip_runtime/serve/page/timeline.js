// The part of the video that is read, its views, and where the sampled frames lie.

import { $, counted, debounced, make, seconds } from "./dom.js";
import { player } from "./player.js";

const VIEWS = [["1x1", "1 view"], ["4x1", "4 positions"], ["1x3", "3 crops"], ["4x3", "4 positions × 3 crops"]];
const STEP = 0.1; // Seconds.
const MARKS = "http://www.w3.org/2000/svg";

const [from, to, views, marks] = [$("from"), $("to"), $("views"), $("marks")];
let length = null; // Seconds; null where the browser does not know.
let numFrames = 1;

export const timeline = {
  load(info) {
    numFrames = info.num_frames;
    const allowed = VIEWS.filter(([value]) => {
      const [positions, crops] = value.split("x");
      return positions * crops <= info.max_views;
    });
    views.replaceChildren(...allowed.map(([value, textContent]) => make("option", { value, textContent })));
  },
  onChange(work) {
    const later = debounced(work);
    for (const input of [from, to, views]) input.addEventListener("change", later);
    $("whole").addEventListener("click", () => {
      setRange(0, to.max);
      work();
    });
  },
  open() {
    length = null;
    views.value = VIEWS[0][0];
    $("part").hidden = false;
    $("range").hidden = true;
    marks.replaceChildren();
    $("marks-note").textContent = "";
  },
  close() {
    $("part").hidden = true;
  },
  // Fields of a request.
  options() {
    const options = {};
    if (length !== null && Number(from.value) > 0) options.start = Number(from.value);
    if (length !== null && Number(to.value) < Number(to.max)) options.end = Number(to.value);
    if (views.value && views.value !== VIEWS[0][0]) options.views = views.value;
    return options;
  },
  name: () => (isWhole() ? "the video" : "this part"),
  timeOf(frames) {
    if (length === null || frames.total === 0) return () => null;
    const spread = isWhole() ? length : to.value - from.value;
    return (index) => Math.min((index + 0.5) / frames.total * spread, length);
  },
  unmark() {
    $("marks-note").textContent = "";
    marks.replaceChildren();
  },
  // Draws a line of marks for each temporal position.
  mark(frames) {
    const timeOf = this.timeOf(frames);
    const { indices } = frames;
    const positions = Math.max(Math.round(indices.length / numFrames), 1);
    $("marks-note").textContent = `${counted(indices.length, "frame")} sampled`
      + (positions > 1 ? ` at ${counted(positions, "position")}` : "");
    const path = indices.map((index, place) => {
      const time = timeOf(index);
      const row = Math.floor(place / numFrames);
      return time === null ? "" : `M${(1000 * time / length).toFixed(1)} ${row + 0.15}V${row + 0.85}`;
    });
    const lines = document.createElementNS(MARKS, "path");
    lines.setAttribute("d", path.join(""));
    marks.setAttribute("viewBox", `0 0 1000 ${positions}`);
    marks.replaceChildren(lines);
  },
};

const isWhole = () => length === null || (Number(from.value) <= 0 && Number(to.value) >= Number(to.max));

function setRange(start, end) {
  from.value = start;
  to.value = end;
  describe();
}

function describe() {
  const [start, end] = [Number(from.value), Number(to.value)];
  from.ariaValueText = seconds(start);
  to.ariaValueText = seconds(end);
  $("range-text").textContent = isWhole() ? `Whole video, ${seconds(length)}` : `${seconds(start)} to ${seconds(end)}`;
  $("whole").hidden = isWhole();
  const chosen = $("chosen").style;
  chosen.left = `${100 * start / to.max}%`;
  chosen.right = `${100 - 100 * end / to.max}%`;
}

player.onDuration((time) => {
  if (!Number.isFinite(time) || time < 2 * STEP) return;
  length = time;
  for (const input of [from, to]) input.max = (Math.ceil(time / STEP) * STEP).toFixed(1);
  $("range").hidden = false;
  setRange(0, to.max);
});
from.addEventListener("input", () => move(from, Math.min(from.value, to.value - STEP)));
to.addEventListener("input", () => move(to, Math.max(to.value, Number(from.value) + STEP)));

function move(input, time) {
  input.value = time;
  describe();
  player.seek(Number(input.value));
}
