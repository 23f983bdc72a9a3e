// The model that answers, of those that the server has.

import { $, make } from "./dom.js";

let chosen = null; // null for the default.

export const models = {
  // Field of a request.
  options: () => (chosen === null ? {} : { model: chosen }),
  load(info, onChange) {
    $("checkpoint").textContent = info.checkpoint;
    $("model-choice").hidden = info.models.length < 2;
    $("model").replaceChildren(...info.models.map((name) => make("option", { value: name, textContent: name })));
    $("model").value = info.model;
    $("model").onchange = () => {
      chosen = $("model").value;
      onChange();
    };
  },
};
