// The controls: playing, pausing, going to a time, stepping, following a node; keys; what is said.

const data = JSON.parse(document.getElementById("scene").textContent);
const element = (id) => document.getElementById(id);
const timeline = new Timeline(data);
const stage = new Stage(element("stage"), data, timeline);
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

const LISTED = 12;
const SPEEDS = [0.01, 0.1, 0.25, 0.5, 1, 2, 4, 10, 60];

const state = { time: timeline.begin, playing: false, frame: 0, last: 0, listed: "" };
let pace = null;

// ---- time ----------------------------------------------------------------------------------------

const factor = () => Number(element("speed").value);
const pacing = () => element("pacing").checked;
const rate = () => factor() * (pacing() ? pace.at(state.time) : 1);

function frame(now) {
  const seconds = Math.min(0.1, Math.max(0, (now - state.last) / 1000));
  state.last = now;
  const next = pacing()
    ? pace.after(state.time, seconds * factor()) : state.time + seconds * factor();
  state.time = Math.min(timeline.end, next);
  show();
  if (state.time >= timeline.end) setPlaying(false);
  if (state.playing) state.frame = requestAnimationFrame(frame);
}

function setPlaying(playing) {
  if (playing && state.time >= timeline.end) state.time = timeline.begin;
  state.playing = playing;
  state.last = performance.now();
  cancelAnimationFrame(state.frame);
  if (playing) state.frame = requestAnimationFrame(frame);
  element("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  document.body.dataset.playing = String(playing);
}

function goTo(time) {
  state.time = Math.max(timeline.begin, Math.min(timeline.end, time));
  show();
}

/** Pause at the next (1) or previous (-1) of some times in order. */
function step(times, direction, what) {
  setPlaying(false);
  const slack = 1e-7;
  const after = firstWhere(times.length, (i) => times[i] > state.time + slack);
  const before = firstWhere(times.length, (i) => times[i] >= state.time - slack) - 1;
  const index = direction > 0 ? after : before;
  if (index < 0 || index >= times.length) say(`No ${what} ${direction > 0 ? "after" : "before"} this.`);
  else goTo(times[index]);
  return index;
}

function stepMessage(direction) {
  const order = timeline.signals.filter(ofInterest).sort((a, b) => a.middle - b.middle);
  const message = order[step(order.map((m) => m.middle), direction, "message")];
  if (message) say(describe(message));
}

function stepHandover(direction) {
  const order = timeline.handovers.filter(ofInterest);
  const handover = order[step(order.map((h) => h.begin), direction, "handover")];
  if (handover) say(`${capital(handover.kind)} handover of ${stage.name(handover.node)}.`);
}

// ---- what is shown -------------------------------------------------------------------------------

const clock = (time) => `${time.toFixed(4)} s`;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function describe(message) {
  const fate = message.received === null ? "lost" : `${(1000 * (message.received - message.sent)).toFixed(1)} ms`;
  return `${caption(message)}, ${fate}, from ${stage.name(message.from)} to ${stage.name(message.to)}`;
}

/** Whether to slow down and to step for it: everything, or what the followed node takes part in. */
function ofInterest(item) {
  const { followed } = stage;
  return followed < 0 || item.node === followed || item.from === followed || item.to === followed;
}

function show() {
  const now = rate();
  stage.draw(state.time, now);
  const scrub = element("scrub");
  scrub.value = String(state.time);
  scrub.setAttribute("aria-valuetext", clock(state.time));
  element("time").textContent = clock(state.time);
  element("rate").textContent = now >= 1
    ? `${now.toFixed(1)} × real time` : `1/${Math.round(1 / now)} of real time`;
  list();
}

function list() {
  const rows = timeline.latest(state.time, LISTED, (message) => stage.concerns(message));
  const key = rows.map((m) => `${m.index}${m.gone <= state.time}`).join();
  if (key === state.listed) return;
  state.listed = key;
  element("messages").replaceChildren(...rows.map(listItem));
}

function listItem(message) {
  const item = document.createElement("li");
  const done = message.gone <= state.time;
  const fate = !done ? "under way" : message.received === null ? "lost" : "";
  item.className = message.received === null && done ? "lost" : done ? "" : "going";
  item.append(
    part("span", `dot ${family(message)}${isAnswer(message) ? " answer" : ""}`, ""),
    part("span", "when", message.sent.toFixed(4)),
    part("span", "what", caption(message)),
    part("span", "who", `${stage.name(message.from)} → ${stage.name(message.to)}`),
    part("span", "fate", fate),
  );
  return item;
}

function part(tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

const say = (text) => { element("said").textContent = text; };

// ---- following -----------------------------------------------------------------------------------

function follow(index) {
  stage.followed = index;
  element("follow").value = String(index);
  pace = new Pace(timeline, ofInterest);
  state.listed = "";
  drawMarks();
  show();
  say(index < 0 ? "Following nobody: all handovers are watched." : `Following ${stage.name(index)}.`);
}

/** Where on the bar handovers begin. */
function drawMarks() {
  const span = Math.max(1e-9, timeline.end - timeline.begin);
  element("marks").replaceChildren(...timeline.handovers.filter(ofInterest).map((handover) => {
    const mark = part("i", handover.complete ? "mark" : "mark open", "");
    mark.style.left = `${(100 * (handover.begin - timeline.begin)) / span}%`;
    mark.style.width = `${(100 * (handover.end - handover.begin)) / span}%`;
    return mark;
  }));
}

// ---- setting up ----------------------------------------------------------------------------------

function fillSelect(select, options, chosen) {
  for (const [value, text] of options) {
    const option = part("option", "", text);
    option.value = String(value);
    select.append(option);
  }
  select.value = String(chosen);
}

function fillLegend() {
  const kinds = new Map();
  for (const message of timeline.messages) {
    const kind = family(message);
    const label = kind === "data" ? "data" : kind === "dns" ? "DNS" : message.label;
    if (!kinds.has(kind)) kinds.set(kind, new Set());
    kinds.get(kind).add(label);
  }
  const entries = COLOURS.filter((kind) => kinds.has(kind)).map((kind) => {
    const item = document.createElement("li");
    item.append(part("span", `dot ${kind}`, ""), [...kinds.get(kind)].join(", "));
    return item;
  });
  const extra = [["dot answer", "answers"], ["cross", "lost"], ["ring", "in a handover"],
    ["dash", "link being made"]];
  for (const [name, text] of extra) {
    const item = document.createElement("li");
    item.append(part("span", name, name === "cross" ? "×" : ""), text);
    entries.push(item);
  }
  element("legend").replaceChildren(...entries);
}

function changeSpeed(direction) {
  const index = SPEEDS.indexOf(factor()) + direction;
  if (index < 0 || index >= SPEEDS.length) return;
  element("speed").value = String(SPEEDS[index]);
  show();
  say(`Speed ${SPEEDS[index]} times.`);
}

/** Keys that a control in the focus needs itself. */
function keptByControl(event) {
  const { target } = event;
  if (target instanceof HTMLSelectElement) return true;
  if (event.key === " ") return target instanceof HTMLButtonElement || target.type === "checkbox";
  return target.type === "range";
}

const KEYS = {
  " ": () => setPlaying(!state.playing),
  ArrowRight: (event) => (event.shiftKey ? stepHandover : stepMessage)(1),
  ArrowLeft: (event) => (event.shiftKey ? stepHandover : stepMessage)(-1),
  ArrowUp: () => changeSpeed(1),
  ArrowDown: () => changeSpeed(-1),
  Home: () => goTo(timeline.begin),
  End: () => goTo(timeline.end),
};

function onKey(event) {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.altKey || event.metaKey || keptByControl(event)) return;
  event.preventDefault();
  action(event);
}

function connect() {
  element("play").addEventListener("click", () => setPlaying(!state.playing));
  for (const [id, action] of [
    ["message-back", () => stepMessage(-1)], ["message-on", () => stepMessage(1)],
    ["handover-back", () => stepHandover(-1)], ["handover-on", () => stepHandover(1)],
  ]) element(id).addEventListener("click", action);
  element("scrub").addEventListener("input", (event) => goTo(Number(event.target.value)));
  element("speed").addEventListener("change", show);
  element("pacing").addEventListener("change", show);
  element("data").addEventListener("change", (event) => {
    stage.showData = event.target.checked;
    show();
  });
  element("follow").addEventListener("change", (event) => follow(Number(event.target.value)));
  element("stage").addEventListener("click", (event) => {
    const hit = stage.hit(event.offsetX, event.offsetY);
    follow(hit === stage.followed ? -1 : hit);
  });
  document.addEventListener("keydown", onKey);
  dark.addEventListener("change", () => { stage.readColours(); show(); });
  new ResizeObserver(() => { stage.resize(); show(); }).observe(element("stage"));
}

element("title").textContent = data.title;
element("description").textContent = [data.description, data.note].filter(Boolean).join(" ");
const scrub = element("scrub");
[scrub.min, scrub.max] = [String(timeline.begin), String(timeline.end)];
fillSelect(element("speed"), SPEEDS.map((speed) => [speed, `× ${speed}`]), 1);
fillSelect(element("follow"), [[-1, "nobody"], ...data.nodes.map((n, i) => [i, n.name])], -1);
fillLegend();
stage.readColours();
stage.resize();
connect();
follow(-1);
say("");
setPlaying(!still.matches);
