// A camera, classified live over a WebSocket that reconnects.

import { ask, socketAddress, storedKey } from "./api.js";
import { liveEvents } from "./events.js";
import { answers, leave, SHOWN } from "./file.js";
import { labels } from "./labels.js";
import { models } from "./models.js";
import { player } from "./player.js";
import { clearScores, sayEmpty, setStatus, showScores } from "./scores.js";
import { clearSnippets, showSnippets } from "./snippets.js";

const FRAMES = { width: 340, intervalMs: 80, quality: 0.8, maxBuffered: 1e6 };
const OPTIONS = { window: 2, hop: 0.5, smooth: 1, top_k: SHOWN };
const WAITS = [1, 2, 4, 8, 8]; // Seconds before each attempt to reconnect.
const INVALID_DATA = 1007;
const POLICY_VIOLATION = 1008;

let camera = null; // {stream, socket, frames, waiting, tries}
let asked = 0; // Number of the last request for the camera.

export const isLive = () => camera !== null;

export async function startCamera() {
  stopCamera();
  leave();
  const mine = ++asked;
  if (!navigator.mediaDevices) {
    return answers.fail("Browsers allow the camera on localhost and over HTTPS only: put the server behind HTTPS.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    if (mine !== asked) return undefined;
    return answers.fail(`Cannot open the camera: ${error.message}.`, startCamera);
  }
  if (mine !== asked) return stream.getTracks().forEach((track) => track.stop()); // Too late: another choice was made.
  camera = { stream, tries: 0 };
  player.showCamera(stream);
  liveEvents.open();
  return connect(camera);
}

export function stopCamera() {
  asked++;
  if (!camera) return;
  const { stream, socket } = camera;
  halt(camera);
  camera = null;
  stream.getTracks().forEach((track) => track.stop());
  socket?.close();
  liveEvents.close();
  setStatus("");
}

export function relabel() {
  liveEvents.interrupt();
  if (labels.empty) pause();
  else if (camera.frames) camera.socket.send(JSON.stringify(labels.options()));
  else restart(camera);
}

function pause() {
  sayEmpty();
  clearSnippets();
  setStatus("Paused");
}

export function changeModel() {
  liveEvents.interrupt();
  clearScores();
  restart(camera);
}

function halt(mine) {
  clearInterval(mine.frames);
  clearTimeout(mine.waiting);
  mine.frames = null;
}

function restart(mine) {
  mine.tries = 0;
  halt(mine);
  mine.socket?.close();
  connect(mine);
}

function connect(mine) {
  answers.dismiss();
  if (labels.empty) {
    pause();
    return;
  }
  setStatus("Connecting…");
  const socket = (mine.socket = new WebSocket(socketAddress("/v1/live")));
  const isCurrent = () => camera === mine && mine.socket === socket;
  let reason = "";
  socket.onopen = () => socket.send(JSON.stringify({ ...OPTIONS, ...models.options(), ...labels.options(), api_key: storedKey() }));
  socket.onmessage = ({ data }) => {
    if (!isCurrent()) return;
    const message = JSON.parse(data);
    if (message.type === "error") reason = message.message;
    else if (message.type === "ready") mine.frames = sendFrames(mine);
    else if (!labels.empty) show(mine, message);
  };
  socket.onclose = ({ code }) => {
    if (!isCurrent()) return;
    halt(mine);
    liveEvents.interrupt();
    clearScores();
    if (code === INVALID_DATA) {
      setStatus("");
      answers.fail(reason, () => restart(mine)); // Such as a label that is too long; the camera stays open.
    } else if (code === POLICY_VIOLATION) {
      // Asks for a key where that was the reason.
      answers.run(async () => {
        await ask("/v1/info");
        if (camera === mine) reconnect(mine, reason);
      });
    } else reconnect(mine, reason);
  };
}

function reconnect(mine, reason) {
  const lost = reason || "The connection to the server is lost.";
  if (mine.tries === WAITS.length) {
    setStatus("");
    answers.fail(lost, () => restart(mine));
    return;
  }
  const wait = WAITS[mine.tries++];
  setStatus(`Reconnecting in ${wait} s…`);
  answers.fail(lost, () => restart(mine));
  mine.waiting = setTimeout(() => connect(mine), 1000 * wait);
}

function show(mine, window) {
  mine.tries = 0;
  showScores(window.labels);
  liveEvents.add(window);
  showSnippets({ document: liveEvents.toDocument() });
  setStatus(`Live · ${Math.round(window.latency_ms)} ms behind`);
}

function sendFrames({ socket, stream }) {
  const video = document.getElementById("video");
  const canvas = document.createElement("canvas");
  const { width = 640, height = 480 } = stream.getVideoTracks()[0].getSettings();
  canvas.width = FRAMES.width;
  canvas.height = Math.round(FRAMES.width * height / width);
  const context = canvas.getContext("2d");
  clearSnippets();
  return setInterval(() => {
    const isOpen = () => socket.readyState === WebSocket.OPEN;
    if (!isOpen() || socket.bufferedAmount > FRAMES.maxBuffered || video.readyState < 2) return;
    const time = new Float64Array([performance.now() / 1000]);
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((jpeg) => {
      if (jpeg && isOpen()) socket.send(new Blob([time, jpeg]));
    }, "image/jpeg", FRAMES.quality);
  }, FRAMES.intervalMs);
}
