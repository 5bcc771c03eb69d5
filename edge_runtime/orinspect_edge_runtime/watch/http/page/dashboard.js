import { draw } from "/chart.js";

const STATES = {
  accept: ["GOOD", "accept"], review: ["REVIEW", "review"], reject: ["REJECT", "reject"], failed: ["NO VERDICT", "failed"],
  wait: ["WAITING", "wait"], camera: ["CAMERA LOST", "camera"], black: ["NO LIGHT", "camera"], frozen: ["PICTURE FROZEN", "camera"],
  offline: ["NO CONNECTION", "offline"], hangs: ["WATCH HANGS", "offline"],
};
// A reject on a fast line must stay long enough to be seen.
const HELD_MS = { reject: 1500, review: 800, failed: 800 };
const SILENT_MS = 3500, OLD_S = 10, LOOP_SILENT_S = 5, PICTURE_EVERY_MS = 200, MOST_POINTS = 600;

const $ = (id) => document.getElementById(id);
const points = [];
let status = null, heardAt = Date.now(), shown = null, shownAt = 0, clockAhead = 0, rate = null, before = null;

// ---- what comes in -------------------------------------------------------------------------------------------------

function listen() {
  const source = new EventSource("/api/events");
  source.addEventListener("verdicts", (message) => { heardAt = Date.now(); takeVerdicts(JSON.parse(message.data)); });
  source.addEventListener("status", (message) => { heardAt = Date.now(); takeStatus(JSON.parse(message.data)); });
  source.onerror = () => {
    // EventSource goes on by itself, except after an answer that is no stream: then the token may have changed.
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    setTimeout(() => ask("/api/status").then(listen, listen), 2000);
  };
}

function takeVerdicts(rows) {
  for (const [number, at, outcome, score, threshold, latency, id, error] of rows) {
    if (points.length && number <= points[points.length - 1].number) points.length = 0;
    points.push({ number, at, outcome, score, threshold, latency, id, error });
  }
  points.splice(0, Math.max(0, points.length - MOST_POINTS));
  const fresh = points.slice(-rows.length);
  const worst = ["reject", "review", "failed"].map((o) => fresh.findLast((p) => p.outcome === o)).find(Boolean);
  hold(worst && Date.now() - heardAt < 1000 && fresh.length < 100 ? worst : fresh[fresh.length - 1]);
  if (fresh.some((p) => p.outcome === "reject" || p.outcome === "review")) later(showRejects);
  show();
  later(showChart);
  fetchPicture();
}

function hold(point) {
  const held = shown && Date.now() - shownAt < (HELD_MS[shown.outcome] || 0);
  const graver = ["accept", "failed", "review", "reject"];
  if (held && graver.indexOf(point.outcome) < graver.indexOf(shown.outcome)) return;
  shown = point;
  shownAt = Date.now();
}

function takeStatus(told) {
  clockAhead = told.now - Date.now() / 1000;
  if (before && told.told_at > before.told_at) rate = Math.max(0, (told.frames - before.frames) / (told.told_at - before.told_at));
  if (!before || told.told_at > before.told_at) before = told;
  if (status && status.running.name !== told.running.name) fillRecipe(told);
  status = told;
  show();
  showPanels();
  showTeach();
}

// ---- the verdict ---------------------------------------------------------------------------------------------------

function state() {
  if (Date.now() - heardAt > SILENT_MS) return "offline";
  if (!status) return "wait";
  if (status.now - status.told_at + (Date.now() - heardAt) / 1000 > LOOP_SILENT_S) return "hangs";
  if (status.camera.startsWith("lost")) return "camera";
  if (status.camera) return status.camera;
  const newest = points[points.length - 1];
  if (!newest) return "wait";
  if (Date.now() - shownAt > (HELD_MS[shown.outcome] || 0)) shown = newest;
  return shown.outcome;
}

function show() {
  const now = state(), [word, shape] = STATES[now] || STATES.failed;
  const judged = now in { accept: 1, review: 1, reject: 1, failed: 1 };
  document.body.dataset.state = shape === "camera" || shape === "offline" ? shape : now;
  text("word", word);
  $("word").classList.toggle("long", word.length > 6);
  if ($("shape").getAttribute("href") !== `#shape-${shape}`) $("shape").setAttribute("href", `#shape-${shape}`);
  text("why", why(now));
  const cover = { camera: "The camera is lost", black: "The picture is black", frozen: "The picture does not change", offline: "No connection: this picture is old", hangs: "The watch does not answer: this picture is old" }[now];
  $("cover").hidden = !cover;
  text("cover", cover || "");
  const age = judged && shown ? Date.now() / 1000 + clockAhead - shown.at : 0;
  document.body.classList.toggle("old", age > OLD_S);
  text("age", judged ? ago(age) : "");
  document.title = `${word} · orinspect`;
  showScore(judged ? shown : null);
}

function why(now) {
  const word = {
    accept: "", review: "A person should look at this part", reject: "Above the threshold",
    failed: (shown && shown.error) || "The frame could not be judged", wait: "No frame was judged yet",
    camera: status ? status.camera.replace(/^lost: /, "") : "", black: "Check the light and the lens cap",
    frozen: "Check the camera and its cable", offline: "Trying again. The line may run on unseen.", hangs: "The loop gave no sign of life",
  }[now];
  return word === undefined ? "" : word;
}

function showScore(point) {
  const threshold = point ? point.threshold : status && status.running.threshold;
  text("threshold", threshold === null ? "–" : threshold.toFixed(2));
  const score = point && point.score !== null ? point.score : null;
  text("score", score === null ? "–" : score.toFixed(2));
  // The mark stands at two thirds: a score of the threshold reaches it.
  const share = score === null || !(threshold > 0) ? 0 : Math.max(0, Math.min(1, (score / threshold) * 0.666));
  $("gauge-fill").style.width = `${(share * 100).toFixed(1)}%`;
  $("gauge").setAttribute("aria-label", score === null ? "No score" : `Score ${score.toFixed(2)}, threshold ${threshold.toFixed(2)}`);
}

function showChart() {
  const threshold = points.length ? points[points.length - 1].threshold : status ? status.running.threshold : 1;
  draw($("chart"), points, threshold);
  const above = points.filter((p) => p.score !== null && p.score > p.threshold).length;
  $("chart").setAttribute("aria-label", `The last ${points.length} scores; ${above} of them above the threshold ${threshold.toFixed(2)}`);
}

// ---- the picture: asked for only while this page is seen -----------------------------------------------------------

let asking = false, askedAt = 0, missed = false;
async function fetchPicture() {
  if (document.hidden) return;
  if (asking || Date.now() - askedAt < PICTURE_EVERY_MS) {
    if (!missed) { missed = true; setTimeout(() => { missed = false; fetchPicture(); }, PICTURE_EVERY_MS); }
    return;
  }
  asking = true;
  askedAt = Date.now();
  try {
    const answer = await fetch(`/api/live.jpg?heat=${$("heat").checked ? 1 : 0}`);
    if (answer.status === 200) {
      const url = URL.createObjectURL(await answer.blob()), image = $("live"), old = image.src;
      image.onload = () => { if (old.startsWith("blob:")) URL.revokeObjectURL(old); };
      image.src = url;
      image.hidden = false;
      image.alt = `The newest picture of the line: ${answer.headers.get("x-outcome")}`;
      $("no-picture").hidden = true;
    }
  } catch { /* the verdict panel says that there is no connection */ }
  asking = false;
}

// ---- panels --------------------------------------------------------------------------------------------------------

function showPanels() {
  const s = status, done = s.outcomes, count = (name) => done[name] || 0;
  const share = s.frames ? `${((100 * count("reject")) / s.frames).toFixed(1)} %` : "–";
  text("source", s.source);
  text("recipe", s.running.name);
  $("leave").hidden = !s.token;
  text("runs", `${s.runs}, recipe ${s.running.name} of ${s.running.good_images} good images`);
  list("counts", [
    ["Frames", s.frames.toLocaleString("en")], ["Good", count("accept").toLocaleString("en")], ["Reviews", count("review").toLocaleString("en")],
    ["Rejects", count("reject").toLocaleString("en")], ["Reject share", share], ["No verdict", count("failed").toLocaleString("en")],
    ["Dropped", s.dropped_frames.toLocaleString("en")], ["Frames a second", rate === null ? "–" : rate.toFixed(1)],
    ["Latency p50", `${round(s.latency_ms.p50)} ms`], ["Latency p99", `${round(s.latency_ms.p99)} ms`],
  ]);
  list("sinks", Object.entries(s.sinks).map(([name, one]) => [
    name, one.trouble || `${one.delivered.toLocaleString("en")} delivered${one.dropped ? `, ${one.dropped} dropped` : ""}`, Boolean(one.trouble || one.dropped),
  ]));
  list("board", board(s.board));
  $("drift-card").hidden = !s.drift;
  if (s.drift) list("drift", Object.entries(s.drift).map(([name, value]) => [name.replaceAll("_", " "), told(value)]));
}

function board(b) {
  if (b.trouble) return [["Sensors", b.trouble]];
  const rows = [];
  if (b.watts !== null) rows.push(["Power", `${b.watts.toFixed(1)} W`]);
  for (const [name, value] of Object.entries(b.temperatures_c)) rows.push([name, `${value.toFixed(0)} °C`]);
  if (b.gpu_mhz !== null) rows.push(["GPU clock", `${b.gpu_mhz.toFixed(0)} MHz`]);
  if (b.cpu_mhz.length) rows.push(["CPU clock", `${Math.max(...b.cpu_mhz).toFixed(0)} MHz`]);
  if (b.alerts.length) rows.push(["Throttled by", b.alerts.join(", "), true]);
  return rows;
}

function told(value) {
  if (typeof value === "number") return String(round(value));
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

function list(id, rows) {
  const key = JSON.stringify(rows);
  if ($(id).dataset.key === key) return;
  $(id).dataset.key = key;
  $(id).replaceChildren(...rows.map(([name, value, trouble]) => {
    const row = make("div"), dd = make("dd", value);
    dd.className = trouble ? "trouble" : "";
    row.append(make("dt", name), dd);
    return row;
  }));
}

async function showRejects() {
  const { verdicts } = await ask("/api/verdicts?outcome=reject&outcome=review&limit=16");
  $("no-rejects").hidden = verdicts.length > 0;
  $("strip").replaceChildren(...verdicts.map((verdict) => {
    const item = make("li"), button = make("button"), image = make("img");
    button.type = "button";
    button.className = verdict.outcome;
    image.alt = `${STATES[verdict.outcome][0]}, score ${verdict.score.toFixed(2)}`;
    image.loading = "lazy";
    if (verdict.has_picture) image.src = `/api/verdicts/${verdict.id}/picture.jpg`;
    const caption = make("span");
    caption.append(make("b", STATES[verdict.outcome][0]), ` ${verdict.score.toFixed(2)}`, make("br"), clock(verdict.judged_at));
    button.append(image, caption);
    button.onclick = () => openDetail(verdict);
    item.append(button);
    return item;
  }));
}

function openDetail(verdict) {
  text("detail-title", `${STATES[verdict.outcome][0]} at ${clock(verdict.judged_at)}`);
  $("detail-picture").src = `/api/verdicts/${verdict.id}/picture.jpg`;
  $("detail-heat").hidden = !verdict.has_map;
  if (verdict.has_map) $("detail-map").src = `/api/verdicts/${verdict.id}/map.jpg`;
  list("detail-facts", [
    ["Score", `${verdict.score.toFixed(2)} (threshold ${verdict.threshold.toFixed(2)})`], ["Recipe", verdict.recipe],
    ["Source", verdict.source], ["Latency", `${round(verdict.latency_ms)} ms`],
  ]);
  text("detail-told", "");
  $("fine").disabled = false;
  $("fine").onclick = () => wasFine(verdict);
  $("detail").showModal();
}

// ---- recipes, teach, feedback --------------------------------------------------------------------------------------

async function openRecipes() {
  text("recipes-told", "");
  $("recipes").showModal();
  fillRecipe(status);
}

async function fillRecipe(told) {
  if (!told || !$("recipes").open) return;
  const { recipes, running } = await ask("/api/recipes");
  $("recipe-list").replaceChildren(make("legend", "Judge with"), ...recipes.map((name) => {
    const label = make("label"), input = make("input");
    Object.assign(input, { type: "radio", name: "recipe", value: name, checked: name === running });
    label.className = "switch";
    label.append(input, ` ${name}${name === running ? " (runs now)" : ""}`);
    return label;
  }));
  await showHistory(running);
}

async function runRecipe(event) {
  event.preventDefault();
  const name = new FormData(event.target).get("recipe"), button = event.submitter;
  button.disabled = true;
  text("recipes-told", `Opening and verifying ${name} …`);
  try {
    await ask(`/api/recipes/${encodeURIComponent(name)}/run`, { method: "POST" });
    text("recipes-told", `${name} judges now.`);
    $("recipes").close();
    toast(`Recipe ${name} judges now.`);
  } catch (error) { text("recipes-told", error.message); }
  button.disabled = false;
}

async function startTeach(event) {
  event.preventDefault();
  const form = event.target;
  const lesson = {
    name: form.elements.name.value, frames: Number(form.elements.frames.value), every_s: Number(form.elements.every_s.value),
    replace: form.elements.replace.checked, go_on: form.elements.go_on.checked,
  };
  text("teach-told", "");
  try {
    status.teach = await ask("/api/teach", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(lesson) });
    showTeach();
  } catch (error) { text("teach-told", error.message); }
}

async function wasFine(verdict) {
  $("fine").disabled = true;
  text("detail-told", "Taking it into the recipe …");
  try {
    const edit = await ask(`/api/verdicts/${verdict.id}/fine`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ note: "this was fine, said at the dashboard" }),
    });
    $("detail").close();
    toast(`Taken into ${verdict.recipe} as a good part; it would score ${number(edit.score_after)} now.`, () => undo(verdict.recipe));
  } catch (error) {
    $("fine").disabled = false;
    text("detail-told", error.message);
  }
}

async function undo(recipe) {
  try {
    const edit = await ask(`/api/recipes/${encodeURIComponent(recipe)}/undo`, { method: "POST" });
    toast(`${recipe} is as before: ${edit.message}.`);
    if ($("recipes").open) fillRecipe(status);
  } catch (error) { toast(error.message); }
}

async function showHistory(recipe) {
  const { edits } = await ask(`/api/recipes/${encodeURIComponent(recipe)}/history`);
  const rows = edits.slice(-4).reverse().map((edit) => make("li", `${new Date(edit.at).toLocaleString()}: ${edit.message}`));
  const list = make("ul"), button = make("button", "Undo the last change");
  list.append(...rows);
  button.type = "button";
  button.onclick = () => undo(recipe);
  $("history").replaceChildren(...(rows.length ? [make("h3", `Changes of ${recipe}`), list, button] : []));
}

let taught = "";
function showTeach() {
  const t = status.teach, busy = t.state === "collecting" || t.state === "fitting";
  const words = {
    collecting: `Teaching ${t.recipe}: let good parts pass, ${t.taken} of ${t.wanted}`, fitting: `Teaching ${t.recipe}: fitting, ${Math.round(100 * t.progress)} %`,
    failed: `Teaching ${t.recipe} failed: ${t.error}. The old recipe goes on; the parts are kept.`,
  };
  const alarms = Object.entries(status.alarms || {}).filter(([name]) => name !== "camera").map(([name, told]) => `${name}: ${told}`);
  const share = t.state === "fitting" ? t.progress : t.wanted ? t.taken / t.wanted : 0;
  const said = busy ? words[t.state] : alarms.length ? alarms.join(" · ") : words[t.state] || "";
  $("banner").hidden = !said;
  $("banner").classList.toggle("trouble", !busy);
  text("banner-text", said);
  $("banner-bar").hidden = !busy;
  $("banner-bar").value = $("teach-bar").value = share;
  $("teach-fields").hidden = busy;
  $("teach-progress").hidden = !busy;
  text("teach-text", words[t.state] || "");
  $("teach-start").hidden = busy;
  $("teach-cancel").hidden = !busy;
  if (taught && taught !== t.state && t.state === "done") { toast(`Recipe ${t.recipe} was taught and judges now.`); $("teach").close(); }
  taught = t.state;
}

// ---- small things --------------------------------------------------------------------------------------------------

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) { location.assign("/login"); throw new Error("a token is needed"); }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

let toastTimer = 0;
function toast(words, undo) {
  text("toast-text", words);
  $("toast").hidden = false;
  $("toast-undo").hidden = !undo;
  $("toast-undo").onclick = undo || null;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, undo ? 20000 : 5000);
}

const waiting = new Map();
function later(job) {
  if (waiting.has(job)) return;
  waiting.set(job, setTimeout(() => { waiting.delete(job); Promise.resolve(job()).catch(() => {}); }, job === showRejects ? 700 : 100));
}

function text(id, words) { if ($(id).textContent !== words) $(id).textContent = words; }
function make(kind, words) { const element = document.createElement(kind); if (words !== undefined) element.textContent = words; return element; }
function number(value) { return value === null ? "–" : value.toFixed(2); }
function round(value) { return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)); }
function clock(seconds) { return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false }); }
function ago(s) {
  if (s < 2) return "now";
  if (s < 100) return `${Math.round(s)} s ago`;
  return s < 5400 ? `${Math.round(s / 60)} min ago` : `${Math.round(s / 3600)} h ago`;
}

$("open-recipes").onclick = openRecipes;
$("open-teach").onclick = () => { text("teach-told", ""); $("teach").showModal(); };
$("teach-cancel").onclick = () => ask("/api/teach", { method: "DELETE" }).catch((error) => text("teach-told", error.message));
$("recipes-form").onsubmit = runRecipe;
$("teach-form").onsubmit = startTeach;
$("heat").onchange = () => { askedAt = 0; fetchPicture(); };
for (const button of document.querySelectorAll("dialog .close")) button.onclick = () => button.closest("dialog").close();
document.addEventListener("visibilitychange", fetchPicture);
addEventListener("resize", () => later(showChart));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showChart);
setInterval(show, 500);
listen();
later(showRejects);
later(showChart);
