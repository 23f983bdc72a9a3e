// Classify a file: upload with progress, then labels again without another upload.

import { ask, RequestError } from "./api.js";
import { $, percent, size } from "./dom.js";
import { labels } from "./labels.js";
import { models } from "./models.js";
import { hideFilm, player, showFilm } from "./player.js";
import { clearScores, sayEmpty, sayNothing, setStatus, showScores, showTimings } from "./scores.js";
import { clearSnippets, showSnippets } from "./snippets.js";
import { Task } from "./task.js";
import { timeline } from "./timeline.js";

export const SHOWN = 6;
const THUMBNAILS = 16;

let info = null;
let shown = null; // {file, sample, token}: the video in the preview, and its token on the server.

function clear() {
  clearScores();
  clearSnippets();
  $("progress").hidden = true;
}

export const answers = new Task($("problem"), { status: setStatus, clear });

export function start(serverInfo) {
  info = serverInfo;
  timeline.load(info);
  if (shown) classify();
}

timeline.onChange(() => shown && classify());

export const isOpen = () => shown !== null;

export function open(file, sample = false) {
  leave();
  shown = { file, sample, token: null };
  timeline.open();
  player.showFile(file);
  if (info) classify(); // Otherwise start() does.
}

export function close() {
  leave();
  player.close();
  sayNothing();
}

export function leave() {
  shown = null;
  timeline.close();
  hideFilm();
  clear();
  setStatus("");
  if (!info) return; // start() is running, or has a problem to show.
  answers.cancel();
  answers.dismiss();
}

export function relabel() {
  if (!shown) return;
  if (!shown.token) classify();
  else rescore();
}

// Without labels nothing is asked, as the server would take its own.
function stopIfEmpty() {
  if (!labels.empty) return false;
  answers.cancel();
  answers.dismiss();
  clear();
  sayEmpty();
  setStatus("");
  return true;
}

function rescore() {
  if (stopIfEmpty()) return undefined;
  const current = shown;
  return answers.run(async (signal) => {
    const options = { top_k: SHOWN, ...models.options(), ...labels.options() };
    try {
      const body = JSON.stringify({ token: current.token, ...options });
      show(current, await ask("/v1/classify", { method: "POST", body, signal }));
    } catch (error) {
      if (error.status !== 404) throw error;
      await upload(current, signal); // The server has dropped the video.
    }
  });
}

const chosen = () => ({ ...models.options(), ...timeline.options(), ...labels.options() });

function classify() {
  if (stopIfEmpty()) return undefined;
  const current = shown;
  current.token = null;
  return answers.run((signal) => upload(current, signal));
}

async function upload(current, signal) {
  if (current.file.size > info.upload_bytes) {
    throw new RequestError(413, `${current.file.name} exceeds the limit of ${size(info.upload_bytes)}.`);
  }
  const form = new FormData();
  form.append("video", current.file);
  const options = { top_k: SHOWN, keep: true, thumbnails: THUMBNAILS, ...chosen() };
  for (const [name, value] of Object.entries(options)) [value].flat().forEach((one) => form.append(name, one));
  showProgress(0, current.file);
  signal.addEventListener("abort", hideProgress);
  try {
    const onUpload = (part) => showProgress(part, current.file);
    const answer = await ask("/v1/classify", { method: "POST", body: form, signal, onUpload });
    player.setReadable();
    current.token = answer.token;
    showFilm(answer, timeline.timeOf(answer.frames), timeline.name());
    timeline.mark(answer.frames);
    show(current, answer);
  } catch (error) {
    hideFilm(); // Its frames may be those of another part.
    timeline.unmark();
    throw error;
  } finally {
    if (!signal.aborted) hideProgress();
  }
}

function show(current, answer) {
  const { token, thumbnails, ...document } = answer;
  showScores(answer.labels);
  showTimings(answer);
  showSnippets({
    document,
    video: current.file.name,
    sample: current.sample ? info.sample : null,
    options: { top_k: SHOWN, ...chosen() },
  });
  setStatus("");
}

function showProgress(part, { size: bytes }) {
  const sent = part >= 1;
  $("progress").hidden = false;
  if (sent) $("sent").removeAttribute("value");
  else $("sent").value = part;
  $("sent-note").textContent = sent ? "Reading the video…" : `Uploading ${percent(part)} of ${size(bytes)}`;
}

function hideProgress() {
  $("progress").hidden = true;
}

$("cancel").addEventListener("click", () => {
  answers.cancel();
  clear();
  setStatus("");
  answers.fail("Cancelled.", classify);
});
