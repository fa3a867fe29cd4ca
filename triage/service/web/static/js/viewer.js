// CT, maps and surfaces in NiiVue: stack, three planes, 3D. The library is loaded when first needed.

import { ask, say } from "./app.js";
import { bodyOnly } from "./body.js";

// Red speaks for the injury, blue against it, as on the overlays; more is more opaque.
const FOR = { R: [255, 255, 255], G: [90, 60, 40], B: [60, 40, 30], A: [0, 110, 190], I: [0, 128, 255] };
const AGAINST = { R: [60, 60, 60], G: [140, 130, 120], B: [255, 255, 255], A: [0, 110, 190], I: [0, 128, 255] };
const FAINT = 0.12; // part of the full scale below which nothing is drawn
const FULL = 0.8;
// What hides little stays solid; what lies around everything is a veil.
const OPACITY = { spine: 1, aorta: 1, kidney_right: 0.85, kidney_left: 0.85, spleen: 0.6, liver: 0.4, bowel: 0.14 };
const TINT = 0.45; // of the map over the CT at most: the finding must stay visible

let library = null;

function load(address) {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = () => resolve(window.niivue);
    script.onerror = () => reject(new Error(say("unreachable")));
    document.head.append(script);
  });
  return library;
}

// Fetched once and kept while the page is open; asked for ahead of time, so that a click shows it.
const kept = new Map();

function bytes(address, change = (blob) => blob) {
  if (!kept.has(address)) {
    const found = ask(address).then((answer) => answer.blob()).then(change).then((blob) => URL.createObjectURL(blob));
    found.catch(() => kept.delete(address));
    kept.set(address, found);
  }
  return kept.get(address);
}

export function possible() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

// Whether the processor draws in place of a graphics card, as on many remote desktops.
function software() {
  const gl = document.createElement("canvas").getContext("webgl2");
  const asked = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = asked ? gl.getParameter(asked.UNMASKED_RENDERER_WEBGL) : "";
  return /swiftshader|llvmpipe|softpipe|basic render/i.test(name);
}

// The first look: the body alone, at half the resolution where the processor draws.
function firstLook(address) {
  return bytes(address, (blob) => bodyOnly(blob, software() ? 2 : 1));
}

// Settles once the graphics card (or the processor in its place) has carried out what was asked of it.
function painted({ gl }) {
  const done = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
  gl.flush();
  return new Promise((resolve) => {
    const look = () => {
      if (gl.isContextLost() || gl.clientWaitSync(done, 0, 0) !== gl.TIMEOUT_EXPIRED) {
        gl.deleteSync(done);
        resolve();
      } else requestAnimationFrame(look);
    };
    look();
  });
}

export class Viewer {
  constructor(flat, solid, address, moved) {
    this.flat = flat; // canvas of slices
    this.solid = solid; // canvas of surfaces: they need no CT, so they are there at once
    this.address = address;
    this.moved = moved;
    this.scene = null;
    this.full = false;
    this.target = null;
    this.mode = null;
    this.opacity = 1;
    this.window = null;
    this.hidden = new Set();
    this.queue = Promise.resolve();
  }

  // What the reader will probably want next: the library, the small volume and its map.
  async prepare(scene, target) {
    await load(this.address);
    await firstLook(scene.small);
    if (scene.maps[target]) await bytes(scene.maps[target]);
  }

  // Orders are carried out one after the other: the library must not load two things at once.
  order(work) {
    const done = this.queue.then(work);
    this.queue = done.catch(() => {});
    return done;
  }

  async open(canvas, options) {
    const { Niivue } = await load(this.address);
    const nv = new Niivue({
      backColor: [0, 0, 0, 1],
      isRadiologicalConvention: true,
      isColorbar: false,
      show3Dcrosshair: false,
      dragAndDropEnabled: false,
      logLevel: "error",
      loadingText: "",
      viewModeHotKey: "",
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      ...options,
    });
    nv.keyDownListener = () => {}; // the page has keys of its own
    nv.keyUpListener = () => {};
    nv.addColormap("triage_for", FOR);
    nv.addColormap("triage_against", AGAINST);
    await nv.attachToCanvas(canvas);
    canvas.removeAttribute("tabindex"); // the stage around it has the focus
    return nv;
  }

  async openFlat() {
    if (this.nv) return;
    const nv = await this.open(this.flat, {
      crosshairWidth: 0.6,
      crosshairColor: [1, 0.82, 0.3, 0.7],
      multiplanarShowRender: 0,
      multiplanarPadPixels: 6,
      sagittalNoseLeft: true,
      fontMinPx: 16,
      fontSizeScaling: 0.5,
    });
    nv.onLocationChange = () => this.moved();
    this.nv = nv;
  }

  show(scene, target, mode, height) {
    return this.order(async () => {
      if (mode === "solid") {
        await this.surfaces(scene);
        return painted(this.nv3);
      }
      await this.openFlat();
      if (scene !== this.scene) await this.volume(scene, false);
      this.setMode(mode);
      if (height !== undefined && height !== null) this.jump(height);
      await painted(this.nv);
      // the CT is there already; the map comes when it can
      if (target !== this.target) this.order(() => this.map(target)).catch(() => {});
      return undefined;
    });
  }

  resolve(full) {
    return this.order(async () => {
      // the small volume leaves out the air around the body: the place is kept in mm
      const at = this.nv ? this.nv.frac2mm(this.nv.scene.crosshairPos) : null;
      const target = this.target;
      await this.volume(this.scene, full);
      this.setMode(this.mode);
      await this.map(target);
      if (at) this.nv.scene.crosshairPos = this.nv.mm2frac([at[0], at[1], at[2]]);
      this.nv.drawScene();
      return painted(this.nv);
    });
  }

  async volume(scene, full) {
    const { low, high } = this.window;
    const ct = { url: await (full ? bytes(scene.full) : firstLook(scene.small)), name: full ? "ct.nii.gz" : "ct.nii", colormap: "gray", cal_min: low, cal_max: high, colorbarVisible: false };
    await this.nv.loadVolumes([ct]);
    this.scene = scene;
    this.full = full;
    this.target = null;
    this.nv.scene.crosshairPos = [0.5, 0.5, 0.5];
  }

  async map(target) {
    const { nv } = this;
    for (const old of nv.volumes.slice(1)) nv.removeVolume(old);
    const map = await this.mapOf(this.scene, target);
    if (map) await nv.addVolumeFromUrl(map);
    this.target = target;
  }

  async mapOf(scene, target) {
    const address = scene.maps[target];
    return address && { url: await bytes(address), name: "map.nii.gz", colormap: "triage_for", colormapNegative: "triage_against", cal_min: FAINT, cal_max: FULL, opacity: this.opacity * TINT, colorbarVisible: false };
  }

  async surfaces(scene) {
    if (this.surfacesOf === scene) return;
    this.nv3 ??= await this.open(this.solid, { isOrientCube: true, meshXRay: 0.15 });
    const nv = this.nv3;
    for (const mesh of [...nv.meshes]) nv.removeMesh(mesh);
    // what is opaque comes first, so that it shows through what is not
    const names = Object.keys(scene.meshes).sort((a, b) => (OPACITY[b] ?? 1) - (OPACITY[a] ?? 1));
    nv.setSliceType(nv.sliceTypeRender);
    await nv.loadMeshes(names.map((name) => ({ url: scene.meshes[name], name: `${name}.mz3`, opacity: OPACITY[name] ?? 1 })));
    for (const mesh of nv.meshes) mesh.visible = !this.hidden.has(mesh.name.replace(".mz3", ""));
    nv.setRenderAzimuthElevation(180, 12); // from the front: the patient's right on the left
    this.surfacesOf = scene;
  }

  toggle(name, on) {
    if (on) this.hidden.delete(name);
    else this.hidden.add(name);
    for (const mesh of this.nv3?.meshes ?? []) {
      if (mesh.name === `${name}.mz3`) mesh.visible = on;
    }
    this.nv3?.drawScene();
  }

  setMode(mode) {
    const { nv } = this;
    this.mode = mode;
    const type = { stack: nv.sliceTypeAxial, planes: nv.sliceTypeMultiplanar }[mode];
    nv.opts.crosshairWidth = mode === "planes" ? 0.6 : 0;
    nv.setSliceType(type);
  }

  setWindow({ low, high }) {
    const same = this.window?.low === low && this.window?.high === high;
    this.window = { low, high };
    if (same || !this.nv?.volumes.length) return;
    this.nv.volumes[0].cal_min = low;
    this.nv.volumes[0].cal_max = high;
    this.nv.updateGLVolume();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    if (this.nv?.volumes.length > 1) this.nv.setOpacity(1, opacity * TINT);
  }

  get depth() {
    return this.nv?.volumes[0]?.dimsRAS?.[3] ?? 1;
  }

  get slice() {
    return Math.min(this.depth, Math.max(1, Math.floor((this.nv?.scene.crosshairPos[2] ?? 0.5) * this.depth) + 1));
  }

  set slice(number) {
    this.jump((number - 0.5) / this.depth);
  }

  jump(height) {
    if (!this.nv?.volumes.length) return;
    const [x, y] = this.nv.scene.crosshairPos;
    this.nv.scene.crosshairPos = [x, y, Math.min(0.9999, Math.max(0, height))];
    this.nv.drawScene();
    this.moved();
  }
}
