// One study: findings and their key slices, volumes, what readers say.

import { announce, ask, clock, keys, say, showKeys, warn } from "./app.js";
import { live } from "./live.js";
import { possible, Viewer } from "./viewer.js";

const page = document.getElementById("study");
const box = document.getElementById("viewer");
const findings = [...document.querySelectorAll(".finding")];
const byId = (id) => document.getElementById(id);

// ---- pictures: fetched once and kept while the page is open, shown at a click

const kept = new Map();

function picture(address) {
  if (!kept.has(address)) {
    const found = ask(address).then((answer) => answer.blob()).then(async (blob) => {
      const url = URL.createObjectURL(blob);
      const image = new Image();
      image.src = url;
      await image.decode();
      return { url, image };
    });
    found.catch(() => kept.delete(address));
    kept.set(address, found);
  }
  return kept.get(address);
}

class Page {
  constructor() {
    this.scenes = JSON.parse(box.dataset.scenes);
    this.windows = JSON.parse(box.dataset.windows);
    this.organs = JSON.parse(box.dataset.organs);
    this.mode = "key";
    this.place = 0;
    this.viewer = new Viewer(byId("canvas"), byId("solid"), page.dataset.niivue, () => this.moved());
    this.pick(findings[0], false);
    for (const finding of findings) {
      finding.querySelector(".pick").addEventListener("click", () => this.pick(finding));
    }
    for (const tab of box.querySelectorAll("[role=tab]")) {
      tab.addEventListener("click", () => this.setMode(tab.dataset.mode));
      tab.addEventListener("keydown", (event) => this.arrowTabs(event, tab));
    }
    byId("overlay").addEventListener("change", () => this.overlay());
    byId("opacity").addEventListener("input", () => this.overlay());
    byId("window").addEventListener("change", () => this.setWindow(byId("window").value));
    byId("slice").addEventListener("input", () => this.go(Number(byId("slice").value)));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("full").addEventListener("click", () => this.fullResolution());
    byId("stage").addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 200));
    idle(() => this.fetchAll());
  }

  // ---- findings

  pick(finding, focus = true) {
    this.finding = finding;
    this.slices = JSON.parse(finding.dataset.slices);
    for (const other of findings) {
      other.classList.toggle("open", other === finding);
      other.querySelector(".pick").setAttribute("aria-pressed", String(other === finding));
    }
    this.place = 0;
    this.setWindow(finding.dataset.window);
    if (this.mode === "key") this.showKey();
    else this.showVolume(this.slices[0]?.height);
    if (focus) finding.scrollIntoView({ block: "nearest" });
  }

  get scene() {
    return this.scenes.find((scene) => scene.number === Number(this.finding.dataset.series)) ?? this.scenes[0];
  }

  // ---- key slices

  async showKey() {
    const slice = this.slices[this.place];
    const [plain, marked] = [byId("plain"), byId("marked")];
    byId("none").hidden = Boolean(slice);
    byId("slice").max = Math.max(1, this.slices.length);
    byId("slice").value = this.place + 1;
    byId("where").value = slice ? say("key", { n: this.place + 1, of: this.slices.length }) : "";
    if (!slice) {
      plain.removeAttribute("src");
      marked.removeAttribute("src");
      return;
    }
    try {
      const found = await Promise.all([slice.overlay, slice.plain].filter(Boolean).map(picture));
      if (slice !== this.slices[this.place] || this.mode !== "key") return;
      marked.src = found[0].url;
      marked.alt = `${this.finding.dataset.name}, ${this.finding.dataset.verdict}: ${byId("where").value}`;
      if (found[1]) plain.src = found[1].url;
      else plain.removeAttribute("src");
      plain.hidden = !found[1];
      byId("stage").dataset.shown = slice.overlay;
    } catch (error) {
      warn(say("failed", { why: error.message }));
    }
    this.overlay();
  }

  // What the next click will probably want comes first: the first key slice of every finding.
  async fetchAll() {
    const every = findings.map((finding) => JSON.parse(finding.dataset.slices));
    const most = Math.max(0, ...every.map((slices) => slices.length));
    for (let place = 0; place < most; place++) {
      for (const slice of every.map((slices) => slices[place]).filter(Boolean)) {
        await Promise.all([slice.overlay, slice.plain].filter(Boolean).map(picture)).catch(() => {});
      }
    }
    if (this.scene?.ready && possible()) this.viewer.prepare(this.scene, this.finding.dataset.target).catch(() => {});
  }

  overlay() {
    const on = byId("overlay").checked;
    const share = on ? Number(byId("opacity").value) / 100 : 0;
    const twin = Boolean(this.slices[this.place]?.plain);
    byId("marked").style.opacity = twin ? share : 1; // without a twin there is nothing beneath
    this.viewer.setOpacity(share);
  }

  // ---- modes

  setMode(mode) {
    if (mode !== "key" && (!this.scenes.length || !possible())) {
      if (this.scenes.length) warn(say("no_webgl"));
      return;
    }
    this.mode = mode;
    box.dataset.mode = mode;
    for (const tab of box.querySelectorAll("[role=tab]")) {
      const mine = tab.dataset.mode === mode;
      tab.setAttribute("aria-selected", String(mine));
      tab.tabIndex = mine ? 0 : -1;
      if (mine) byId("stage").setAttribute("aria-labelledby", tab.id);
    }
    box.querySelector(".key").hidden = mode !== "key";
    box.querySelector(".flat").hidden = mode !== "stack" && mode !== "planes";
    box.querySelector(".solid").hidden = mode !== "solid";
    if (mode === "key") this.showKey();
    else this.showVolume(this.slices[this.place]?.height);
  }

  arrowTabs(event, tab) {
    const tabs = [...box.querySelectorAll("[role=tab]")];
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(tab) + by + tabs.length) % tabs.length];
    next.focus();
    this.setMode(next.dataset.mode);
    event.preventDefault();
    event.stopPropagation();
  }

  async showVolume(height) {
    const { scene, mode } = this;
    if (!scene) return;
    byId("wait").textContent = say("loading");
    try {
      const share = byId("overlay").checked ? Number(byId("opacity").value) / 100 : 0;
      this.viewer.setOpacity(share);
      await this.viewer.show(scene, this.finding.dataset.target, mode, mode === "solid" ? null : height);
      byId("wait").textContent = "";
      byId("stage").dataset.drawn = mode;
      if (mode === "solid") this.listOrgans();
    } catch (error) {
      byId("wait").textContent = say("volume_failed", { why: error.message });
    }
    this.moved();
  }

  listOrgans() {
    const group = byId("organs");
    if (group.dataset.of === String(this.scene.number)) return;
    group.dataset.of = this.scene.number;
    group.replaceChildren(...Object.keys(this.scene.meshes).map((name) => {
      const label = document.createElement("label");
      const check = document.createElement("input");
      check.type = "checkbox";
      check.checked = !this.viewer.hidden.has(name);
      check.addEventListener("change", () => this.viewer.toggle(name, check.checked));
      label.append(check, ` ${this.organs[name] ?? name}`);
      return label;
    }));
  }

  async fullResolution() {
    const button = byId("full");
    button.disabled = true;
    byId("wait").textContent = say("full_loading");
    try {
      await this.viewer.resolve(true);
      byId("wait").textContent = "";
      button.textContent = `✓ ${say("full_done")}`;
      byId("stage").dataset.resolution = "full";
    } catch (error) {
      button.disabled = false;
      byId("wait").textContent = say("volume_failed", { why: error.message });
    }
    this.moved();
  }

  setWindow(name) {
    const found = this.windows.find((one) => one.name === name) ?? this.windows[0];
    byId("window").value = found.name;
    this.viewer.setWindow(found);
  }

  nextWindow() {
    const at = this.windows.findIndex((one) => one.name === byId("window").value);
    const next = this.windows[(at + 1) % this.windows.length];
    this.setWindow(next.name);
    announce(`${next.word} ${next.title}`);
  }

  // ---- slices

  moved() {
    if (this.mode === "key" || this.mode === "solid" || !this.viewer.nv) return;
    byId("slice").max = this.viewer.depth;
    byId("slice").value = this.viewer.slice;
    byId("where").value = say("slice", { n: this.viewer.slice, of: this.viewer.depth });
  }

  go(number) {
    if (this.mode === "key") {
      this.place = Math.min(Math.max(number - 1, 0), Math.max(0, this.slices.length - 1));
      this.showKey();
    } else if (this.mode !== "solid") this.viewer.slice = Math.min(Math.max(number, 1), this.viewer.depth);
  }

  step(by) {
    this.go((this.mode === "key" ? this.place + 1 : this.viewer.slice) + by);
  }

  wheel(event) {
    if (this.mode !== "key" || event.ctrlKey || this.slices.length < 2) return;
    event.preventDefault();
    this.step(Math.sign(event.deltaY));
  }

  fade(by) {
    const range = byId("opacity");
    range.value = Number(range.value) + by;
    this.overlay();
  }

  flip() {
    byId("overlay").checked = !byId("overlay").checked;
    this.overlay();
  }
}

const shown = box ? new Page() : null;
if (shown) {
  const table = {
    k: () => shown.setMode("key"),
    s: () => shown.setMode("stack"),
    p: () => shown.setMode("planes"),
    d: () => shown.setMode("solid"),
    o: () => shown.flip(),
    w: () => shown.nextWindow(),
    "[": () => shown.fade(-10),
    "]": () => shown.fade(10),
    ArrowUp: () => shown.step(1),
    ArrowDown: () => shown.step(-1),
    PageUp: () => shown.step(10),
    PageDown: () => shown.step(-10),
    Home: () => shown.go(1),
    End: () => shown.go(1e6),
  };
  findings.forEach((finding, place) => (table[String(place + 1)] = () => shown.pick(finding)));
  keys(table);
}
keys({
  a: () => byId("acknowledge")?.click(),
  b: () => location.assign("/"),
  "?": showKeys,
});

// ---- what the reader says

for (const form of document.querySelectorAll("form.review")) {
  const said = form.querySelector(".said");
  const buttons = [...form.querySelectorAll("button")];
  const send = async (agree) => {
    said.className = "said";
    try {
      await ask(form.dataset.address, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ agree, comment: form.comment.value }),
      });
      for (const button of buttons) button.setAttribute("aria-pressed", String((button.value === "true") === agree));
      said.textContent = `${say("saved")}: ${say(agree ? "agreed" : "disagreed")}, ${clock(new Date())}`;
    } catch (error) {
      said.classList.add("fault");
      said.textContent = say("failed", { why: error.message });
    }
  };
  for (const button of buttons) button.addEventListener("click", () => send(button.value === "true"));
  form.addEventListener("submit", (event) => {
    event.preventDefault(); // Enter in the comment: once more what was said before
    const before = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
    if (before) send(before.value === "true");
    else buttons[0].focus();
  });
}

// ---- what happens

const mine = page.dataset;
const underWay = () => ["received", "analysing"].includes(mine.status);

document.body.addEventListener("htmx:afterRequest", (event) => {
  const { successful, elt } = event.detail;
  if (successful && elt.id === "acknowledge") refreshActs();
  else if (successful && elt.closest(".acts")) location.reload();
});

function refreshActs() {
  window.htmx.ajax("GET", location.href, { target: ".acts", select: ".acts", swap: "outerHTML" });
}

function changed(kind, study) {
  if (study.id !== mine.id) return;
  if (kind === "deleted") return location.assign("/");
  const bar = page.querySelector("[data-progress] progress");
  if (bar && study.status === "analysing") bar.value = study.fraction;
  const stage = page.querySelector("[data-stage]");
  const next = study.status !== mine.status || (stage && stage.dataset.stage !== study.stage && underWay());
  const newer = (study.version ?? 0) !== Number(mine.version);
  const seen = (study.acknowledged_at ?? "") !== mine.seen;
  if (box && newer) byId("newer").hidden = false; // the reader decides when the pictures change
  else if (next || newer) location.reload();
  else if (seen) {
    mine.seen = study.acknowledged_at;
    refreshActs();
  }
}

live({ changed, lost: () => underWay() && location.reload() });
