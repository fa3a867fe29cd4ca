// Server-sent events: what happens, as it happens. Says when the connection is lost, and comes back.

import { clock, say, tell, warn } from "./app.js";

const AGAIN_MS = 1500;
const CHECK_MS = 10000; // a cable that was pulled tells nobody
const CHECK_LIMIT_MS = 5000;
const KINDS = ["received", "progress", "updated", "flagged", "deleted"];

// `changed(kind, study)`: one study; `lost()`: events may have been missed, load everything again.
export function live({ changed, lost }) {
  const shown = document.getElementById("link");
  let source = null;
  let since = null;
  let retry = 0;

  function state(name) {
    shown.dataset.state = name;
    const key = { connected: "connected", connecting: "connecting", disconnected: "offline" }[name];
    shown.querySelector("span").textContent = say(key);
  }

  function down() {
    if (since === null) {
      since = new Date();
      state("disconnected");
    }
    warn(say("disconnected", { time: clock(since) }));
    clearTimeout(retry);
    retry = setTimeout(connect, AGAIN_MS);
  }

  function up() {
    const was = since;
    since = null;
    state("connected");
    if (was !== null) {
      tell(say("back"));
      lost();
    }
  }

  function connect() {
    source?.close();
    source = new EventSource("/api/v1/events");
    const mine = source;
    source.addEventListener("open", up);
    source.addEventListener("error", () => {
      if (mine !== source) return;
      mine.close();
      down();
    });
    source.addEventListener("reset", () => lost());
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => changed(kind, JSON.parse(event.data)));
    }
  }

  async function check() {
    try {
      const answer = await fetch("/healthz", { signal: AbortSignal.timeout(CHECK_LIMIT_MS), cache: "no-store" });
      if (!answer.ok) throw new Error();
    } catch {
      if (since === null) {
        source.close();
        down();
      }
    }
  }

  state("connecting");
  connect();
  setInterval(check, CHECK_MS);
  // a page that was asleep (phone, laptop lid) may have missed its events
  addEventListener("pageshow", (event) => event.persisted && lost());
  addEventListener("pagehide", () => source.close());
}
