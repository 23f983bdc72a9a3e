// Search the server's index; hits play at their time.

import { address, ask } from "./api.js";
import { $, counted, make, seconds } from "./dom.js";
import { cosineOf } from "./scores.js";
import { Task } from "./task.js";

const HITS = 6;
const THUMBNAILS = 3;

const setNote = (text) => { $("search-note").textContent = text; };

const searches = new Task($("search-problem"), {
  status: setNote,
  clear() {
    $("hits").replaceChildren();
    closePlayer();
  },
});

let scale = 1; // Between a cosine and its logit; the index is that of the default model.

export function start(info) {
  scale = info.logit_scale;
  $("search").hidden = info.indexed === null;
  if (info.indexed !== null) setNote(counted(info.indexed, "window"));
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  searches.run(async (signal) => {
    setNote("Searching…");
    searches.clear();
    const wanted = new URLSearchParams({ text: $("query").value, top_k: HITS, thumbnails: THUMBNAILS });
    const found = await ask(`/v1/search?${wanted}`, { signal });
    $("hits").replaceChildren(...found.hits.map(hitCard));
    setNote(`${counted(found.hits.length, "hit")} of ${counted(found.windows, "window")} · ${Math.round(found.timings_ms.total)} ms`);
  });
});

function hitCard(hit) {
  const { video, start, end, logit, thumbnails } = hit;
  const time = `${seconds(start)} to ${seconds(end)}`;
  const button = make(
    "button",
    { type: "button", className: "hit", ariaLabel: `Play ${video} from ${time}` },
    make("span", { className: "frames" }, ...thumbnails.map((src) => make("img", { src, alt: "" }))),
    make("span", { className: "name", textContent: video }),
    make("span", { className: "soft small", textContent: `${time} · score ${cosineOf(logit, scale)}` }),
  );
  button.addEventListener("click", () => play(hit, button));
  return make("li", {}, button);
}

function play({ video, start, end, media }, button) {
  const player = $("hit-video");
  for (const other of document.querySelectorAll(".hit[aria-current]")) other.ariaCurrent = null;
  button.ariaCurrent = "true";
  $("hit-player").hidden = false;
  $("hit-unplayable").hidden = true;
  $("hit-name").textContent = `${video}, ${seconds(start)} to ${seconds(end)}`;
  // Browsers begin and stop at the times of a media fragment.
  player.src = `${address(media)}#t=${start},${end}`;
  player.play().catch(() => {}); // What cannot be played is told by the error event.
  $("hit-player").scrollIntoView({ block: "nearest" });
}

function closePlayer() {
  $("hit-player").hidden = true;
  $("hit-video").removeAttribute("src");
  $("hit-video").load();
}

$("hit-video").addEventListener("error", () => {
  if ($("hit-video").hasAttribute("src")) $("hit-unplayable").hidden = false;
});
