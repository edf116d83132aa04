"use strict";
// Talks to dpa.serving.dial. Whatever a model says is put on the page as text, never as HTML.

const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const DEGREE = Math.PI / 180;
/** Pairs that wait to be asked about, at least. */
const WAITING = 12;
/** Degrees to the nearest direction of training within which a direction counts as trained on. */
const NEAR = 5;

let policy; // what /policy says
let direction;
let columns = []; // the three answers: direction, and elements
let asking; // AbortController of the answers under way
let interval; // of the second tab, to be drawn on the arc

// --- Talking to the server ---------------------------------------------------------------------

/** Yields the JSON lines of an answer. */
async function* ask(path, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { Authorization: `Bearer ${location.hash.slice(1)}` },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw new Error((await response.json()).error);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const said = JSON.parse(line);
      if (said.error) throw new Error(said.error);
      yield said;
    }
  }
}

/** The first line of an answer. */
async function askOnce(path, body) {
  for await (const said of ask(path, body)) return said;
}

function showError(error) {
  if (error?.name === "AbortError") return;
  $("error").hidden = !error;
  $("error").textContent = error ? error.message : "";
}

function element(kind, properties, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

// --- Directions --------------------------------------------------------------------------------

const dot = (v, w) => v.reduce((sum, x, i) => sum + x * w[i], 0);
const unit = v => v.map(x => x / Math.hypot(...v));
const degrees = v => Math.atan2(v[1], v[0]) / DEGREE;
const fromDegrees = angle => [Math.cos(angle * DEGREE), Math.sin(angle * DEGREE)];
const minus = text => String(text).replace("-", "\u2212");
const isArc = () => policy.objectives.length === 2;
/** Shares of the objectives, which are the squared weights: they add up to 1. */
const fromShares = shares => unit(shares.map((s, i) => Math.sqrt(Math.max(s, 0)) * Math.sign(policy.corners[i][i])));

function ends() {
  const angles = policy.range.map(degrees);
  return [Math.min(...angles), Math.max(...angles)];
}

function describe(v) {
  const weights = policy.objectives.map((name, i) => `${name} ${minus(v[i].toFixed(2))}`).join(", ");
  return isArc() ? `${weights} (${minus(Math.round(degrees(v)))}°)` : weights;
}

function setDirection(v) {
  direction = unit(v);
  const sliders = [...$("sliders").querySelectorAll("input")];
  if (isArc()) {
    const [low, high] = ends();
    const angle = Math.min(high, Math.max(low, degrees(direction)));
    direction = fromDegrees(angle);
    sliders[0].value = angle;
    sliders[0].setAttribute("aria-valuetext", describe(direction));
  } else {
    for (const [i, slider] of sliders.entries()) {
      if (slider !== document.activeElement) slider.value = 100 * direction[i] ** 2;
    }
    const nearest = Math.max(...policy.range.map(w => dot(direction, w)));
    $("outside").hidden = nearest >= Math.cos(NEAR * DEGREE);
  }
  $("direction").value = describe(direction);
  showColumn(columns[0], direction);
  draw();
}

function makeSliders() {
  const [low, high] = ends();
  const wanted = isArc() ? [["Angle", low, high]] : policy.objectives.map(name => [`Share of ${name}`, 0, 100]);
  for (const [name, min, max] of wanted) {
    const slider = element("input", { type: "range", min, max, step: isArc() ? 0.5 : 1 });
    slider.addEventListener("input", () => {
      if (isArc()) return setDirection(fromDegrees(slider.valueAsNumber));
      const shares = [...$("sliders").querySelectorAll("input")].map(other => other.valueAsNumber);
      if (shares.some(s => s > 0)) setDirection(fromShares(shares));
    });
    $("sliders").append(element("label", { textContent: name }, slider));
  }
}

// --- The drawing -------------------------------------------------------------------------------

function shape(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  $("drawing").append(made);
}

/** An arc of the unit circle, 100 units wide: the first objective to the right, the second up. */
const onCircle = angle => [100 * Math.cos(angle * DEGREE), -100 * Math.sin(angle * DEGREE)];
const arc = (from, to) => `M${onCircle(from)} A100,100 0 0 0 ${onCircle(to)}`;
const CORNERS = [[0, -58], [-50, 29], [50, 29]];
const inTriangle = v => [0, 1].map(axis => v.reduce((sum, x, i) => sum + x * x * CORNERS[i][axis], 0));

function draw() {
  $("drawing").replaceChildren();
  if (isArc()) {
    const [low, high] = ends();
    const points = [[0, 0], onCircle(low), onCircle((low + high) / 2), onCircle(high)];
    const [left, top] = [0, 1].map(axis => Math.min(...points.map(p => p[axis])) - 14);
    const [right, bottom] = [0, 1].map(axis => Math.max(...points.map(p => p[axis])) + 14);
    $("drawing").setAttribute("viewBox", `${left} ${top} ${right - left + 20} ${bottom - top}`);
    shape("path", { class: "range", d: arc(low, high) });
    if (interval) {
      const at = degrees(interval.direction);
      shape("path", { class: "found", d: arc(Math.max(low, at - interval.degrees), Math.min(high, at + interval.degrees)) });
    }
    for (const angle of [low, high]) {
      const [x, y] = onCircle(angle);
      shape("text", { x: x + 7, y: y + 3 }, `${minus(Math.round(angle))}°`);
    }
    hand([0, 0], onCircle(degrees(direction)));
  } else if (policy.objectives.length === 3) {
    $("drawing").setAttribute("viewBox", "-75 -72 150 115");
    shape("path", { class: "field", d: `M${CORNERS.join("L")}Z` });
    for (const [i, [x, y]] of CORNERS.entries()) {
      const sign = policy.corners[i][i] < 0 ? "\u2212" : "+";
      shape("text", { x, y: y + (i ? 10 : -4), "text-anchor": "middle" }, sign + policy.objectives[i]);
    }
    for (const v of policy.range) {
      const [cx, cy] = inTriangle(v);
      shape("circle", { class: "dot", cx, cy, r: 1 });
    }
    hand(null, inTriangle(direction));
  } else {
    $("drawing").toggleAttribute("hidden", true);
  }
}

function hand(from, [x, y]) {
  if (from) shape("line", { class: "hand", x1: from[0], y1: from[1], x2: x, y2: y });
  shape("circle", { class: "knob", cx: x, cy: y, r: 5 });
}

function drag(event) {
  if (event.type === "pointermove" && !event.buttons) return;
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform($("drawing").getScreenCTM().inverse());
  if (isArc()) return setDirection([x, -y]);
  const [[ax, ay], [bx, by], [cx, cy]] = CORNERS;
  const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  const second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area;
  const third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area;
  setDirection(fromShares([1 - second - third, second, third]));
}

// --- Answers side by side ----------------------------------------------------------------------

function makeColumn(title, start) {
  const column = {
    heading: element("h2", {}),
    text: element("p", { className: "text" }),
    facts: element("div", { className: "facts" }),
    title,
  };
  const article = element("article", {}, column.heading);
  if (start) {
    const pin = element("button", { type: "button", textContent: "Set to the dial" });
    pin.addEventListener("click", () => showColumn(column, direction));
    article.append(pin);
    showColumn(column, start);
  }
  article.append(column.text, column.facts);
  $("answers").append(article);
  return column;
}

function showColumn(column, v) {
  column.direction = v;
  column.heading.textContent = `${column.title}: ${describe(v)}`;
}

async function fillColumn(column, prompt, signal) {
  column.text.textContent = "";
  column.facts.replaceChildren("waiting");
  // What was answered at another direction may stand under a new heading for a moment: say so.
  const asked = describe(column.direction);
  for await (const said of ask("answer", { prompt, direction: column.direction }, signal)) {
    if (said.text !== undefined) {
      column.text.append(said.text);
      column.facts.replaceChildren("answering");
    } else {
      column.facts.replaceChildren(`at ${asked}: ${said.tokens} tokens, ${said.words} words${said.truncated ? ", truncated" : ""}`);
      for (const [i, reward] of (said.rewards || []).entries()) {
        const name = `${policy.objectives[i]} ${minus(reward.toFixed(1))}`;
        column.facts.append(element("div", { textContent: name }, element("meter", { min: 0, max: 100, value: reward, ariaLabel: name })));
      }
    }
  }
}

async function answerAll(event) {
  event?.preventDefault();
  asking?.abort();
  const mine = asking = new AbortController();
  showError();
  $("stop").disabled = false;
  const prompt = $("prompt").value;
  const done = await Promise.allSettled(columns.map(column => fillColumn(column, prompt, mine.signal)));
  for (const { reason } of done) if (reason) showError(reason);
  if (mine !== asking) return;
  $("stop").disabled = true;
  for (const [i, { reason }] of done.entries()) if (reason) columns[i].facts.replaceChildren("stopped");
}

// --- Find my direction -------------------------------------------------------------------------

const find = { prompts: [], next: 0, pairs: [], clicks: [], seen: new Set(), filling: false };

const difference = pair => pair.a.rewards.map((reward, i) => reward - pair.b.rewards[i]);
const preferred = click => difference(click).map(x => (click.preferred === "a" ? x : -x));

/** Asks for answers to the prompts in turn until enough pairs wait; stops when a round has no new ones. */
async function fillPairs() {
  if (find.filling) return;
  find.filling = true;
  try {
    for (let barren = 0; find.pairs.length < WAITING && barren < find.prompts.length;) {
      const { prompts, seen } = find;
      const prompt = prompts[find.next++ % prompts.length];
      const answers = [];
      for await (const said of ask("candidates", { prompt })) answers.push(said);
      if (prompts !== find.prompts) continue; // begun anew meanwhile
      let fresh = 0;
      for (const [i, one] of answers.entries()) {
        for (const other of answers.slice(0, i)) {
          const key = JSON.stringify([prompt, ...[one.text, other.text].sort()]);
          if (one.text === other.text || seen.has(key)) continue;
          seen.add(key);
          fresh += 1;
          const [a, b] = Math.random() < 0.5 ? [one, other] : [other, one];
          find.pairs.push({ prompt, a, b });
        }
      }
      barren = fresh ? 0 : barren + 1;
      if (!find.shown && !find.fitting && find.pairs.length) await fit();
    }
    if (!find.shown) $("said").textContent += " No answers differ any more: add prompts, or a higher --temperature.";
  } finally {
    find.filling = false;
  }
}

/** Where somebody is, and the next question. */
async function fit() {
  const pairs = find.pairs.slice(0, 500);
  find.fitting = true;
  const asked = { clicks: find.clicks.map(preferred), pairs: pairs.map(difference) };
  const found = await askOnce("fit", asked).finally(() => { find.fitting = false; });
  interval = found;
  $("said").textContent = found.said;
  $("afterwards").hidden = !find.clicks.length;
  find.shown = found.next === null ? null : pairs[found.next];
  $("choice").hidden = !find.shown;
  if (find.shown) {
    find.pairs.splice(find.pairs.indexOf(find.shown), 1);
    $("question").textContent = find.shown.prompt;
    $("first").textContent = find.shown.a.text;
    $("second").textContent = find.shown.b.text;
  }
  draw();
}

async function choose(which) {
  if (!find.shown) return;
  if (which) find.clicks.push({ ...find.shown, preferred: which });
  find.shown = null;
  await fit();
  await fillPairs();
}

async function undo() {
  if (find.fitting) return;
  const last = find.clicks.pop();
  if (find.shown) find.pairs.push(find.shown);
  find.shown = null;
  find.pairs.push({ prompt: last.prompt, a: last.a, b: last.b });
  await fit();
}

async function begin(event) {
  event.preventDefault();
  const prompts = $("prompts").value.split("\n").map(line => line.trim()).filter(Boolean);
  if (!prompts.length) return;
  const started = find.prompts.length > 0;
  Object.assign(find, { prompts, next: 0 });
  if (started && find.pairs.length) return; // more prompts; the clicks so far stay
  $("said").textContent = "The policy is answering\u2026";
  await fillPairs();
}

/** What scripts.fit_direction reads. */
function save() {
  const lines = find.clicks.map(({ prompt, a, b, preferred }) => JSON.stringify({ prompt, a: a.text, b: b.text, preferred }) + "\n");
  const link = element("a", { download: "comparisons.jsonl", href: URL.createObjectURL(new Blob(lines)) });
  link.click();
  URL.revokeObjectURL(link.href);
}

// --- Tabs, keys, and the start -----------------------------------------------------------------

function select(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const mine = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", mine);
    tab.tabIndex = mine ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !mine;
    if (mine && document.activeElement?.role === "tab") tab.focus();
  }
}

/** Runs something that asks the server, and shows what goes wrong. */
const guarded = action => (...given) => {
  showError();
  return Promise.resolve(action(...given)).catch(showError);
};

function listen() {
  for (const [name, other] of [["turn", "find"], ["find", "turn"]]) {
    $(`tab-${name}`).addEventListener("click", () => select(name));
    $(`tab-${name}`).addEventListener("keydown", event => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") select(other);
    });
  }
  $("drawing").addEventListener("pointerdown", drag);
  $("drawing").addEventListener("pointermove", drag);
  $("ask").addEventListener("submit", answerAll);
  $("prompt").addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
  });
  $("stop").addEventListener("click", () => asking.abort());
  $("begin").addEventListener("submit", guarded(begin));
  $("prefer-first").addEventListener("click", guarded(() => choose("a")));
  $("prefer-second").addEventListener("click", guarded(() => choose("b")));
  $("skip").addEventListener("click", guarded(() => choose(null)));
  $("undo").addEventListener("click", guarded(undo));
  $("save").addEventListener("click", save);
  $("take").addEventListener("click", () => { setDirection(interval.direction); select("turn"); });
  addEventListener("keydown", event => {
    const which = { 1: "prefer-first", 2: "prefer-second", 0: "skip" }[event.key];
    if (which && !$("find").hidden && event.target.tagName !== "TEXTAREA") $(which).click();
  });
}

async function start() {
  policy = await askOnce("policy", {});
  $("no-judge").hidden = policy.judged;
  $("begin").hidden = !policy.judged;
  makeSliders();
  const { range } = policy;
  columns = [makeColumn("The dial"), makeColumn("Second", range[0]), makeColumn("Third", range[range.length - 1])];
  setDirection(range.reduce((sum, v) => sum.map((x, i) => x + v[i])));
  listen();
}

guarded(start)();
