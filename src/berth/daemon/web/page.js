"use strict";
// Keeps the page fresh: the daemon says that something changed, and the parts that differ are put in place.

const byId = (id) => document.getElementById(id);
const parts = ["map", "networks", "endpoints", "ports", "leases", "examined", "findings"];
const shown = {};
let counters = {};
let before = {};
let beforeAt = 0;
let countersAt = 0;
let asking = false;
let again = false;

function live(text, kind) {
  byId("live").textContent = text;
  byId("live").className = kind;
}

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    do {
      again = false;
      const answer = await fetch("/web/parts");
      if (answer.ok) put(await answer.json());
    } while (again);
  } catch {
    live("the daemon does not answer", "off");
  } finally {
    asking = false;
  }
}

function put(fresh) {
  const known = new Set([...document.querySelectorAll("tr[data-id]")].map((row) => row.dataset.id));
  for (const part of parts) {
    const place = byId(part);
    if (!place || shown[part] === fresh[part]) continue;
    shown[part] = fresh[part];
    const { scrollLeft, scrollTop } = place;
    const unfolded = place.querySelector("details")?.open;
    place.innerHTML = fresh[part]; // made by the daemon's templates, which escape all that anybody typed
    place.scrollTo(scrollLeft, scrollTop);
    if (unfolded) place.querySelector("details")?.setAttribute("open", "");
    if (part !== "endpoints") continue;
    for (const row of document.querySelectorAll("tr[data-id]")) {
      if (!known.has(row.dataset.id)) row.classList.add("new");
    }
  }
  byId("findings-part").hidden = !fresh.examined.trim();
  filter();
  traffic();
  times();
  suggest();
}

function span(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = Math.max(units.findIndex(([size]) => seconds >= size), 0);
  const [size, name] = seconds < 1 ? units[3] : units[at];
  const next = units[at + 1];
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  const text = `${Math.floor(seconds / size)} ${name}`;
  return rest && size > 60 ? `${text} ${rest} ${next[1]}` : text;
}

function times() {
  for (const element of document.querySelectorAll("time[data-until]")) {
    const left = Number(element.dataset.until) - Date.now() / 1000;
    const text = left > 0 ? span(left) : "over";
    element.title = new Date(Number(element.dataset.until) * 1000).toLocaleString();
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("time[data-at]")) {
    element.textContent = new Date(Number(element.dataset.at) * 1000).toLocaleTimeString();
  }
}

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("tr[data-id]")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function amount(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

function traffic() {
  const seconds = (countersAt - beforeAt) / 1000;
  for (const row of document.querySelectorAll("tr[data-link]")) {
    const now = counters[row.dataset.link];
    const then = before[row.dataset.link];
    for (const [column, cell] of ["rx", "tx"].entries()) {
      const place = row.querySelector(`.${cell}`);
      let text = now ? amount(now[column]) : "–";
      const more = now && then && seconds > 0 ? (now[column] - then[column]) / seconds : 0;
      if (more >= 1) text += ` (${amount(more)}/s)`;
      if (place.textContent !== text) place.textContent = text;
    }
  }
}

function follow() {
  const stream = new EventSource("/web/stream");
  stream.addEventListener("hello", () => {
    live("live", "on");
    refresh(); // what happened between the page and the stream, or while the daemon was away
  });
  stream.addEventListener("change", refresh);
  stream.addEventListener("traffic", (event) => {
    [before, beforeAt] = [counters, countersAt];
    [counters, countersAt] = [{ ...counters, ...JSON.parse(event.data) }, performance.now()];
    traffic();
    times();
  });
  stream.onerror = () => {
    live("not connected", "off");
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  };
  addEventListener("pagehide", () => stream.close(), { once: true });
}

// --- the doctor ---

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousElementSibling); // to be copied by hand
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

async function examine() {
  byId("examine").disabled = true;
  try {
    await fetch("/web/examine"); // what it finds comes by the stream
  } catch {
    live("the daemon does not answer", "off");
  }
  setTimeout(() => (byId("examine").disabled = false), 1000);
}

byId("examine").addEventListener("click", examine);
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// --- forms, on a page that may change things ---

function request(form) {
  const said = {};
  for (const field of form.elements) {
    if (!field.name || !field.value.trim()) continue;
    said[field.name] = "list" in field.dataset ? field.value.split(/[\s,]+/).filter(Boolean) : field.value.trim();
  }
  const { path, method } = form.dataset;
  if (method === "DELETE") return [`${path}?${new URLSearchParams(said)}`, { method }];
  return [path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) }];
}

async function submit(event) {
  event.preventDefault();
  const form = event.target;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch(...request(form));
    const text = await answer.text();
    const good = answer.ok;
    byId("said").className = good ? "" : "bad";
    byId("said").textContent = good ? `${form.querySelector("h3").textContent}: done` : message(text);
    if (good) form.reset();
  } catch {
    byId("said").className = "bad";
    byId("said").textContent = "the daemon does not answer";
  } finally {
    button.disabled = false;
  }
}

// What can be named in the forms, by what the page shows.
function suggest() {
  for (const [list, names] of [["known-networks", ".net h3"], ["known-endpoints", "#endpoints tbody th"]]) {
    const options = [...document.querySelectorAll(names)].map((element) => new Option(element.textContent));
    byId(list)?.replaceChildren(...options);
  }
}

function message(text) {
  try {
    return JSON.parse(text).message;
  } catch {
    return text;
  }
}

byId("filter").addEventListener("input", filter);
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", submit);
follow();
