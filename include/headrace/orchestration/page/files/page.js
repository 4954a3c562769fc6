// Draws the timeline of windows and the table of alarms from two responses of the server, every
// half minute. Text is set as textContent: nothing here builds HTML from a string.
"use strict";

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const EVERY = 30 * SECOND;
const STATES = ["complete", "corrected", "unsettled", "missing", "quality failed"];
const PASSING = ["due", "not expected"];
const MEANING = {
  "complete": "computed and published",
  "corrected": "late readings arrived, and consumers received a correction",
  "unsettled": "computed before the sink had written everything; the next reconcile run computes it again",
  "missing": "not computed or not published; the next reconcile run computes it",
  "quality failed": "a quality check of this window failed",
  "due": "has just ended; its run is under way",
  "not expected": "before the installation began",
};

const query = new URLSearchParams(location.search);
const marked = readMarked();

function byId(id) {
  return document.getElementById(id);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function minute(moment) {
  return moment.toISOString().slice(0, 16).replace("T", " ");
}

function lasted(milliseconds) {
  const minutes = Math.max(0, Math.floor(milliseconds / 60000));
  const days = Math.floor(minutes / 1440);
  const hours = Math.floor(minutes / 60) % 24;
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// The windows that the link of a task instance names: ?start=…&stop=…
function readMarked() {
  const start = new Date(query.get("start"));
  const stop = new Date(query.get("stop"));
  const given = query.get("start") && query.get("stop") && start < stop;
  return given ? { start, stop } : null;
}

// The day to show: the last one, unless the marked windows are older.
function until() {
  if (!marked || Date.now() - marked.start < 23 * HOUR) return null;
  const end = Math.ceil(marked.stop / HOUR + 1) * HOUR;
  return end < Date.now() ? new Date(end).toISOString() : null;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (answer.status === 401) throw new Error("You are logged out. Log in to Airflow, then come back.");
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail || `Airflow answered with status ${answer.status}.`);
  return content;
}

function describe(item, seconds) {
  const start = new Date(item.start);
  const stop = new Date(start.getTime() + seconds * SECOND);
  const lines = [`${minute(start)} – ${minute(stop).slice(11)} UTC`, `${item.state}: ${MEANING[item.state]}`];
  if (item.readings !== null) {
    lines.push(`${item.readings} readings of ${item.rows} devices, revision ${item.revision}`);
  }
  if (item.failed.length) lines.push(`failed: ${item.failed.join(", ")}`);
  if (item.run) lines.push(item.run);
  return lines.join("\n");
}

function cell(item, seconds) {
  const element = make(item.link ? "a" : "span", `cell ${item.state.replace(" ", "-")}`);
  if (item.link) element.href = item.link;
  // Keyboard users skip complete windows.
  if (item.state === "complete") element.tabIndex = -1;
  element.dataset.start = item.start;
  element.dataset.tip = describe(item, seconds);
  element.setAttribute("aria-label", element.dataset.tip);
  const start = new Date(item.start);
  if (marked && marked.start <= start && start < marked.stop) element.classList.add("marked");
  return element;
}

// Labels above the cells, every ten minutes.
function axis(perHour) {
  const row = make("div", "hour");
  row.style.setProperty("--cells", perHour);
  for (let minutes = 0; minutes < 60; minutes += 10) {
    const index = (minutes * perHour) / 60;
    if (!Number.isInteger(index)) continue;
    const label = make("span", "", `:${String(minutes).padStart(2, "0")}`);
    label.style.gridColumnStart = index + 2;
    label.style.gridColumnEnd = `span ${Math.min(5, perHour - index)}`;
    row.append(label);
  }
  return row;
}

function drawTimeline(content) {
  const length = content.window_seconds * SECOND;
  const perHour = HOUR / length;
  const byStart = new Map(content.windows.map((item) => [Date.parse(item.start), item]));
  const end = Date.parse(content.until);
  const rows = [axis(perHour)];
  let day = "";
  for (let hour = Math.floor((end - 24 * HOUR) / HOUR) * HOUR; hour < end; hour += HOUR) {
    const label = new Date(hour).toISOString();
    if (label.slice(0, 10) !== day) {
      day = label.slice(0, 10);
      rows.push(make("div", "day", day));
    }
    const row = make("div", "hour");
    row.style.setProperty("--cells", perHour);
    row.append(make("span", "", label.slice(11, 16)));
    for (let index = 0; index < perHour; index += 1) {
      const item = byStart.get(hour + index * length);
      row.append(item ? cell(item, content.window_seconds) : make("span", "cell outside"));
    }
    rows.push(row);
  }
  byId("timeline").replaceChildren(...rows);
}

function drawLegend(counts) {
  const present = PASSING.filter((state) => counts[state]);
  const items = [...STATES, ...present].map((state) => {
    const item = make("li", counts[state] ? "" : "none");
    item.title = MEANING[state];
    item.append(make("span", `cell ${state.replace(" ", "-")}`), make("span", "", state), make("b", "", counts[state]));
    return item;
  });
  byId("legend").replaceChildren(...items);
}

function drawWindows(content) {
  byId("profile").textContent = content.profile;
  if (until()) byId("range").textContent = `of the 24 hours before ${minute(new Date(content.until))}`;
  drawLegend(content.counts);
  drawTimeline(content);
  byId("updated").textContent = `as of ${minute(new Date(content.now)).slice(11)} UTC`;
}

function drawAlarms(content) {
  const now = Date.parse(content.now);
  byId("device-name").textContent = content.id_field;
  const rows = content.alarms.map((alarm) => {
    const row = make("tr");
    const since = new Date(alarm.since);
    const level = make("td");
    level.append(make("span", "level", alarm.level));
    row.append(
      make("td", "", alarm.device),
      make("td", "", alarm.rule),
      level,
      make("td", "", minute(since)),
      make("td", "", lasted(now - since)),
    );
    return row;
  });
  byId("alarms").tBodies[0].replaceChildren(...rows);
  byId("alarms").hidden = !rows.length;
  byId("no-alarms").hidden = Boolean(rows.length);
  const shown = rows.length < content.total ? `, the newest ${rows.length} of them listed` : "";
  byId("alarms-total").textContent = content.total ? `${content.total}${shown}` : "";
}

async function refresh(path, draw, problem) {
  try {
    draw(await ask(path));
    problem.hidden = true;
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

function refreshAll() {
  if (document.hidden) return;
  const end = until();
  refresh(end ? `windows?until=${encodeURIComponent(end)}` : "windows", drawWindows, byId("windows-problem"));
  refresh("alarms", drawAlarms, byId("alarms-problem"));
}

function showTip(event) {
  const tip = byId("tip");
  const target = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = !target;
  if (!target) return;
  tip.textContent = target.dataset.tip;
  const place = target.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  const below = place.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.top = `${(below ? place.bottom + 8 : place.top - 8 - tip.offsetHeight) + scrollY}px`;
}

if (marked) {
  byId("marked").textContent = `Marked: the windows from ${minute(marked.start)} to ${minute(marked.stop)} UTC of the task you came from.`;
  byId("marked").hidden = false;
}
for (const name of ["mouseover", "focusin"]) byId("timeline").addEventListener(name, showTip);
for (const name of ["mouseleave", "focusout"]) byId("timeline").addEventListener(name, () => { byId("tip").hidden = true; });
document.addEventListener("visibilitychange", refreshAll);
setInterval(refreshAll, EVERY);
refreshAll();
