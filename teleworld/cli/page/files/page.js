// The page of `teleworld play`: a start picture is chosen, keys go up, chunks come down. visit.py has the messages.

import { Player } from "./player.js";

const KEYS = { KeyW: 1, KeyA: 2, KeyS: 4, KeyD: 8, ArrowLeft: 16, ArrowRight: 32, ArrowUp: 64, ArrowDown: 128 };
const element = (id) => document.getElementById(id);
const gallery = element("gallery"), stage = element("stage"), notice = element("notice"), prompt = element("prompt");

let chunk = null;              // what was told of the chunk whose bytes come next
let mask = 0, presses = 0;     // keys held; how often that has changed
let pressed = new Map();       // press -> when, until its control's number is known
let waiting = [];              // presses that no picture has shown yet: { control, at }
let delays = [];               // milliseconds from a key to its picture, the latest last
let paused = false;
let walking = false;           // chunks that come now are of the world that is shown

const socket = new WebSocket(new URL("walk", location.href.replace(/^http/, "ws")));
socket.binaryType = "arraybuffer";
const say = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));

const player = new Player(element("screen"), (shown) => {
  say({ shown: shown.chunk });
  notice.textContent = paused ? "paused" : "";
  const now = performance.now();
  for (const one of waiting.filter(({ control }) => control <= shown.control)) delays.push(now - one.at);
  waiting = waiting.filter(({ control }) => control > shown.control);
  delays = delays.slice(-25);
}, fail);

function fail(text) {
  element("error").textContent = text;
  element("error").hidden = false;
}

// -- what is told ------------------------------------------------------------------------------------------------------

socket.onmessage = ({ data }) => {
  if (data instanceof ArrayBuffer) {
    if (walking) player.add(chunk, new Uint8Array(data));
    return;
  }
  const told = JSON.parse(data);
  if (told.chunk !== undefined) chunk = told;
  else if (told.control !== undefined) { waiting.push({ control: told.control, at: pressed.get(told.press) }); pressed.delete(told.press); }
  else if (told.world) begin(told);
  else if (told.rewound !== undefined) notice.textContent = "the store lost the last moments; going on before them";
  else if (told.error) { sessionStorage.removeItem("world"); choose(); fail(told.error); }
};
socket.onclose = () => { notice.textContent = ""; fail("teleworld play has ended. Start it again and open the address that it says."); };
socket.onopen = async () => {
  if (!("VideoDecoder" in window)) return fail("This browser has no WebCodecs video decoder; recent Chrome, Edge, Firefox and Safari have one.");
  await offer();
  if (sessionStorage.world) { enter("going on where you were ..."); say({ resume: sessionStorage.world }); }
};

function begin(world) {
  sessionStorage.world = world.world;
  player.start(world.fps, world.width, world.height);
  walking = true;
  pressed.clear(); waiting = []; delays = [];
}

// -- where to begin ----------------------------------------------------------------------------------------------------

async function offer() {
  const names = await (await fetch("pictures")).json();
  for (const name of names.reverse()) {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = `pictures/${encodeURIComponent(name)}`;
    image.alt = button.title = name.replace(/\.\w+$/, "").replaceAll("_", " ");
    button.append(image);
    button.onclick = () => { enter("imagining ..."); say({ start: { picture: name, prompt: prompt.value } }); };
    element("pictures").prepend(button);
  }
}

function upload(file) {
  if (!file) return;
  enter("imagining ...");
  say({ upload: { prompt: prompt.value } });
  file.arrayBuffer().then((bytes) => socket.send(bytes));
}
element("file").onchange = ({ target }) => { upload(target.files[0]); target.value = ""; };
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  upload(event.dataTransfer.files[0]);
});

function enter(text) {
  walking = false;
  player.stop();
  element("error").hidden = true;
  gallery.hidden = true;
  stage.hidden = false;
  notice.textContent = text;
  document.activeElement?.blur();
  paused = false;
}

function choose() {
  walking = false;
  release();
  player.stop();
  stage.hidden = true;
  gallery.hidden = false;
}

// -- keys --------------------------------------------------------------------------------------------------------------

function hold(code, down) {
  const next = down ? mask | KEYS[code] : mask & ~KEYS[code];
  if (next === mask) return;
  mask = next;
  presses += 1;
  pressed.set(presses, performance.now());
  say({ keys: mask, press: presses });
  for (const button of document.querySelectorAll("[data-key]")) button.classList.toggle("held", (mask & KEYS[button.dataset.key]) !== 0);
}

function release() { for (const code of Object.keys(KEYS)) hold(code, false); }

function pause(now) {
  paused = now;
  say({ pause: now });
  notice.textContent = now ? "paused" : "";
  player.rest();
}

addEventListener("keydown", (event) => {
  if (stage.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.code in KEYS) { event.preventDefault(); hold(event.code, true); }
  else if (event.repeat) return;
  else if (event.code === "KeyP") pause(!paused);
  else if (event.code === "KeyF") document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen();
  else if (event.code === "KeyN") { pause(true); sessionStorage.removeItem("world"); choose(); }
});
addEventListener("keyup", (event) => { if (event.code in KEYS) hold(event.code, false); });
addEventListener("blur", release);
document.addEventListener("visibilitychange", () => {
  if (stage.hidden || paused) return;
  say({ pause: document.hidden });
  player.rest();
});
for (const button of document.querySelectorAll("[data-key]")) {
  button.onpointerdown = (event) => { event.preventDefault(); button.setPointerCapture(event.pointerId); hold(button.dataset.key, true); };
  button.onlostpointercapture = () => hold(button.dataset.key, false);
}

// -- figures -----------------------------------------------------------------------------------------------------------

setInterval(() => {
  if (stage.hidden || !player.times.length) { element("figures").textContent = ""; return; }
  const sorted = [...delays].sort((one, other) => one - other);
  const key = sorted.length ? `, a key is seen after ${Math.round(sorted[sorted.length >> 1])} ms` : "";
  element("figures").textContent = `${player.fps().toFixed(1)} frames/s${key}, ${player.stalls} ${player.stalls === 1 ? "stall" : "stalls"}`;
}, 500);
