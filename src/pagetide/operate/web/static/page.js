// The page of `pagetide serve --web`: looks come as server-sent events; the rest is asked for when it is shown.

import { Curves } from "./curves.js";
import { PageMap } from "./page_map.js";

const $ = (id) => document.getElementById(id);
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const CURVES_EVERY_MS = 2000;
const MAP_EVERY_MS = 3000;
const AGAIN_MS = 3000;

export function formatSize(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${UNITS[unit]}`;
}

function formatTime(us) {
  return us < 10000 ? `${us} µs` : us < 1e7 ? `${Math.round(us / 1e3)} ms` : `${Math.round(us / 1e6)} s`;
}

const COLUMNS = [
  { name: "name", title: "guest", words: true },
  { name: "state", title: "state", words: true },
  { name: "ram_bytes", title: "memory", write: formatSize, seldom: true },
  { name: "held_bytes", title: "held", write: formatSize, bar: true },
  { name: "used_bytes", title: "uses", write: formatSize, seldom: true },
  { name: "target_bytes", title: "target", write: formatSize, seldom: true },
  { name: "balloon_bytes", title: "balloon", write: formatSize, seldom: true },
  { name: "returned_bytes", title: "returned", write: formatSize },
  { name: "refaulted_bytes", title: "came back", write: formatSize, seldom: true },
  { name: "lag_p99_us", title: "lag p99", write: formatTime, seldom: true },
  { name: "balloon", title: "balloon of", words: true, seldom: true },
];

let look = { vms: [], waiting: [], trouble: "" };
let sortedBy = COLUMNS.find((column) => column.name === "held_bytes");
let reversed = false;
let opened = null;
let mapTimes = [];
let chosenTime = null; // of the map, in seconds; null for the last one
const asked = { why: 0, change: 0 }; // how often, and how often another guest was opened: a late answer has a number before
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname); // not for whoever looks at the address, or at the history

const curves = new Curves($("levels"), $("flows"), formatSize);
const pageMap = new PageMap($("map"), $("map-block"), $("map-legend"), formatSize);

const goesDown = () => (sortedBy.words ? reversed : !reversed); // figures begin with the largest

function sorted() {
  const { name } = sortedBy;
  const known = look.vms.filter((vm) => vm[name] !== null);
  const unknown = look.vms.filter((vm) => vm[name] === null);
  const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);
  known.sort((one, other) => (goesDown() ? -1 : 1) * order(one[name], other[name]) || order(one.name, other.name));
  return [...known, ...unknown];
}

function drawHead() {
  $("guests").tHead.rows[0].replaceChildren(
    ...COLUMNS.map((column) => {
      const head = document.createElement("th");
      const button = document.createElement("button");
      head.scope = "col";
      head.className = `${column.seldom ? "seldom" : ""} ${column.words ? "words" : ""}`;
      if (column === sortedBy) head.setAttribute("aria-sort", goesDown() ? "descending" : "ascending");
      button.type = "button";
      button.textContent = column.title + (column === sortedBy ? (goesDown() ? " ▾" : " ▴") : "");
      button.addEventListener("click", () => {
        reversed = column === sortedBy && !reversed;
        sortedBy = column;
        drawHead();
        drawTable();
        $("guests").tHead.rows[0].cells[COLUMNS.indexOf(column)].firstChild.focus();
      });
      head.append(button);
      return head;
    }),
  );
}

function newRow(name) {
  const row = document.createElement("tr");
  row.dataset.guest = name;
  for (const column of COLUMNS) {
    const cell = row.insertCell();
    cell.className = `${column.seldom ? "seldom" : ""} ${column.words ? "words" : ""}`;
    cell.dataset.figure = column.name;
    if (column.name === "name") {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => open(name));
      cell.append(button);
    } else if (column.bar) {
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.setAttribute("aria-hidden", "true");
      bar.append(document.createElement("span"));
      cell.append(bar, document.createTextNode(""));
    } else {
      cell.append(document.createTextNode(""));
    }
  }
  return row;
}

function fillRow(row, vm) {
  row.className = vm.name === opened ? "chosen" : "";
  COLUMNS.forEach((column, index) => {
    if (column.name === "name") return;
    const cell = row.cells[index];
    const value = vm[column.name];
    const text = value === null ? "–" : column.write ? column.write(value) : value;
    cell.dataset.value = value;
    if (cell.lastChild.data !== text) cell.lastChild.data = text;
    if (column.bar) cell.firstChild.firstChild.style.width = `${Math.min(100, (100 * value) / Math.max(1, vm.ram_bytes))}%`;
  });
}

function drawTable() {
  const body = $("guests").tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.guest, row]));
  const wanted = sorted().map((vm) => {
    const row = rows.get(vm.name) || newRow(vm.name);
    fillRow(row, vm);
    return row;
  });
  const inPlace = wanted.length === body.rows.length && wanted.every((row, index) => row === body.rows[index]);
  if (!inPlace) {
    const focused = document.activeElement;
    body.replaceChildren(...wanted);
    if (body.contains(focused)) focused.focus();
  }
  const sum = (name) => look.vms.reduce((all, vm) => all + vm[name], 0);
  if (look.shows !== "run") $("totals").textContent = `${look.vms.length === 1 ? "1 guest" : `${look.vms.length} guests`}, ${formatSize(sum("held_bytes"))} held of ${formatSize(sum("ram_bytes"))}`;
  $("waiting").textContent = look.waiting.length ? `Sockets without a guest: ${look.waiting.join(", ")}` : "";
}

function say(text, isTrouble) {
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").className = isTrouble ? "trouble" : "";
}

async function told(path, parameters) {
  const answer = await fetch(`api/${path}?${new URLSearchParams(parameters)}`, { headers: { "X-Pagetide": "page" } });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

async function showCurves() {
  if (opened === null || document.hidden) return;
  const name = opened;
  const answer = await (await told("curves", { guest: name, span_s: $("span").value })).json();
  if (name !== opened) return;
  $("flows").hidden = answer.returned_bytes.every((value) => value === null);
  curves.show(answer);
  showEvents(answer.events);
}

function showEvents(events) {
  const items = events.slice(-50).reverse().map((event) => {
    const item = document.createElement("li");
    item.className = event.level;
    item.textContent = `${new Date(event.t_s * 1000).toLocaleTimeString()} ${event.level === "info" ? "" : `${event.level}: `}${event.text}`;
    return item;
  });
  if (!items.length) {
    items.push(document.createElement("li"));
    items[0].textContent = "nothing since the page's process was started";
  }
  $("events").replaceChildren(...items);
}

async function showMap() {
  if (opened === null || document.hidden || look.shows === "run") return;
  const name = opened;
  const time = chosenTime;
  const slider = $("map-slider");
  const answer = await (await told("map", time === null ? { guest: name } : { guest: name, t_s: time })).json();
  if (name !== opened || time !== chosenTime) return;
  slider.disabled = $("map-now").disabled = answer === null || answer.times.length < 2;
  pageMap.show(answer);
  if (answer === null) {
    $("map-time").textContent = "The map is being read.";
    return;
  }
  mapTimes = answer.times;
  slider.max = mapTimes.length - 1;
  slider.value = mapTimes.indexOf(answer.t_s);
  const when = `${time === null ? "as of" : "as it was at"} ${new Date(answer.t_s * 1000).toLocaleTimeString()}`;
  slider.setAttribute("aria-valuetext", when);
  $("map-time").textContent = when;
}

function open(name) {
  opened = name;
  asked.why += 1;
  asked.change += 1;
  chosenTime = null;
  mapTimes = [];
  curves.clear();
  pageMap.show(null);
  $("why").hidden = true;
  $("why").textContent = $("control-answer").textContent = "";
  $("guest").hidden = name === null;
  $("control").hidden = !token || look.vms.find((vm) => vm.name === name)?.account == null; // another's is not the daemon's
  if (name !== null) {
    $("guest-title").textContent = name;
    $("guest-title").focus();
    showCurves().catch(fail);
    showMap().catch(fail);
  }
  drawTable();
}

function fail(error) {
  say(String(error.message || error).trim(), true);
}

async function change(request) {
  asked.change += 1;
  const number = asked.change;
  const answer = await fetch("api/change", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
    body: JSON.stringify({ guest: opened, ...request }),
  });
  const text = answer.ok ? await answer.json() : { error: await answer.text(), note: null };
  if (number === asked.change) $("control-answer").textContent = text.error || text.note || "done";
}

$("control").addEventListener("submit", (event) => {
  event.preventDefault();
  const mib = Number($("target").value);
  if (mib > 0) change({ command: "set", target_bytes: Math.round(mib * 2 ** 20) }).catch(fail);
});
for (const button of $("control").querySelectorAll("[data-command]")) {
  const command = button.dataset.command;
  button.addEventListener("click", () => change(command === "no-target" ? { command: "set", no_target: true } : { command }).catch(fail));
}
$("close").addEventListener("click", () => {
  const name = opened;
  open(null);
  document.querySelector(`tr[data-guest="${CSS.escape(name)}"] button`)?.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && opened !== null && look.shows !== "run") $("close").click();
});
$("span").addEventListener("change", () => showCurves().catch(fail));
$("map-slider").addEventListener("input", () => {
  const place = Number($("map-slider").value);
  chosenTime = place === mapTimes.length - 1 ? null : mapTimes[place];
  showMap().catch(fail);
});
$("map-now").addEventListener("click", () => {
  chosenTime = null;
  showMap().catch(fail);
});
$("ask-why").addEventListener("click", async () => {
  asked.why += 1;
  const number = asked.why;
  $("why").hidden = false;
  $("why").textContent = "looking";
  let text;
  try {
    text = await (await told("why", { guest: opened })).text();
  } catch (error) {
    text = String(error.message);
  }
  if (number === asked.why) $("why").textContent = text;
});

function takeLook(event) {
  const taken = JSON.parse(event.data);
  if (!taken.vms) return;
  look = taken;
  say(look.trouble || (look.shows === "run" ? "a run" : "live"), Boolean(look.trouble));
  document.body.dataset.shows = look.shows || "guests";
  drawTable();
  if (look.shows === "run" && opened === null) open(look.vms[0].name);
}

function listen() {
  const source = new EventSource("api/looks");
  source.addEventListener("message", takeLook);
  source.addEventListener("error", () => {
    say("The page's process does not answer; trying again.", true);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS); // a browser gives up after a refusal
  });
}

drawHead();
listen();
setInterval(() => showCurves().catch(fail), CURVES_EVERY_MS);
setInterval(() => showMap().catch(fail), MAP_EVERY_MS);
