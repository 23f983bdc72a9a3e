// The page: classify videos, classify a camera live, search the index. No libraries, no requests to other hosts.

const SHOWN = 6;
const THUMBNAILS = 16;
const HITS = 6;
const DEBOUNCE_MS = 400; // After the last key press in the label set.
const CAMERA = { width: 340, frameIntervalMs: 80, quality: 0.8, window: 2, hop: 0.5, smooth: 1 };
const STAGES = ["upload", "queue", "decode", "prepare", "vision", "prompt"];
const KEY = "xclip-onnx key";

const $ = (id) => document.getElementById(id);
const page = Object.fromEntries([
  "another", "bars", "camera", "drop", "file", "ask", "film", "film-note", "hint", "key", "key-input", "hits", "labels",
  "labels-note", "limits", "model", "name", "preview", "problem", "query", "reset", "sample", "search", "search-note", "stage", "status", "strip", "timings", "times",
  "track", "unplayable", "video",
].map((id) => [id.replace(/-(\w)/g, (_, letter) => letter.toUpperCase()), $(id)]));

let info = null; // Response of /v1/info.
let shown = null; // {file, clip}: the video in the preview and its token on the server.
let live = null; // The camera connection.
let request = null; // AbortController of the current request; a new one aborts it.
let retryWithKey = () => {};

/* Requests. */

class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "No response from the server: is it still running?");
  }
  if (reply.ok) return reply.json();
  const body = await reply.json().catch(() => null);
  throw new RequestError(reply.status, body?.error?.message ?? `The server responded with status ${reply.status}.`);
}

async function attempt(work, retry) {
  request?.abort();
  const mine = (request = new AbortController());
  showProblem("");
  try {
    await work(mine.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    showProblem(error.message);
    setStatus("");
    if (error.status === 401) {
      retryWithKey = retry;
      page.key.hidden = false;
      page.keyInput.focus();
    } else if (!(error instanceof RequestError)) throw error;
  } finally {
    if (request === mine) document.body.classList.remove("busy");
  }
}

/* Results. */

const setStatus = (text) => { page.status.textContent = text; };

function showProblem(message) {
  page.problem.textContent = message;
  page.problem.hidden = !message;
  if (message) {
    page.hint.hidden = true;
    clearResult();
  }
}

function clearResult() {
  page.bars.replaceChildren();
  page.timings.hidden = page.film.hidden = true;
}

function percent(prob) {
  return prob > 0.999 ? "> 99.9 %" : prob < 0.001 ? "< 0.1 %" : `${(100 * prob).toFixed(1)} %`;
}

function showLabels(labels) {
  page.hint.hidden = true;
  while (page.bars.children.length > labels.length) page.bars.lastChild.remove();
  labels.forEach(({ label, prob, logit }, place) => {
    let row = page.bars.children[place];
    if (!row) {
      row = document.createElement("li");
      row.innerHTML = '<span class="label"></span><span class="percent"></span><span class="bar"><i></i></span>';
      page.bars.append(row);
    }
    row.title = `logit ${logit.toFixed(2)}`;
    row.querySelector(".label").textContent = label;
    row.querySelector(".percent").textContent = percent(prob);
    row.querySelector("i").style.width = `${100 * prob}%`;
  });
}

function showTimings(answer) {
  const { timings_ms: ms, provider, precision } = answer;
  page.timings.hidden = false;
  page.track.replaceChildren(...STAGES.filter((stage) => ms[stage] > 0).map((stage) => {
    const part = document.createElement("i");
    part.className = stage;
    part.style.flexGrow = 1000 * ms[stage]; // A sum below 1 would not fill the track.
    return part;
  }));
  const parts = STAGES.filter((stage) => ms[stage] >= 0.5).map((stage) => {
    const part = document.createElement("span");
    part.className = `stage-name ${stage}`;
    part.textContent = `${stage} ${Math.round(ms[stage])}`;
    return part;
  });
  page.times.replaceChildren(...parts, `total ${Math.round(ms.total)} ms · ${provider} ${precision}`);
}

function showFilm({ thumbnails, frames }) {
  page.film.hidden = thumbnails.length === 0;
  page.filmNote.textContent = `${thumbnails.length} of the ${frames.indices.length} sampled frames`
    + (frames.total > 0 ? `, of ${frames.total} in the video` : "");
  page.strip.replaceChildren(...thumbnails.map(({ index: number, image: url }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Go to frame ${number}`);
    const image = Object.assign(new Image(), { src: url, alt: "" });
    const caption = document.createElement("span");
    caption.textContent = number;
    button.append(image, caption);
    button.addEventListener("click", () => {
      const { duration } = page.video;
      page.video.pause();
      if (duration > 0 && frames.total > 0) page.video.currentTime = (number + 0.5) / frames.total * duration;
    });
    return button;
  }));
}

function showPreview(source, name) {
  page.drop.hidden = true;
  page.preview.hidden = false;
  page.name.textContent = name;
  page.video.hidden = false;
  page.unplayable.hidden = true;
  page.another.textContent = source instanceof MediaStream ? "Stop the camera" : "Another video";
  if (source instanceof MediaStream) {
    page.video.srcObject = source;
    page.video.controls = false;
    page.video.play();
  } else {
    page.video.srcObject = null;
    page.video.controls = true;
    page.video.src = URL.createObjectURL(source);
  }
}

/* Label set. */

const bundleLabels = () => info.labels.join("\n");
const customLabels = () => info !== null && page.labels.value.trim() !== bundleLabels();
const enteredLabels = () => page.labels.value.split("\n").map((line) => line.trim()).filter(Boolean);

function labelOptions() {
  return customLabels() ? { labels: enteredLabels() } : {};
}

let pause;
page.labels.addEventListener("input", () => {
  page.reset.hidden = !customLabels();
  clearTimeout(pause);
  pause = setTimeout(updateLabels, DEBOUNCE_MS);
});
page.reset.addEventListener("click", () => {
  page.labels.value = bundleLabels();
  page.reset.hidden = true;
  page.labels.focus();
  updateLabels();
});

function updateLabels() {
  if (live?.ready) return live.socket.send(JSON.stringify(labelOptions()));
  if (!shown || (customLabels() && enteredLabels().length === 0)) return;
  if (!shown.clip) return classify();
  return attempt(async (signal) => {
    const answer = await ask("/v1/classify", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ clip: shown.clip, top_k: SHOWN, ...labelOptions() }),
      signal,
    }).catch((error) => {
      if (error.status === 404) return null;
      throw error;
    });
    if (answer === null) {
      shown.clip = null;
      return classify();
    }
    showLabels(answer.labels);
    showTimings(answer);
    setStatus("");
  }, updateLabels);
}

/* A file. */

function open(file) {
  stopCamera();
  shown = { file, clip: null };
  clearResult();
  showPreview(file, file.name);
  if (info) classify(); // Otherwise start() does.
}

function classify() {
  const current = shown;
  return attempt(async (signal) => {
    if (current.file.size > info.upload_bytes) {
      throw new RequestError(413, `${current.file.name} exceeds the limit of ${size(info.upload_bytes)}.`);
    }
    document.body.classList.add("busy");
    setStatus("Classifying…");
    const form = new FormData();
    form.append("video", current.file);
    form.append("keep", "true");
    form.append("top_k", SHOWN);
    form.append("thumbnails", THUMBNAILS);
    for (const label of labelOptions().labels ?? []) form.append("labels", label);
    const answer = await ask("/v1/classify", { method: "POST", body: form, signal });
    current.clip = answer.clip;
    showLabels(answer.labels);
    showTimings(answer);
    showFilm(answer);
    setStatus("");
  }, classify);
}

page.video.addEventListener("error", () => {
  if (!shown) return;
  page.video.hidden = true;
  page.unplayable.hidden = false;
});
page.file.addEventListener("change", () => {
  if (page.file.files[0]) open(page.file.files[0]);
  page.file.value = "";
});
page.another.addEventListener("click", () => {
  request?.abort();
  stopCamera();
  shown = null;
  page.preview.hidden = true;
  page.drop.hidden = false;
  page.video.removeAttribute("src");
  page.video.load();
  showProblem("");
  clearResult();
  page.hint.hidden = false;
  setStatus("");
  page.file.focus();
});
page.sample.addEventListener("click", async () => {
  const reply = await fetch(info.sample);
  open(new File([await reply.blob()], "sample.mp4", { type: "video/mp4" }));
});

for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    page.stage.classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) page.stage.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  page.stage.classList.remove("over");
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

/* The camera. */

page.camera.addEventListener("click", startCamera);

async function startCamera() {
  showProblem("");
  if (!navigator.mediaDevices) {
    return showProblem("Browsers allow the camera on localhost and over HTTPS only: put the server behind HTTPS.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    return showProblem(`Cannot open the camera: ${error.message}.`);
  }
  shown = null;
  clearResult();
  showPreview(stream, "Camera");
  setStatus("Classifying…");
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/live`);
  live = { stream, socket, ready: false, timer: 0 };
  const mine = live;
  const { window, hop, smooth } = CAMERA;
  const api_key = sessionStorage.getItem(KEY) ?? "";
  socket.onopen = () => socket.send(JSON.stringify({ window, hop, smooth, top_k: SHOWN, api_key, ...labelOptions() }));
  socket.onmessage = ({ data }) => {
    if (live === mine) handleMessage(JSON.parse(data));
  };
  socket.onclose = () => {
    if (live === mine) {
      stopCamera();
      if (page.problem.hidden) showProblem("The server closed the connection.");
    }
  };
}

function handleMessage(message) {
  if (message.type === "error") return showProblem(message.message);
  if (message.type === "ready") {
    live.ready = true;
    return sendFrames(live);
  }
  showLabels(message.labels);
  setStatus(`Live · ${Math.round(message.latency_ms)} ms behind`);
}

function sendFrames({ socket, stream }) {
  const canvas = document.createElement("canvas");
  const { width = 640, height = 480 } = stream.getVideoTracks()[0].getSettings();
  canvas.width = CAMERA.width;
  canvas.height = Math.round(CAMERA.width * height / width);
  const context = canvas.getContext("2d");
  live.timer = setInterval(() => {
    if (socket.readyState !== WebSocket.OPEN || socket.bufferedAmount > 1e6 || page.video.readyState < 2) return;
    const seconds = new Float64Array([performance.now() / 1000]);
    context.drawImage(page.video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((jpeg) => {
      if (jpeg && socket.readyState === WebSocket.OPEN) socket.send(new Blob([seconds, jpeg]));
    }, "image/jpeg", CAMERA.quality);
  }, CAMERA.frameIntervalMs);
}

function stopCamera() {
  if (!live) return;
  clearInterval(live.timer);
  live.stream.getTracks().forEach((track) => track.stop());
  const { socket } = live;
  live = null;
  socket.close();
  setStatus("");
}

/* Search. */

page.ask.addEventListener("submit", async (event) => {
  event.preventDefault();
  page.searchNote.textContent = "Searching…";
  const wanted = new URLSearchParams({ text: page.query.value, top_k: HITS, thumbnails: 3 });
  try {
    const found = await ask(`/v1/search?${wanted}`);
    page.hits.replaceChildren(...found.hits.map(hitCard));
    page.searchNote.textContent = `${counted(found.hits.length, "hit")} of ${counted(found.windows, "window")} · ${Math.round(found.timings_ms.total)} ms`;
  } catch (error) {
    page.searchNote.textContent = error.message;
  }
});

function hitCard({ video, start, end, logit, thumbnails }) {
  const card = document.createElement("li");
  const frames = document.createElement("div");
  frames.append(...thumbnails.map((src) => Object.assign(new Image(), { src, alt: "" })));
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: video, title: video });
  const facts = document.createElement("span");
  facts.className = "soft small";
  facts.textContent = `${start.toFixed(1)} to ${end.toFixed(1)} s · ${logit.toFixed(1)}`;
  facts.title = "start to end · logit";
  card.append(frames, name, facts);
  return card;
}

/* Start. */

const size = (bytes) => `${Math.round(bytes / 2 ** 20)} MB`;
const counted = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const duration = (seconds) => seconds < 120 ? `${Math.round(seconds)} seconds` : `${Math.round(seconds / 60)} minutes`;

page.key.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, page.keyInput.value);
  page.key.hidden = true;
  retryWithKey();
});

function start() {
  return attempt(async () => {
    info = await ask("/v1/info");
    page.model.textContent = info.bundle;
    page.limits.textContent = `Up to ${size(info.upload_bytes)} and ${duration(info.duration)}`;
    page.labels.value = bundleLabels();
    page.sample.hidden = !info.sample;
    page.search.hidden = info.indexed === null;
    page.searchNote.textContent = counted(info.indexed, "window");
    page.hint.hidden = shown !== null || live !== null;
    if (!info.free_text) {
      page.labels.readOnly = true;
      page.labelsNote.textContent = "The label set of the bundle. Other labels need a bundle with a text tower and the extra [text].";
    }
    if (shown) await classify();
  }, start);
}

start();
