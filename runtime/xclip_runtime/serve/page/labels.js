// The label set: that of the bundle, or what is typed.

import { $, counted, debounced } from "./dom.js";

const box = $("labels");
const ANY_TEXT = "One label a line. Any text works; texts like the training labels work best.";
const FIXED = "The label set of the bundle. Other labels need a bundle with a text tower and the extra [text].";

let bundled = [];
let onChange = () => {};

const entered = () => [...new Set(box.value.split("\n").map((line) => line.trim()).filter(Boolean))];
const isBundled = () => entered().join("\n") === bundled.join("\n");

export const labels = {
  // Labels that were typed stay where the model knows any text.
  load(info) {
    const keep = info.free_text && bundled.length > 0 && !isBundled();
    bundled = [...new Set(info.labels)];
    if (!keep) box.value = bundled.join("\n");
    box.readOnly = !info.free_text;
    $("labels-note").textContent = info.free_text ? ANY_TEXT : FIXED;
    describe();
  },
  onChange: (work) => { onChange = work; },
  get empty() {
    return entered().length === 0;
  },
  // Fields of a request; none stand for the bundle's label set, so there must be some.
  options: () => (isBundled() ? {} : { labels: entered() }),
};

function describe() {
  const { length } = entered();
  $("reset").hidden = isBundled();
  $("labels-count").textContent = length === 0 ? "Empty: add a label" : counted(length, "label");
  box.ariaInvalid = length === 0 ? "true" : null;
}

const changed = debounced(() => onChange());
box.addEventListener("input", () => {
  describe();
  changed();
});
$("reset").addEventListener("click", () => {
  box.value = bundled.join("\n");
  describe();
  box.focus();
  onChange();
});
