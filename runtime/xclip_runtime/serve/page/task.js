// A part of the page that asks one thing at a time: its problems, another try, the API key.

import { storeKey } from "./api.js";
import { $, make } from "./dom.js";

const BUSY = new Set([429, 503]); // Too many requests of this client, or of all.
const RETRIES = 3;
const MAX_WAIT = 30; // Seconds.
const WORTH_A_RETRY = new Set([0, 500, 502, 504, 507, ...BUSY]);

export class Task {
  #running = null; // AbortController
  #again = null;

  // `problem` is an empty element for messages, `status` a function, `clear` removes answers that no longer hold.
  constructor(problem, { status, clear }) {
    this.status = status;
    this.clear = clear;
    this.card = problem.closest(".card");
    this.problem = problem;
    this.message = make("p");
    this.button = make("button", { type: "button", className: "button", textContent: "Try again" });
    this.button.addEventListener("click", () => this.#again());
    problem.append(this.message, this.button);
  }

  get running() {
    return this.#running !== null;
  }

  // Runs `work`, cancelling what ran before. A busy server is asked again by itself, other failures by a button.
  async run(work) {
    this.cancel();
    this.dismiss();
    const mine = (this.#running = new AbortController());
    this.card.ariaBusy = "true";
    try {
      await this.#persist(work, mine.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.clear();
      this.status("");
      if (error.status === 401) return askForKey(error.keySent, this, () => this.run(work));
      this.fail(error.message, WORTH_A_RETRY.has(error.status) ? () => this.run(work) : null);
      if (error.status === undefined) throw error; // A fault of the page.
    } finally {
      if (this.#running === mine) {
        this.#running = null;
        this.card.ariaBusy = null;
      }
    }
  }

  cancel() {
    this.#running?.abort();
    this.#running = null;
    this.card.ariaBusy = null;
    waiting.delete(this);
  }

  fail(message, again = null) {
    this.#again = again;
    this.message.textContent = message;
    this.button.hidden = again === null;
    this.problem.hidden = false;
  }

  dismiss() {
    this.problem.hidden = true;
  }

  async #persist(work, signal) {
    for (let tries = 0; ; tries++) {
      try {
        return await work(signal);
      } catch (error) {
        if (!BUSY.has(error.status) || tries === RETRIES) throw error;
        const wait = Math.min(error.retryAfter || 2 ** tries, MAX_WAIT);
        this.clear();
        this.status(`The server is busy: trying again in ${wait} s…`);
        await sleep(wait, signal);
      }
    }
  }
}

function sleep(time, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * time);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    });
  });
}

/* The API key. */

const waiting = new Map(); // What each task does once there is a key.

function askForKey(refused, task, then) {
  waiting.set(task, then);
  $("key").hidden = false;
  $("key").classList.toggle("bad", refused);
  $("key-input").ariaInvalid = refused ? "true" : null;
  $("key-note").textContent = refused
    ? "The server does not know this key. Check it, or ask the operator for another one."
    : "This server needs an API key.";
  $("key-input").focus();
  $("key-input").select();
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  storeKey($("key-input").value.trim());
  $("key").hidden = true;
  const works = [...waiting.values()];
  waiting.clear();
  works.forEach((work) => work());
});
