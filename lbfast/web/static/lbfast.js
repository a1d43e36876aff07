// The pages' own script: live figures, finding, folding, dialogs.  Without it every page still works; nothing is loaded from
// elsewhere, and text from lbfast is only ever set as text.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
// In the page's language: its words come with the page, values are put in for %(name)s.  English where there is none.
const TEXTS = JSON.parse(document.currentScript.dataset.words || "{}");
const say = (text, values = {}) => (TEXTS[text] || text).replace(/%\((\w+)\)s/g, (_, name) => values[name]);
const number = new Intl.NumberFormat("en");
const WORDS = { up: "Up", degraded: "Some down", down: "Down", checking: "Checking", drained: "Drained", drain: "Draining", halt: "Halted", eased: "Part drained" };

function size(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) { value /= 1000; at += 1; }
  return value.toFixed(at && value < 9.95 ? 1 : 0) + " " + units[at];
}

// What could reorder or hide text beside it is shown as its escape, as on the server.
function shown(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (char) => {
    const code = char.codePointAt(0);
    return code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u" + code.toString(16).padStart(4, "0");
  });
}

// --- menu, questions, dialogs ---------------------------------------------------------------------

$("[data-menu]")?.addEventListener("click", (event) => {
  const isShown = $("#menu").classList.toggle("shown");
  event.currentTarget.setAttribute("aria-expanded", String(isShown));
});

document.addEventListener("click", (event) => {
  const asks = event.target.closest("[data-ask]");
  const questions = asks ? [asks.dataset.ask, asks.dataset.askAgain].filter(Boolean) : [];
  if (!questions.every((question) => window.confirm(question))) event.preventDefault();
  const opens = event.target.closest("a[data-dialog]");
  if (opens && !event.ctrlKey && !event.metaKey && !event.shiftKey) { event.preventDefault(); openDialog(opens.href); }
  if (event.target.closest("dialog [data-close]")) { event.preventDefault(); $("#dialog").close(); }
});

async function openDialog(address) {
  const dialog = $("#dialog");
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = $("[data-dialog-part]", page);
    if (!answer.ok || !part) { location.href = address; return; }
    dialog.replaceChildren(document.adoptNode(part));
    dialog.setAttribute("aria-label", $("h1", dialog)?.textContent.trim() || "");
    dialog.showModal();
    lookAt($("h1", dialog));
  } catch { location.href = address; }
}

// From its top: what it is about is read before anything is typed.
function lookAt(heading) {
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus();
}

// A dialog's form is sent from within it: what is wrong, or only a forecast, is shown in the same dialog.
async function sendDialog(form, button) {
  const dialog = form.closest("dialog"), body = new URLSearchParams(new FormData(form, button));
  try {
    const answer = await fetch(form.action, { method: "POST", body, redirect: "manual", headers: { accept: "text/html" } });
    if (answer.type === "opaqueredirect") { location.href = form.dataset.next; return; }
    const part = $("[data-dialog-part]", new DOMParser().parseFromString(await answer.text(), "text/html"));
    if (!part) { location.href = form.dataset.next; return; }
    const name = button?.value;
    dialog.replaceChildren(document.adoptNode(part));
    const wrong = $('[aria-invalid="true"]', dialog);
    if (wrong) wrong.focus(); else $(`button[value="${name}"]`, dialog)?.focus({ preventScroll: true });
  } catch { form.submit(); }
}

// *Test now*: the answer is the same page with what the probe saw; only the part in the middle is exchanged.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (event.target.matches("dialog form[data-next]")) { event.preventDefault(); sendDialog(event.target, button); return; }
  if (!button || !(button.matches("[data-test]") || event.target.matches("[data-test]"))) return;
  event.preventDefault();
  testNow(event.target, button);
});

async function testNow(form, button) {
  const address = button.getAttribute("formaction") || form.action;
  const body = new URLSearchParams(new FormData(form));
  button.disabled = true;
  button.textContent += " …";
  try {
    const answer = await fetch(address, { method: "POST", body, headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = $("main", page);
    if (!main || answer.redirected) { location.href = answer.url; return; }
    $("main").replaceChildren(...[...main.childNodes].map((it) => document.adoptNode(it)));
    const told = $("main [data-test-part] .probe") || $("main .fault") || $("main .note.bad");
    told?.scrollIntoView({ block: "center" });
    ($("main button[formaction]") || $("main [data-test] button"))?.focus({ preventScroll: true });
  } catch { form.submit(); }
}

// --- clock ----------------------------------------------------------------------------------------

const clock = $("[data-clock]");
if (clock) {
  const tick = () => { clock.textContent = new Date().toISOString().replace("T", " ").slice(0, 19) + " UTC"; };
  tick();
  setInterval(tick, 1000);
}

// --- parts that are fetched again, pages that are looked at again -----------------------------------

for (const part of $$("[data-refresh]")) {
  const refresh = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(part.dataset.refresh, { headers: { accept: "text/html" } });
      if (!answer.ok) return;
      const open = $$("details", part).map((it) => it.open);
      part.replaceChildren(...new DOMParser().parseFromString(await answer.text(), "text/html").body.childNodes);
      $$("details", part).forEach((it, at) => { it.open = open[at] || false; });
    } catch { /* the next time */ }
  };
  refresh();
  setInterval(refresh, 5000);
}

const again = $("[data-again]");
if (again) setTimeout(() => location.reload(), Number(again.dataset.again));

// --- overview -------------------------------------------------------------------------------------

const table = $("table[data-live]");
let filter = "all";

function isProblem(state) { return state === "down" || state === "degraded"; }
function bodies() { return $$("tbody.service", table); }

function text(cell, value) {
  if (!cell || cell.textContent === value) return;
  cell.textContent = value;
}

function setState(row, state) {
  if (row.dataset.state === state) return;
  row.dataset.state = state;
  const mark = $('[data-cell="state"]', row);
  mark.className = "state " + state;
  const shape = $("#shape-" + state);
  if (shape) $("svg", mark).replaceWith(shape.content.firstElementChild.cloneNode(true));
  mark.lastElementChild.textContent = say(WORDS[state] || state);
  row.classList.remove("changed");
  void row.offsetWidth;
  row.classList.add("changed");
}

function showService(service, body) {
  if (!body) return;
  const head = $("tr.vs", body);
  head.dataset.state = body.dataset.state;
  setState(head, service.state);
  body.dataset.state = service.state;
  body.toggleAttribute("data-taken", service.taken);
  text($('[data-cell="connections"]', head), number.format(service.connections));
  if (service.entries !== null) text($('[data-cell="entries"]', head), number.format(service.entries));
  for (const real of service.reals) {
    const row = $$("tr.rs[data-real]", body).find((it) => it.dataset.real === real.label);
    if (!row) continue; // a closed service of many has no rows: they come when it is opened
    setState(row, real.state);
    text($('[data-cell="connections"]', row), number.format(real.connections));
    text($('[data-cell="weight"]', row), String(real.weight));
    text($('[data-cell="clients"]', row), real.clients === null ? "" : number.format(real.clients));
    const reason = $('[data-cell="reason"]', row);
    text(reason, shown(real.reason));
    reason.title = shown(real.reason);
    if (row.dataset.admin !== real.admin) {
      row.dataset.admin = real.admin;
      for (const group of $$("[data-when]", row)) group.hidden = group.dataset.when !== real.admin;
    }
  }
}

function byLabel() { return new Map(bodies().map((it) => [it.dataset.service, it])); }

const sparks = new Map(); // by service: its last points, of those that have had a connection

function drawSparks(newest) {
  const found = byLabel();
  for (const [label, body] of found) {
    const path = $(".spark path", body);
    if (!sparks.has(label) && path?.dataset.points) sparks.set(label, path.dataset.points.split(",").map(Number));
    if (!sparks.has(label) && label in newest) sparks.set(label, []);
    const points = sparks.get(label);
    if (!points) continue;
    points.push(newest[label] || 0);
    while (points.length > 60) points.shift();
    const step = 100 / 59, top = Math.max(1, ...points), left = 100 - step * (points.length - 1);
    path?.setAttribute("d", "M" + points.map((value, at) => `${(left + step * at).toFixed(1)} ${(19 - 18 * value / top).toFixed(1)}`).join("L"));
    if (!points.some(Boolean)) sparks.delete(label);
  }
}

const FIGURES = { connections: number.format, bytes_in: (it) => size(it) + "/s", bytes_out: (it) => size(it) + "/s", cpu: (it) => it + " %", memory: (it) => it + " %" };

function showFigures(figures) {
  for (const cell of $$("[data-figure]")) {
    const value = figures[cell.dataset.figure];
    if (value !== undefined && value !== null) text(cell, String((FIGURES[cell.dataset.figure] || String)(value)));
  }
}

function fold(body, isOpen) {
  $("[data-toggle]", body).setAttribute("aria-expanded", String(isOpen));
  if (isOpen && "find" in body.dataset) { loadReals(body); return; }
  for (const row of $$("tr:not(.vs)", body)) row.hidden = !isOpen;
}

// Of many services the closed ones come without their real servers.
async function loadReals(body) {
  const made = await fetchRows("?service=" + encodeURIComponent(body.dataset.service));
  const rows = made && $$("tbody.service tr:not(.vs)", made);
  if (!rows || !("find" in body.dataset)) return;
  delete body.dataset.find;
  body.append(...rows.map((it) => document.adoptNode(it)));
  fold(body, $("[data-toggle]", body).getAttribute("aria-expanded") === "true");
}

async function fetchRows(query) {
  const answer = await fetch("/lbadmin/overview/rows" + query);
  if (!answer.ok) return null;
  return $("table", new DOMParser().parseFromString(`<table>${await answer.text()}</table>`, "text/html"));
}

async function foldAll(isOpen) {
  if (isOpen && bodies().some((it) => "find" in it.dataset)) await refreshRows("?open=all");
  else for (const body of bodies()) fold(body, isOpen);
}

function applyFilter() {
  const wanted = ($("[data-search]")?.value || "").trim().toLowerCase();
  let found = 0, problems = 0, drained = 0;
  for (const body of bodies()) {
    const admins = "taken" in body.dataset;
    const problem = isProblem(body.dataset.state);
    problems += problem; drained += admins;
    const fits = filter === "all" || (filter === "problem" && problem) || (filter === "drained" && admins);
    body.hidden = !(fits && (!wanted || (body.textContent.toLowerCase() + (body.dataset.find || "")).includes(wanted)));
    found += !body.hidden;
  }
  text($('[data-count="problem"]'), problems ? String(problems) : "");
  text($('[data-count="drained"]'), drained ? String(drained) : "");
  if (wanted || filter !== "all") text($("[data-found]"), say("Services shown: %(found)s of %(all)s", { found, all: bodies().length }));
}

async function refreshRows(query = "") {
  const rows = await fetchRows(query);
  if (!rows) return;
  if (!$("tbody.service", rows) !== !bodies().length) { location.reload(); return; }
  const open = new Map(query ? [] : bodies().map((it) => [it.dataset.service, $("[data-toggle]", it).getAttribute("aria-expanded")]));
  const caption = $("caption", table);
  table.replaceChildren(...(caption ? [caption] : []), ...[...rows.children].map((it) => document.adoptNode(it)));
  for (const body of bodies()) if (open.has(body.dataset.service)) fold(body, open.get(body.dataset.service) === "true");
  applyFilter();
}

function follow() {
  const source = new EventSource("/lbadmin/overview/live");
  const away = $("[data-away]");
  const back = () => { away.hidden = true; };
  source.addEventListener("host", (event) => { back(); showFigures(JSON.parse(event.data)); });
  source.addEventListener("services", (event) => { const found = byLabel(); for (const it of JSON.parse(event.data)) showService(it, found.get(it.label)); applyFilter(); });
  source.addEventListener("sparks", (event) => drawSparks(JSON.parse(event.data)));
  source.addEventListener("shape", () => (table ? refreshRows() : location.reload()));
  source.addEventListener("away", (event) => { away.textContent = shown(say("The figures are old, lbfast does not answer: %(why)s", { why: JSON.parse(event.data).message })); away.hidden = false; });
  source.addEventListener("ended", () => { source.close(); location.reload(); });
  let wasOpen = false;
  source.addEventListener("open", () => { if (wasOpen && table) refreshRows(); wasOpen = true; });
  source.addEventListener("error", () => {
    away.textContent = say("The connection to this page's server is lost; it is tried again. Traffic is not concerned.");
    away.hidden = false;
  });
  addEventListener("pagehide", () => source.close());
}

if (table) {
  // On a phone the style sheet puts words beside figures; they are ours to translate.
  const beside = { conns: say("conns"), weight: say("weight"), clients: say("clients") };
  for (const [name, word] of Object.entries(beside)) table.style.setProperty("--" + name, JSON.stringify(word));
  table.addEventListener("click", (event) => {
    const toggle = event.target.closest("[data-toggle]");
    if (toggle) fold(toggle.closest("tbody"), toggle.getAttribute("aria-expanded") !== "true");
  });
  $("[data-search]").addEventListener("input", applyFilter);
  for (const button of $$("[data-filter]")) button.addEventListener("click", () => {
    filter = button.dataset.filter;
    for (const other of $$("[data-filter]")) other.setAttribute("aria-pressed", String(other === button));
    applyFilter();
  });
  for (const button of $$("[data-fold]")) button.addEventListener("click", () => foldAll(button.dataset.fold === "open"));
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.altKey || event.metaKey) return;
    const seen = bodies().filter((it) => !it.hidden);
    const here = seen.findIndex((it) => it.contains(document.activeElement));
    if (event.key === "/") { event.preventDefault(); $("[data-search]").focus(); }
    if (event.key === "j" || event.key === "k") {
      const next = seen[event.key === "j" ? Math.min(here + 1, seen.length - 1) : Math.max(here - 1, 0)];
      $("tr.vs", next || table)?.focus();
    }
    if (event.key === "o" && here >= 0) fold(seen[here], $("[data-toggle]", seen[here]).getAttribute("aria-expanded") !== "true");
  });
  applyFilter();
}
if ($("[data-away]")) follow();

// --- forms and the live tail ----------------------------------------------------------------------

for (const select of $$("select[data-submit]")) select.addEventListener("change", () => select.form.requestSubmit());

const tail = $("[data-tail]");
if (tail) {
  const source = new EventSource(tail.dataset.tail);
  const pause = $("[data-pause]");
  let isPaused = false, missed = 0, known = null;  // lines shown before the stream began anew; null: the server's rows
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    if (!isPaused && missed) location.reload();
  });
  // The newest come once more, after a break of the connection, too: what is there already stays, and comes once.
  source.addEventListener("afresh", () => {
    missed = 0;
    if (known || isPaused) known = new Set(Array.from(tail.children, (row) => row.dataset.line));
    else { tail.replaceChildren(); known = new Set(); }
  });
  source.addEventListener("line", (event) => {
    if (known.has(event.data)) return;
    if (isPaused) { missed += 1; $("[data-tail-state]").textContent = say("More: %(count)s", { count: missed }); return; }
    const line = JSON.parse(event.data), row = document.createElement("tr");
    const cells = [line.at, line.event, line.where, line.text].map((value) => Object.assign(document.createElement("td"), { textContent: value }));
    cells[0].className = "nowrap";
    const tag = Object.assign(document.createElement("span"), { className: "tag " + line.tone, textContent: line.event });
    cells[1].replaceChildren(tag);
    row.append(...cells);
    row.dataset.line = event.data;
    tail.prepend(row);
    while (tail.children.length > 500) tail.lastElementChild.remove();
  });
  addEventListener("pagehide", () => source.close());
}
