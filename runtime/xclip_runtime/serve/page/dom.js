// Helpers for elements and for text.

export const $ = (id) => document.getElementById(id);

export function make(name, { attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export const counted = (count, thing) => `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
export const size = (bytes) => (bytes < 2 ** 20 ? `${Math.ceil(bytes / 2 ** 10)} kB` : `${Math.round(bytes / 2 ** 20)} MB`);
export const seconds = (time) => `${time.toFixed(1)} s`;
export const duration = (time) => (time < 120 ? `${Math.round(time)} seconds` : `${Math.round(time / 60)} minutes`);

export function percent(share) {
  if (share > 0.999) return ">\u00a099.9\u00a0%";
  return share < 0.001 ? "<\u00a00.1\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
}

// Runs after the last of several calls that follow each other quickly.
export function debounced(work, milliseconds = 400) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}
