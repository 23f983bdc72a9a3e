// The request behind an answer, as curl and Python, and the answer as JSON.

import { address, storedKey } from "./api.js";
import { $ } from "./dom.js";

const COPIED = "Copied.";
const SELECTED = "This browser does not let the page copy: the text is selected.";

let current = null; // {document, video, sample, options}; a live document has no video.

export function showSnippets(source) {
  current = source;
  $("code").hidden = false;
  for (const kind of ["curl", "python"]) $(`copy-${kind}`).hidden = !source.video;
  if (source.video) $("snippet-box").hidden = true;
}

export function clearSnippets() {
  current = null;
  $("code").hidden = $("snippet-box").hidden = true;
}

const fields = (options) => Object.entries(options).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));

const shell = (text) => `'${`${text}`.replaceAll("'", "'\\''")}'`;
// In a form's file, curl reads quotes, backslashes and separators.
const formFile = (name) => `video=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

function asCurl({ video, sample, options }) {
  const parts = ["curl -f", `-F ${shell(formFile(video))}`];
  if (storedKey()) parts.splice(1, 0, '-H "X-API-Key: $XCLIP_ONNX_API_KEY"');
  for (const [name, value] of fields(options)) parts.push(`--form-string ${shell(`${name}=${value}`)}`);
  parts.push(shell(address("/v1/classify")));
  const download = sample ? `curl -f -o ${shell(video)} ${shell(address(sample))}\n` : "";
  return `${download}${parts.join(" \\\n  ")}`;
}

function asPython({ video, sample, options }) {
  const text = JSON.stringify; // Its strings and lists are Python's, too.
  const data = Object.entries(options).map(([name, value]) => `${text(name)}: ${text(value)}`).join(", ");
  const file = sample ? `requests.get(${text(address(sample))}, timeout=60).content` : `open(${text(video)}, "rb")`;
  const key = storedKey() ? '    headers={"X-API-Key": os.environ["XCLIP_ONNX_API_KEY"]},\n' : "";
  return `${key ? "import os\n\n" : ""}import requests

answer = requests.post(
    ${text(address("/v1/classify"))},
    files={"video": ${file}},
    data={${data}},
${key}    timeout=60,
)
answer.raise_for_status()
for label in answer.json()["labels"]:
    print(f'{label["prob"]:.1%}  {label["label"]}')
`;
}

const WRITERS = { curl: asCurl, python: asPython, json: ({ document }) => JSON.stringify(document, null, 2) };

async function copy(kind) {
  const text = WRITERS[kind](current);
  $("snippet").textContent = text;
  $("snippet-box").hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = COPIED;
  } catch {
    // Only secure origins have a clipboard.
    getSelection().selectAllChildren($("snippet"));
    $("copied").textContent = SELECTED;
  }
}

for (const kind of Object.keys(WRITERS)) $(`copy-${kind}`).addEventListener("click", () => copy(kind));
