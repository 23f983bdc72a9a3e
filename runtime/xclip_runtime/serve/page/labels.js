// The label set: that of the bundle, or what is typed.

import { $, counted, debounced } from "./dom.js";

const box = $("labels");
let bundled = [];
let onChange = () => {};

const entered = () => [...new Set(box.value.split("\n").map((line) => line.trim()).filter(Boolean))];
const isBundled = () => entered().join("\n") === bundled.join("\n");

export const labels = {
  load(info, changed) {
    bundled = [...new Set(info.labels)];
    onChange = changed;
    box.value = bundled.join("\n");
    if (!info.free_text) {
      box.readOnly = true;
      $("labels-note").textContent =
        "The label set of the bundle. Other labels need a bundle with a text tower and the extra [text].";
    }
    describe();
  },
  get empty() {
    return entered().length === 0;
  },
  // Fields of a request; none stand for the bundle's label set, so there must be some.
  options: () => (isBundled() ? {} : { labels: entered() }),
  count: () => entered().length,
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
