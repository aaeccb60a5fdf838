// The page. The picture is an array of bytes; canvases only show it and are never read.

import * as raster from "./raster.js";

const $ = (id) => document.getElementById(id);
const SWATCHES = ["#1a1a1c", "#7a5434", "#c0392b", "#e8862e", "#f2cf4a", "#608c3e", "#2e7d6b", "#68a0dc", "#2e5c8a", "#8a4f9e", "#e8b8a0", "#f6f6f2"];
const REMEMBERED = "robustlab-demo";
const MOST_PAST = 50;
const HOLD_DELAY = 140; // ms for which a finger may turn out to scroll
const MOST_FRAMES = 120; // of a film
const ENLARGED = 512; // pixels, of a saved picture at least

let meta, model; // what the server offers; the network in use
let picture, anchor = null; // bytes; anchor null: each run is centred on its start
let actions = []; // how the picture came about; never changed, only replaced
let past = [], now = -1; // { picture, actions } after each action, and which of them is shown
let stroke = null; // the drawing in progress
let cross = null; // the keyboard's place on the picture
let running = null; // the run in progress
let held = null; // the button that is held
let center = null; // bytes from which the last run measured
let outputs = { logits: [], levels: [] };
let looking = null, lookAgain = false;
let film = []; // the pictures of the newest run, as bytes
const token = { value: new URLSearchParams(location.hash.slice(1)).get("token") ?? "" };

// Talking to the server.

function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token.value && { authorization: `Bearer ${token.value}` }) };
  return fetch(path, { cache: "no-store", ...options, headers });
}

async function refusal(response) {
  try {
    return (await response.json()).error || response.statusText;
  } catch {
    return response.statusText || `the server answered ${response.status}`;
  }
}

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

// The lines of a run's answer. A busy server is asked again.
async function* lines(request, signal, waiting = () => {}) {
  let response;
  for (let tries = 1; ; tries++) {
    response = await ask("/api/run", { method: "POST", signal, headers: { "content-type": "application/json" }, body: JSON.stringify(request) });
    if (response.status !== 503 || tries > 60) break;
    waiting();
    await pause(1000 * (Number(response.headers.get("retry-after")) || 1) * (0.5 + Math.random()), signal);
  }
  if (!response.ok) throw new Error(await refusal(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (rest + value).split("\n");
    rest = found.pop();
    for (const line of found) yield JSON.parse(line);
  }
}

// Runs.

function goalOf({ dataset }) {
  const goal = dataset.target ? { target: Number(dataset.target) } : { attribute: Number(dataset.attribute) };
  return dataset.less ? { ...goal, minimize: true } : goal;
}

function settings() {
  return {
    model: model.name, minimize: $("minimize").checked, eps: Number($("eps").value), step_size: Number($("step_size").value),
    steps: Number($("steps").value), tv: Number($("tv").value), wake: true, anchor: anchor && raster.toBase64(anchor),
  };
}

// Press a button: a run, and while the button stays down, further ones.
async function press(button) {
  stopRun();
  // All runs of one hold stay in the ball around the picture that it began with, so that a long hold does not burn the picture.
  const mine = (held = { button, down: true, anchor: anchor ?? picture.slice() });
  button.classList.add("pressed");
  for (let first = true; first || mine.down; first = false) {
    if (!(await runOnce(button, first, mine.anchor)) || held !== mine) break;
  }
  if (held === mine) held = null;
  if (held?.button !== button) button.classList.remove("pressed");
}

function release(button) {
  if (held && (!button || held.button === button)) held.down = false;
}

// True where the run came to its end and another one may lead further.
async function runOnce(button, first, around) {
  looking?.abort();
  const request = { ...settings(), ...goalOf(button), ...(!first && { anchor: raster.toBase64(around) }) };
  const run = (running = { request, first, start: picture.slice(), step: 0, frames: 0, controller: new AbortController() });
  center = around;
  if (first) film = [picture.slice()];
  showRunning();
  try {
    for await (const line of lines({ ...request, image: raster.toBase64(picture) }, run.controller.signal, () => busy("others are drawing too; waiting for a place"))) {
      if (running !== run) return false;
      if (line.type === "queued") busy(line.ahead === 1 ? "one run ahead of yours" : `${line.ahead} runs ahead of yours`);
      else if (line.type === "error") throw new Error(line.message);
      else {
        busy("");
        picture = raster.fromBase64(line.rgb);
        outputs = line;
        run.step = line.step;
        run.frames++;
        keepFrame();
        show();
        if (line.type === "done") {
          endRun(true);
          if (!line.why_unchanged) contented();
          else if (first) complain(new Error(line.why_unchanged)); // else the hold has led as far as it can
          return !line.why_unchanged;
        }
      }
    }
    throw new Error("the connection broke off");
  } catch (error) {
    if (running !== run) return false;
    endRun(false);
    complain(error);
    return false;
  }
}

// For a film: all frames, or of many every second, then every fourth, ...
function keepFrame() {
  film.push(picture.slice());
  if (film.length > MOST_FRAMES) film = film.filter((frame, k) => k % 2 === 0 || k === film.length - 1);
}

// Keep what a run has reached, as one entry of the past for all that was done while a button was held.
function endRun(finished) {
  const { request, first, frames } = running;
  running = null;
  busy("");
  if (frames) commit({ do: "run", finished, request, rgb: raster.toBase64(picture) }, !first);
  showRunning();
  if (!frames) return;
  say();
  if (!finished) look();
}

function stopRun() {
  if (held) {
    held.button.classList.remove("pressed");
    held = null;
  }
  if (!running) return;
  running.controller.abort();
  endRun(false);
}

// What the network sees in the picture as it is.
async function look() {
  if (running) return;
  if (looking) {
    lookAgain = true;
    return;
  }
  const mine = (looking = new AbortController());
  showLooking();
  try {
    const request = { ...settings(), steps: 0, image: raster.toBase64(picture) };
    for await (const line of lines(request, mine.signal)) if (line.type === "done" && !running) outputs = line;
    if (!running) show();
  } catch (error) {
    if (!mine.signal.aborted) complain(error);
  } finally {
    looking = null;
    if (lookAgain) {
      lookAgain = false;
      look();
    }
    showLooking();
  }
}

// The past.

function commit(action, join = false) {
  actions = [...actions, action];
  const entry = { picture: picture.slice(), actions };
  past = past.slice(0, now + 1);
  if (join) past.pop();
  past.push(entry);
  past = past.slice(-MOST_PAST);
  now = past.length - 1;
  showPast();
  remember();
}

function goTo(index) {
  stopRun();
  if (index < 0 || index >= past.length || index === now) return;
  now = index;
  picture = past[now].picture.slice();
  actions = past[now].actions;
  center = null;
  show();
  showPast();
  look();
  remember();
}

function act(action) {
  center = null;
  commit(action);
  show();
  look();
}

function put(bytes, name) {
  stopRun();
  picture = bytes;
  actions = []; // a picture from elsewhere needs no past to be made again
  act({ do: "picture", name, rgb: raster.toBase64(bytes) });
}

// For a reload: the picture, its past and the settings. Where there is no room for the whole past, the newest part of it.
function remember() {
  const kept = { size: meta.size, model: model.name, picture: raster.toBase64(picture), anchor: anchor && raster.toBase64(anchor) };
  for (const id of ["eps", "step_size", "steps", "tv", "color", "width"]) kept[id] = $(id).value;
  for (let most = MOST_PAST; ; most = Math.floor(most / 3)) {
    try {
      return sessionStorage.setItem(REMEMBERED, JSON.stringify({ ...kept, ...packed(most) }));
    } catch {
      if (!most) return; // no permission: a reload begins anew
    }
  }
}

// Up to so many entries of the past, around the one that is shown; what they share is written once.
function packed(most) {
  const from = Math.max(0, Math.min(now - most + 1, past.length - most)), entries = past.slice(from, from + most), pool = new Map();
  const place = (action) => pool.has(action) ? pool.get(action) : (pool.set(action, pool.size), pool.size - 1);
  const listed = entries.map((entry) => ({ picture: raster.toBase64(entry.picture), actions: entry.actions.map(place) }));
  return { past: listed, pool: [...pool.keys()], now: now - from };
}

function unpacked({ past: listed = [], pool = [], now: place = -1 }) {
  if (!listed[place]) return false;
  past = listed.map((entry) => ({ picture: raster.fromBase64(entry.picture), actions: entry.actions.map((k) => pool[k]) }));
  now = place;
  picture = past[now].picture.slice();
  actions = past[now].actions;
  return true;
}

function recalled() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(REMEMBERED));
    return kept?.size === meta.size ? kept : null;
  } catch {
    return null;
  }
}

// Showing.

let scheduled = false;
function show() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    paint($("picture"), picture);
    showOverlay();
    showOutputs();
    showDistance();
    if (running) $("progress").value = running.step / running.request.steps;
  });
}

function paint(canvas, bytes) {
  if (canvas.width !== meta.size) canvas.width = canvas.height = meta.size;
  const data = new ImageData(meta.size, meta.size);
  for (let from = 0, to = 0; from < bytes.length; from += 3, to += 4) data.data.set([bytes[from], bytes[from + 1], bytes[from + 2], 255], to);
  canvas.getContext("2d").putImageData(data, 0, 0);
}

function softmax(logits) {
  const most = Math.max(...logits), parts = logits.map((logit) => Math.exp(logit - most));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

const percent = (share) => (share > 0.995 && share < 1 ? ">99 %" : `${Math.round(100 * share)} %`);

function showOutputs() {
  const { logits, levels } = outputs;
  if (logits.length !== model.classes.length) return;
  const shares = softmax(logits.map((logit) => logit ?? -Infinity));
  const top = shares.indexOf(Math.max(...shares));
  for (const button of $("classes").children) {
    const k = Number(button.dataset.target);
    button.style.setProperty("--p", shares[k].toFixed(4));
    button.querySelector(".share").textContent = percent(shares[k]);
    button.querySelector(".logit").textContent = logits[k] === null ? "?" : logits[k].toFixed(2);
    button.classList.toggle("top", k === top);
  }
  for (const level of $("attributes").querySelectorAll(".level")) level.textContent = levels[level.parentNode.dataset.attribute]?.toFixed(1) ?? "";
  const name = Object.assign(document.createElement("b"), { textContent: model.classes[top] });
  $("seen").replaceChildren("I see: ", name, ` ${percent(shares[top])}${running ? ` · step ${running.step}` : ""}`);
}

function showDistance() {
  const eps = Number($("eps").value), from = anchor ?? center;
  const distance = from ? raster.distance(picture, from) : 0;
  const block = document.querySelector(".anchor");
  block.classList.toggle("outside", distance > eps + 1e-9);
  $("distance").value = distance.toFixed(2);
  $("from").textContent = anchor
    ? distance > eps + 1e-9 ? `from the anchor: outside the ball of radius ${eps}, a run begins by pulling the picture in` : `of at most ${eps} from the anchor`
    : center ? `of at most ${eps} from where the run began` : `moved; a run may go up to ${eps} from here`;
  const share = Math.min(distance / eps, 1.25), turn = now * 0.9 - 0.8;
  $("dot").style.setProperty("--x", (2.15 * share * Math.cos(turn)).toFixed(3));
  $("dot").style.setProperty("--y", (2.15 * share * Math.sin(turn)).toFixed(3));
  $("dot").hidden = !distance;
  paint($("anchor-picture"), from ?? picture);
}

// For the tests: the numbers beside the buttons are not yet those of the picture.
function showLooking() {
  document.documentElement.classList.toggle("looking", !!looking);
}

function showRunning() {
  document.documentElement.classList.toggle("running", !!running);
  $("stop").disabled = !running;
  $("progress").value = running ? running.step / running.request.steps : 0;
}

function showPast() {
  $("undo").disabled = now < 1;
  $("redo").disabled = now >= past.length - 1;
  const film = $("film");
  while (film.children.length > past.length) film.lastChild.remove();
  while (film.children.length < past.length) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => goTo([...film.children].indexOf(button)));
    film.append(button);
  }
  past.forEach((entry, k) => {
    const button = film.children[k];
    if (button.shown !== entry) paint(button.firstChild, entry.picture);
    button.shown = entry;
    button.setAttribute("aria-label", `${k + 1}: ${described(entry.actions.at(-1))}`);
    button.toggleAttribute("aria-current", false);
    if (k === now) button.setAttribute("aria-current", "true");
  });
  const current = film.children[now];
  if (current) film.scrollLeft = current.offsetLeft - film.clientWidth / 2;
}

function described(action) {
  if (!action) return "start";
  if (action.do === "picture") return action.name;
  if (action.do !== "run") return action.do;
  const { request } = action, used = meta.models.find((one) => one.name === request.model) ?? model;
  const goal = request.target !== undefined ? used.classes[request.target] : used.attributes[request.attribute]?.name;
  return `${request.minimize ? "less" : "more"} ${goal}`;
}

function say(sentence) {
  const shares = softmax(outputs.logits), top = shares.indexOf(Math.max(...shares));
  $("status").textContent = sentence ?? `${described(actions.at(-1))}: the network sees ${model.classes[top]}, ${percent(shares[top])}; distance ${$("distance").value}`;
}

function busy(sentence) {
  $("busy").textContent = sentence;
  $("busy").hidden = !sentence;
}

// What went wrong stands there until something succeeds, or until it is put away.
function complain(error) {
  $("complaint").textContent = error instanceof TypeError ? "the server does not answer; is it still running?" : error.message ?? String(error);
  $("alert").hidden = false;
}

function contented() {
  $("alert").hidden = true;
}

// Drawing.

const tool = () => document.querySelector("input[name=tool]:checked").value;
const choose = (name) => (document.querySelector(`input[name=tool][value=${name}]`).checked = true);
const colorOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const hexOf = (color) => "#" + [...color].map((value) => value.toString(16).padStart(2, "0")).join("");
const brushColor = () => (tool() === "eraser" ? meta.blank : colorOf($("color").value));

function setColor(hex) {
  $("color").value = hex;
  for (const swatch of $("swatches").children) swatch.setAttribute("aria-pressed", swatch.dataset.color === hex);
}

function placeOf(event) {
  const area = $("picture").getBoundingClientRect();
  const at = (from, length, value) => Math.max(-meta.size, Math.min(2 * meta.size, Math.floor(((value - from) / length) * meta.size)));
  return [at(area.left, area.width, event.clientX), at(area.top, area.height, event.clientY)];
}

function pick([x, y]) {
  if (x < 0 || y < 0 || x >= meta.size || y >= meta.size) return;
  const at = 3 * (y * meta.size + x);
  setColor(hexOf(picture.subarray(at, at + 3)));
  say(`colour ${$("color").value}`);
}

function beginStroke(point, picking = false) {
  stopRun();
  center = null;
  if (tool() === "pipette" || picking) {
    pick(point);
    if (!picking) choose("brush");
    return;
  }
  const shape = tool() === "rectangle" || tool() === "circle";
  stroke = shape
    ? { action: { do: tool(), color: brushColor(), from: point, to: point } }
    : { action: { do: "brush", color: brushColor(), width: Number($("width").value), points: [point] } };
  if (!shape) raster.apply(picture, meta.size, stroke.action);
  show();
}

function moveStroke(point) {
  const { action } = stroke;
  if (action.do !== "brush") action.to = point;
  else {
    const last = action.points.at(-1);
    if (last[0] === point[0] && last[1] === point[1]) return;
    action.points.push(point);
    raster.brush(picture, meta.size, [last, point], action.color, action.width);
    look();
  }
  show();
}

function endStroke() {
  const { action } = stroke;
  stroke = null;
  if (action.do !== "brush") raster.apply(picture, meta.size, action);
  act(action);
}

function dropStroke() {
  if (!stroke) return;
  stroke = null;
  picture = past[now].picture.slice();
  show();
}

// A shape that is being drawn, half transparent; the brush's print; the keyboard's cross.
function showOverlay() {
  const canvas = $("overlay"), size = meta.size;
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const data = new ImageData(size, size);
  const shaded = (action, alpha) => {
    const on = raster.blank(size, [0, 0, 0]);
    raster.apply(on, size, { ...action, color: [255, 255, 255] });
    for (let pixel = 0; pixel < size * size; pixel++) if (on[3 * pixel]) data.data.set([...action.color, alpha], 4 * pixel);
  };
  if (stroke && stroke.action.do !== "brush") shaded(stroke.action, 190);
  const at = cross ?? hovered;
  if (at && !stroke) {
    const wide = tool() === "brush" || tool() === "eraser" ? Number($("width").value) : 1;
    shaded({ do: "brush", color: brushColor(), width: wide, points: [at] }, 150);
  }
  if (cross) {
    for (let k = 0; k < size; k++) {
      data.data.set([255, 255, 255, 140], 4 * (cross[1] * size + k));
      data.data.set([255, 255, 255, 140], 4 * (k * size + cross[0]));
    }
    data.data.set([0, 0, 0, 230], 4 * (cross[1] * size + cross[0]));
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

let hovered = null;

function drawWithPointer() {
  const canvas = $("picture");
  let pointer = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || pointer !== null) return;
    cross = null;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    beginStroke(placeOf(event), event.altKey);
  });
  canvas.addEventListener("pointermove", (event) => {
    hovered = event.pointerType === "mouse" ? placeOf(event) : null;
    if (event.pointerId === pointer && stroke) for (const one of event.getCoalescedEvents?.().concat(event) ?? [event]) moveStroke(placeOf(one));
    else show();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    if (stroke) endStroke();
  });
  canvas.addEventListener("pointercancel", () => { pointer = null; dropStroke(); });
  canvas.addEventListener("pointerleave", () => { hovered = null; show(); });
}

function drawWithKeys() {
  const canvas = $("picture"), moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = moves[event.key], far = event.shiftKey ? Math.max(4, Math.round(meta.size / 8)) : 1;
    if (move) {
      const middle = Math.floor(meta.size / 2);
      cross = (cross ?? [middle, middle]).map((value, axis) => Math.max(0, Math.min(meta.size - 1, value + move[axis] * far)));
      if (stroke) moveStroke([...cross]);
      else show();
      say(`${cross[0] + 1}, ${cross[1] + 1}`);
    } else if (event.key === " " || event.key === "Enter") {
      if (event.repeat) return event.preventDefault();
      cross ??= [Math.floor(meta.size / 2), Math.floor(meta.size / 2)];
      if (stroke) endStroke();
      else {
        beginStroke([...cross]);
        if (stroke?.action.do === "brush" && event.key === "Enter") endStroke(); // Enter dabs, space begins a line
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("blur", () => {
    if (stroke && cross) endStroke();
    cross = null;
    show();
  });
}

function surprise() {
  stopRun();
  const any = (n) => Math.floor(Math.random() * n), size = meta.size, far = () => any(size + size / 2) - Math.floor(size / 4);
  const some = () => colorOf(SWATCHES[any(SWATCHES.length)]), level = Math.floor(size * (0.4 + 0.4 * Math.random()));
  const made = [{ do: "fill", color: some() }, { do: "rectangle", color: some(), from: [0, level], to: [size - 1, size - 1] }];
  for (let k = 2 + any(4); k > 0; k--) {
    const from = [far(), far()], to = [from[0] + any(size * 0.6), from[1] + any(size * 0.6)];
    made.push(any(3) ? { do: any(3) ? "circle" : "rectangle", color: some(), from, to } : { do: "brush", color: some(), width: 1 + any(size / 8), points: [from, to] });
  }
  for (const action of made) raster.apply(picture, size, action);
  actions = made.slice(0, -1);
  act(made.at(-1));
}

// Files.

async function open(file) {
  if (!file) return;
  try {
    if (file.type === "application/json" || file.name?.endsWith(".json")) return replay(JSON.parse(await file.text()));
    if (file.size > 16 * 2 ** 20) throw new Error("the picture's file is larger than 16 MB");
    stopRun();
    const part = await choosePart(file);
    if (part === null) return; // thought better of it
    busy("reading the picture");
    const response = await ask(`/api/upload${part && `?part=${part}`}`, { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
    if (!response.ok) throw new Error(await refusal(response));
    put(new Uint8ClampedArray(await response.arrayBuffer()), "upload");
    contented();
  } catch (error) {
    complain(error instanceof SyntaxError ? new Error("this is no saved history") : error);
  } finally {
    busy("");
    $("file").value = "";
  }
}

// Which square of a picture file: "left,top,side" as shares, "" for the middle one or all, null for none of it.
async function choosePart(file) {
  const image = $("crop-image"), url = URL.createObjectURL(file);
  try {
    image.src = url;
    try {
      await image.decode();
    } catch {
      return ""; // the browser cannot read it; the server may, or says why not
    }
    const { naturalWidth: width, naturalHeight: height } = image;
    if (width === height && width <= 2 * meta.size) return "";
    const box = { x: 0.5, y: 0.5, side: 1 }; // middle of the square as shares of what is left, side as a share of the shorter side
    const place = () => {
      const side = box.side * Math.min(width, height);
      return { side, left: (width - side) * box.x, top: (height - side) * box.y };
    };
    const showBox = () => {
      const { side, left, top } = place(), square = $("crop-box").style;
      $("crop-size").value = box.side;
      [square.left, square.top, square.width, square.height] = [left / width, top / height, side / width, side / height].map((share) => `${100 * share}%`);
    };
    const move = (dx, dy) => {
      const { side } = place(), at = (value, delta, room) => (room > 0 ? Math.max(0, Math.min(1, value + delta / room)) : 0.5);
      box.x = at(box.x, dx, width - side);
      box.y = at(box.y, dy, height - side);
      showBox();
    };
    let last = null;
    const stage = $("crop-stage"), scale = () => width / image.getBoundingClientRect().width;
    stage.onpointerdown = (event) => { last = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); };
    stage.onpointermove = (event) => {
      if (!last) return;
      move((event.clientX - last[0]) * scale(), (event.clientY - last[1]) * scale());
      last = [event.clientX, event.clientY];
    };
    stage.onpointerup = stage.onpointercancel = () => { last = null; };
    stage.onkeydown = (event) => {
      const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!ways) return;
      move(...ways.map((way) => way * 0.05 * Math.min(width, height)));
      event.preventDefault();
    };
    $("crop-size").oninput = () => { box.side = Number($("crop-size").value); showBox(); };
    showBox();
    $("crop").returnValue = "";
    $("crop").showModal();
    await new Promise((resolve) => $("crop").addEventListener("close", resolve, { once: true }));
    if ($("crop").returnValue !== "use") return null;
    const { side, left, top } = place();
    return [left / width, top / height, side / Math.min(width, height)].map((share) => share.toFixed(6)).join(",");
  } finally {
    image.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

// The newest run as a GIF, which the server puts together.
async function saveFilm() {
  try {
    if (film.length < 2) throw new Error("there is no run yet: press a class first");
    busy("making the film");
    const response = await ask("/api/film", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: new Blob(film) });
    if (!response.ok) throw new Error(await refusal(response));
    download(await response.blob(), "run.gif");
    contented();
  } catch (error) {
    complain(error);
  } finally {
    busy("");
  }
}

function replay(saved) {
  const known = saved.format === "robustlab-history-1" || saved.format === "robustlab-recipe-1"; // the name of before
  if (!known || saved.size !== meta.size || !Array.isArray(saved.actions)) throw new Error(`this is no history of a picture of ${meta.size} pixels`);
  const made = new Uint8ClampedArray(3 * meta.size ** 2);
  const all = saved.actions.map(({ order, ...action }) => (order ? { ...action, request: order } : action)); // the name of before
  for (const action of all) {
    if (action.do !== "run" && action.do !== "picture") raster.apply(made, meta.size, action);
    else made.set(raster.fromBase64(action.rgb).subarray(0, made.length));
  }
  stopRun();
  picture = made;
  actions = all.slice(0, -1);
  act(all.at(-1));
}

function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Buttons.

// A press begins when the button goes down. A finger may be about to scroll, and gets a moment to show it.
function holdable(button) {
  let timer, pointed = false;
  button.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointed = true;
    button.setPointerCapture(event.pointerId);
    if (event.pointerType === "mouse") press(button);
    else timer = setTimeout(() => { timer = null; press(button); }, HOLD_DELAY);
  });
  button.addEventListener("pointerup", () => {
    if (timer) {
      clearTimeout(timer);
      press(button);
    }
    timer = null;
    release(button);
  });
  button.addEventListener("pointercancel", () => { clearTimeout(timer); timer = null; pointed = false; release(button); });
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (!event.repeat) press(button);
  });
  button.addEventListener("keyup", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    release(button);
  });
  // What is left are presses by a screen reader or by voice, which come without a pointer or a key.
  button.addEventListener("click", () => {
    if (!pointed) press(button).finally(() => {}), release(button);
    pointed = false;
  });
}

function makeButton(parent, parts, dataset, title) {
  const button = document.createElement("button");
  button.type = "button";
  Object.assign(button.dataset, dataset);
  if (title) button.title = title;
  for (const [name, text] of parts) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    button.append(part);
  }
  holdable(button);
  parent.append(button);
  return button;
}

// While a button is pointed at or has the focus: what it stands for, and the pictures that show it best.
function withExamples(button, { hint, examples }) {
  if (!examples?.length) return;
  button.removeAttribute("title");
  button.setAttribute("aria-description", hint);
  const showTip = () => {
    const pictures = examples.map((bytes) => {
      const canvas = document.createElement("canvas");
      paint(canvas, raster.fromBase64(bytes));
      return canvas;
    });
    $("tip-pictures").replaceChildren(...pictures);
    $("tip-words").textContent = hint;
    $("tip").hidden = false;
    const at = button.getBoundingClientRect(), tip = $("tip").getBoundingClientRect();
    $("tip").style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.width - 8))}px`;
    $("tip").style.top = `${at.bottom + tip.height + 8 > innerHeight ? at.top - tip.height - 6 : at.bottom + 6}px`;
  };
  const hideTip = () => ($("tip").hidden = true);
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && showTip());
  button.addEventListener("focus", () => button.matches(":focus-visible") && showTip());
  for (const name of ["pointerleave", "blur", "pointerdown"]) button.addEventListener(name, hideTip);
}

function useModel(name) {
  stopRun();
  model = meta.models.find((one) => one.name === name) ?? meta.models[0];
  $("model").value = model.name;
  $("note").textContent = model.note;
  $("note").title = model.note;
  outputs = { logits: [], levels: [] };
  $("classes").replaceChildren();
  $("attributes").replaceChildren();
  model.classes.forEach((name, k) => makeButton($("classes"), [["key", k < 10 ? `${(k + 1) % 10}` : ""], ["name", name], ["share", ""], ["logit", ""]], { target: k }, name));
  model.attributes.forEach((attribute, k) => {
    const pair = document.createElement("span");
    pair.className = "pair";
    withExamples(makeButton(pair, [["name", attribute.name], ["level", ""]], { attribute: k }, attribute.hint), attribute);
    makeButton(pair, [["less", "−"]], { attribute: k, less: true }, `less ${attribute.name}`).setAttribute("aria-label", `less ${attribute.name}`);
    $("attributes").append(pair);
  });
  $("attributes-block").hidden = !model.attributes.length;
  $("filter").hidden = Math.max(model.classes.length, model.attributes.length) <= 20;
  $("filter").placeholder = model.attributes.length > 20 ? "find a class or an attribute" : "find a class";
  $("filter").value = "";
}

function setSliders(values) {
  for (const id of ["eps", "step_size", "steps", "tv", "width"]) {
    if (values[id] !== undefined) $(id).value = values[id];
    $(`${id}-value`).value = $(id).value;
  }
  // A slider stands at the nearest of its places.
  const at = (id, value) => Math.abs(Number($(id).value) - value) < 0.005 * value;
  for (const button of $("presets").children) button.classList.toggle("pressed", ["eps", "step_size", "steps"].every((id) => at(id, Number(button.dataset[id]))));
}

// Radius and step size are written in the page for 32 pixels; an L2 norm grows with the side of the picture.
function scaleLengths(factor) {
  const scaled = (length) => Number((length * factor).toPrecision(6));
  for (const name of ["eps", "step_size"]) {
    for (const side of ["min", "max", "step"]) $(name)[side] = scaled(Number($(name)[side]));
    for (const button of $("presets").children) button.dataset[name] = scaled(Number(button.dataset[name]));
  }
}

function setAnchor(bytes) {
  stopRun();
  anchor = bytes;
  center = null;
  $("clear-anchor").disabled = $("to-anchor").hidden = !anchor;
  say(anchor ? "anchor set" : "anchor cleared");
  show();
  remember();
}

function setMinimize(on) {
  $("minimize").checked = on;
  document.documentElement.classList.toggle("minimizing", on);
}

function wire() {
  drawWithPointer();
  drawWithKeys();
  const click = (id, handler) => $(id).addEventListener("click", handler);
  click("stop", () => stopRun());
  click("undo", () => goTo(now - 1));
  click("redo", () => goTo(now + 1));
  click("set-anchor", () => { stopRun(); setAnchor(picture.slice()); });
  click("clear-anchor", () => setAnchor(null));
  click("to-anchor", () => put(anchor.slice(), "anchor"));
  click("dice", surprise);
  click("reset", () => { stopRun(); picture = raster.blank(meta.size, meta.blank); actions = []; act({ do: "fill", color: meta.blank }); });
  click("fill", () => { stopRun(); const color = colorOf($("color").value); picture = raster.blank(meta.size, color); actions = []; act({ do: "fill", color }); });
  click("upload", () => $("file").click());
  click("save", async () => download(await raster.png(picture, meta.size), "picture.png"));
  click("save-large", async () => { const times = Math.ceil(ENLARGED / meta.size); download(await raster.png(raster.enlarged(picture, meta.size, times), times * meta.size), "picture-large.png"); });
  click("save-film", saveFilm);
  click("put-away", contented);
  click("history", () => download(new Blob([JSON.stringify({ format: "robustlab-history-1", size: meta.size, actions })], { type: "application/json" }), "history.json"));
  $("file").addEventListener("change", () => open($("file").files[0]));
  $("model").addEventListener("change", () => { useModel($("model").value); look(); remember(); });
  $("minimize").addEventListener("change", () => setMinimize($("minimize").checked));
  $("smooth").addEventListener("change", () => document.documentElement.classList.toggle("smooth", $("smooth").checked));
  $("color").addEventListener("input", () => { setColor($("color").value); if (["eraser", "pipette"].includes(tool())) choose("brush"); });
  for (const id of ["eps", "step_size", "steps", "tv", "width"]) $(id).addEventListener("input", () => { setSliders({}); showDistance(); remember(); });
  for (const button of $("presets").children) button.addEventListener("click", () => { setSliders(button.dataset); showDistance(); remember(); });
  $("filter").addEventListener("input", () => {
    const text = $("filter").value.trim().toLowerCase();
    for (const button of $("classes").children) button.hidden = !model.classes[button.dataset.target].toLowerCase().includes(text);
    [...$("attributes").children].forEach((pair, k) => (pair.hidden = !model.attributes[k].name.toLowerCase().includes(text)));
  });
  document.addEventListener("keydown", shortcut);
  document.addEventListener("keyup", (event) => { if (/^\d$/.test(event.key)) release(); });
  window.addEventListener("blur", () => release());
  window.addEventListener("pagehide", () => stopRun());
  document.addEventListener("paste", (event) => { const file = event.clipboardData?.files[0]; if (file) open(file); });
  document.addEventListener("dragover", (event) => { event.preventDefault(); $("easel").classList.add("over"); });
  document.addEventListener("dragleave", () => $("easel").classList.remove("over"));
  document.addEventListener("drop", (event) => { event.preventDefault(); $("easel").classList.remove("over"); open(event.dataTransfer.files[0]); });
}

function shortcut(event) {
  const { target } = event, typing = target.matches("input[type=search], input[type=text], input:not([type]), select, textarea");
  if (typing || event.altKey) return;
  const key = event.key.toLowerCase(), tools = { b: "brush", r: "rectangle", c: "circle", e: "eraser", i: "pipette" };
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") goTo(now + (event.shiftKey ? 1 : -1));
    else if (key === "y") goTo(now + 1);
    else return;
  } else if (tools[key]) choose(tools[key]);
  else if (key === "escape") { dropStroke(); stopRun(); }
  else if (key === "m") setMinimize(!$("minimize").checked);
  else if (key === "a") $("set-anchor").click();
  else if (key === "[" || key === "]") setSliders({ width: Number($("width").value) + (key === "]" ? 1 : -1) });
  else if (/^\d$/.test(key) && !target.matches("input[type=range]")) {
    const button = $("classes").children[(Number(key) + 9) % 10];
    if (button && !event.repeat) press(button);
  } else return;
  event.preventDefault();
  show();
}

// The start.

async function fetchMeta() {
  for (;;) {
    const response = await ask("/api/meta");
    if (response.status !== 401) return response.ok ? response.json() : Promise.reject(new Error(await refusal(response)));
    $("locked").showModal();
    await new Promise((resolve) => $("locked").addEventListener("close", resolve, { once: true }));
    token.value = $("token").value.trim();
    history.replaceState(null, "", `#token=${encodeURIComponent(token.value)}`);
  }
}

async function fetchStarters() {
  for (let k = 0; k < meta.starters.length; k++) {
    const response = await ask(`/api/starter/${k}`), name = meta.starters[k];
    if (!response.ok) continue;
    const bytes = new Uint8ClampedArray(await response.arrayBuffer());
    const button = document.createElement("button");
    button.type = "button";
    button.title = name;
    button.setAttribute("aria-label", `start from ${name}`);
    button.append(document.createElement("canvas"));
    paint(button.firstChild, bytes);
    button.addEventListener("click", () => put(bytes.slice(), name));
    $("starters").append(button);
    if (k === 0 && !past.length) put(bytes.slice(), name);
  }
}

async function start() {
  meta = await fetchMeta();
  for (const { name } of meta.models) $("model").append(new Option(name, name));
  for (const hex of SWATCHES) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.color = hex;
    button.setAttribute("aria-label", `colour ${hex}`);
    button.style.setProperty("--mine", hex);
    button.addEventListener("click", () => { setColor(hex); if (["eraser", "pipette"].includes(tool())) choose("brush"); remember(); });
    $("swatches").append(button);
  }
  $("width").max = Math.max(4, Math.round(meta.size * 0.375));
  scaleLengths(meta.size / 32);
  $("about").textContent = `robustlab ${meta.version}, ${meta.size} x ${meta.size} pixels, on ${meta.device}`;
  const kept = recalled();
  setSliders({ ...$("wild").dataset, width: Math.max(1, Math.round(meta.size / 10)), ...kept });
  setColor(kept?.color ?? "#7a5434");
  useModel(kept?.model);
  wire();
  picture = raster.blank(meta.size, meta.blank);
  if (kept) {
    if (kept.anchor) setAnchor(raster.fromBase64(kept.anchor));
    if (!unpacked(kept)) put(raster.fromBase64(kept.picture), "as it was");
    show();
    showPast();
    look();
  }
  setMinimize(false);
  await fetchStarters();
  if (!past.length) put(picture, "empty");
}

start().catch(complain);
