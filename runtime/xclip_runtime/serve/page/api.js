// Requests to the server that the page came from, whatever prefix a proxy puts before it.

const KEY = "xclip-onnx key";

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";
export const storeKey = (key) => sessionStorage.setItem(KEY, key);

export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;
export const socketAddress = (path) => address(path).replace(/^http/, "ws");

export class RequestError extends Error {
  constructor(status, message, { retryAfter = 0, keySent = false } = {}) {
    super(message);
    Object.assign(this, { status, retryAfter, keySent });
  }
}

// XMLHttpRequest, as fetch does not tell how much of a body has been sent.
export function ask(path, { method = "GET", body = null, signal, onUpload } = {}) {
  const { promise, resolve, reject } = deferred();
  const request = new XMLHttpRequest();
  const key = storedKey();
  request.open(method, address(path));
  request.responseType = "json";
  if (key) request.setRequestHeader("X-API-Key", key);
  if (typeof body === "string") request.setRequestHeader("Content-Type", "application/json");
  if (onUpload) {
    request.upload.onprogress = ({ loaded, total }) => onUpload(loaded / total);
    request.upload.onload = () => onUpload(1);
  }
  request.onload = () => {
    const { status, response } = request;
    if (status >= 200 && status < 300) return resolve(response);
    const message = response?.error?.message ?? `The server responded with status ${status}.`;
    return reject(new RequestError(status, message, {
      retryAfter: Number(request.getResponseHeader("Retry-After")) || 0,
      keySent: Boolean(key),
    }));
  };
  request.onerror = () => reject(new RequestError(0, "No response from the server: is it still running?"));
  request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
  signal?.addEventListener("abort", () => request.abort());
  request.send(body);
  return promise;
}

function deferred() {
  let resolve, reject;
  const promise = new Promise((...functions) => { [resolve, reject] = functions; });
  return { promise, resolve, reject };
}
