// The preview of a video or camera, and the strip of frames that the model saw.

import { $, make, seconds } from "./dom.js";

const video = $("video");
let url = "";

function show(name, stopText) {
  $("drop").hidden = true;
  $("preview").hidden = false;
  $("name").textContent = name;
  $("another").textContent = stopText;
  video.hidden = false;
  $("unplayable").hidden = true;
  $("unplayable").textContent = "No preview.";
}

function release() {
  URL.revokeObjectURL(url);
  url = "";
}

export const player = {
  showFile(file) {
    show(file.name, "Another video");
    release();
    video.srcObject = null;
    video.controls = true;
    video.src = url = URL.createObjectURL(file);
  },
  showCamera(stream) {
    show("Camera", "Stop the camera");
    release();
    video.srcObject = stream;
    video.controls = false;
    video.play().catch(() => {}); // It has been closed in the meantime.
  },
  close() {
    release();
    $("preview").hidden = true;
    $("drop").hidden = false;
    video.srcObject = null;
    video.removeAttribute("src");
    video.load();
  },
  // Of a file that the server cannot read either, the browser is not to blame.
  setReadable() {
    $("unplayable").textContent = "The server reads this file, but the browser cannot play it.";
  },
  seek(time) {
    if (!(video.duration > 0)) return;
    video.pause();
    video.currentTime = Math.min(time, video.duration);
  },
  onDuration: (work) => video.addEventListener("loadedmetadata", () => url && work(video.duration)),
};

video.addEventListener("error", () => {
  if (!url) return;
  video.hidden = true;
  $("unplayable").hidden = false;
});

// `timeOf` gives the time of a frame's index, or null where it is not known; `whole` names what was sampled.
export function showFilm({ thumbnails, frames }, timeOf, whole) {
  $("film").hidden = thumbnails.length === 0;
  $("film-note").textContent = `${thumbnails.length} of ${frames.indices.length} sampled frames`
    + (frames.total > 0 ? `, of ${frames.total} in ${whole}` : "");
  $("strip").replaceChildren(...thumbnails.map(({ index, image }) => {
    const time = timeOf(index);
    const caption = time === null ? `#${index}` : seconds(time);
    const button = make(
      "button",
      { type: "button", ariaLabel: time === null ? `Frame ${index}` : `Go to frame ${index}, at ${caption}` },
      make("img", { src: image, alt: "" }),
      make("span", { textContent: caption }),
    );
    if (time === null) button.disabled = true;
    else button.addEventListener("click", () => player.seek(time));
    return make("li", {}, button);
  }));
}

export const hideFilm = () => { $("film").hidden = true; };
