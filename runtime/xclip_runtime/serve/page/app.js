// The page: classify videos, classify a camera live, search the index. No libraries, no requests to other hosts.

import { address, ask, RequestError } from "./api.js";
import * as camera from "./camera.js";
import { $, duration, size } from "./dom.js";
import * as file from "./file.js";
import { labels } from "./labels.js";
import { models } from "./models.js";
import { sayNothing, setScale } from "./scores.js";
import * as search from "./search.js";

function open(...video) {
  camera.stopCamera();
  file.open(...video);
}

$("file").addEventListener("change", () => {
  if ($("file").files[0]) open($("file").files[0]);
  $("file").value = "";
});
$("camera").addEventListener("click", camera.startCamera);
$("another").addEventListener("click", () => {
  camera.stopCamera();
  file.close();
  $("file").focus();
});

for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

let sample = null;
$("sample").addEventListener("click", () => file.answers.run(async (signal) => {
  const reply = await fetch(address(sample), { signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new RequestError(0, "No response from the server: is it still running?");
  });
  if (!reply.ok) throw new RequestError(reply.status, `The server responded with status ${reply.status}.`);
  open(new File([await reply.blob()], "sample.mp4", { type: "video/mp4" }), true);
}));

labels.onChange(() => (camera.isLive() ? camera.relabel() : file.relabel()));

const load = () => file.answers.run(async (signal) => {
  const wanted = new URLSearchParams(models.options());
  const info = await ask(wanted.size ? `/v1/info?${wanted}` : "/v1/info", { signal });
  const first = sample === null;
  sample = info.sample;
  models.load(info, load);
  labels.load(info);
  setScale(info.logit_scale);
  $("limits").textContent = `Up to ${size(info.upload_bytes)} and ${duration(info.duration)}`;
  if (first) search.start(info);
  for (const id of ["camera", "sample"]) $(id).disabled = false;
  if (camera.isLive()) camera.changeModel();
  else if (!file.isOpen()) sayNothing();
  file.start(info);
});

load();
