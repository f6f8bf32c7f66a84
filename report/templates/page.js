"use strict";
const page = JSON.parse(document.getElementById("closer-data").textContent);
const say = (key, values = {}) => (page.words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const STEP = 150; // entries of the list that are written at a time
const state = { look: null, mode: "clips", found: [], written: 0, picked: -1 };

// Everything that comes from a run or a manifest enters the page here, as text.
function make(tag, { text = null, parent = null, ...attributes } = {}, space = null) {
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function bytes(packed) {
  return Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
}

// Unpack once: logits [unit, layer, label] and answers [unit, layer].
function unpacked(units) {
  if (units && typeof units.logits === "string") {
    units.logits = new Int16Array(bytes(units.logits).buffer);
    units.answers = bytes(units.answers);
  }
  return units;
}

const units = () => unpacked(state.mode === "clips" ? state.look.clips : state.look.pairs);
const about = (id) => page.sets[state.look.set].about[id];
const audio = (id) => page.sets[state.look.set].audio[id];
const labels = () => state.look.labels;

function logit(of, unit, layer, label) {
  const [layers, count] = [of.layers.length, labels().length];
  return of.logits[(unit * layers + layer) * count + label] * of.scale;
}

const answer = (of, unit) => of.answers[(unit + 1) * of.layers.length - 1];

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", { value, text })));
  select.value = entries.some(([value]) => value === chosen) ? chosen : entries[0][0];
}

function setFilters() {
  const any = ["", say("any")];
  const named = labels().map((label, i) => [String(i), label]);
  const modes = [];
  if (state.look.clips) modes.push(["clips", say("clips")]);
  for (const kind of ["semantic", "prosody"])
    if (state.look.pairs && state.look.pairs.kind.includes(kind)) modes.push([kind, say(`${kind} pairs`)]);
  options($("mode"), modes, state.mode);
  state.mode = $("mode").value;
  options($("by-words"), [any, ...named], $("by-words").value);
  options($("by-voice"), [any, ...named], $("by-voice").value);
  const clips = [["semantic", say("the words' label")], ["prosody", say("the voice's label")], ["other", say("neither")], ["both", say("both agree")]];
  const pairs = [["flips", say("flips at some inner layer")], ["never", say("never flips")]];
  options($("by-outcome"), [any, ...(state.mode === "clips" ? clips : pairs)], $("by-outcome").value);
  const order = state.mode === "clips"
    ? [["up", say("margin, words first")], ["down", say("margin, voice first")], ["none", say("as in the manifest")]]
    : [["down", say("most flips first")], ["up", say("fewest flips first")], ["none", say("as in the manifest")]];
  options($("sort"), order, $("sort").value);
}

// The labels of a clip, or of a pair's recipient, as numbers.
function labelsOf(of, i) {
  if (state.mode === "clips") return [of.words[i], of.voice[i]];
  const clip = about(of.recipient[i]);
  return clip ? [labels().indexOf(clip[1]), labels().indexOf(clip[2])] : [-1, -1];
}

function kept(of, i) {
  const [words, voice] = labelsOf(of, i);
  const [byWords, byVoice, outcome] = ["by-words", "by-voice", "by-outcome"].map((id) => $(id).value);
  if (state.mode !== "clips" && of.kind[i] !== state.mode) return false;
  if ((byWords && Number(byWords) !== words) || (byVoice && Number(byVoice) !== voice)) return false;
  if (!outcome) return true;
  return state.mode === "clips" ? of.outcome[i] === outcome : (of.flips[i] > 0) === (outcome === "flips");
}

function refresh(pick = null) {
  const of = units();
  const key = state.mode === "clips" ? of.margin : of.flips;
  const sign = { up: 1, down: -1 }[$("sort").value];
  state.found = of.ids.map((_, i) => i).filter((i) => kept(of, i));
  if (sign) state.found.sort((a, b) => sign * (key[a] - key[b]) || a - b);
  $("list").replaceChildren();
  state.written = 0;
  const total = state.mode === "clips" ? of.ids.length : of.kind.filter((kind) => kind === state.mode).length;
  const all = state.mode === "clips" ? of.all : of.all[state.mode];
  const cut = all > total ? " · " + say("The page holds the first {n} of them", { n: total }) : "";
  $("count").textContent = (state.found.length ? say("{n} of {m}", { n: state.found.length, m: all }) : say("no such clip or pair")) + cut;
  write();
  const at = pick === null ? 0 : Math.max(0, state.found.findIndex((i) => of.ids[i] === pick));
  if (state.found.length) choose(at, false);
  else $("detail").replaceChildren();
  for (const button of $("cells").querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.dataset.words === $("by-words").value && button.dataset.voice === $("by-voice").value));
}

// A clip or a pair is called by what it says; by its id where the manifest is not there to tell.
function nameOf(of, i) {
  if (state.mode === "clips") return about(of.ids[i]) ? `“${about(of.ids[i])[0]}”` : of.ids[i];
  const clip = about(of.recipient[i]);
  return clip ? `${clip[state.mode === "semantic" ? 1 : 2]} → ${labels()[of.target[i]]}: “${clip[0]}”` : of.ids[i];
}

const labelled = (of, i) => `${labelsOf(of, i).map((label) => labels()[label]).join(" / ")} → ${labels()[answer(of, i)]}`;

function write() {
  const of = units();
  for (const i of state.found.slice(state.written, state.written + STEP)) {
    const place = state.written++;
    const item = make("li", { role: "option", id: `entry-${place}`, "aria-selected": "false", title: of.ids[i], parent: $("list") });
    make("span", { text: nameOf(of, i), parent: item });
    const figures = state.mode === "clips"
      ? `${labelled(of, i)}, ${say("margin")} ${of.margin[i].toFixed(2)}`
      : `${about(of.recipient[i])?.[3] ?? ""} · ${say("layers whose answer is the target")}${say(": ")}${of.flips[i].toFixed(2)}`;
    make("small", { text: figures, parent: item });
    item.addEventListener("click", () => choose(place));
  }
  $("more").hidden = state.written >= state.found.length;
}

function choose(place, scroll = true) {
  while (state.written <= place && state.written < state.found.length) write();
  const list = $("list");
  list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
  const item = $(`entry-${place}`);
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  if (scroll) item.scrollIntoView({ block: "nearest" });
  state.picked = place;
  show(state.found[place]);
}

function clipHeard(id, parent, { heading = null, told = false } = {}) {
  const clip = about(id);
  if (heading) make("h4", { text: heading, parent });
  if (clip) {
    make("p", { class: "said", text: `“${clip[0]}”`, lang: clip[4], parent });
    const line = make("p", { class: "note", parent });
    make("span", { class: "words", text: say("words") + say(": ") + clip[1], parent: line });
    line.append(" · ");
    make("span", { class: "voice", text: say("voice") + say(": ") + clip[2], parent: line });
    if (told) line.append(` · ${say("speaker")}${say(": ")}${clip[3] || "–"} · `, make("code", { text: id }));
  } else make("p", { class: "note", text: say("text not known"), parent });
  const sound = audio(id);
  if (!sound) return make("p", { class: "note", text: say("no audio in this page"), parent });
  const player = make("audio", { controls: "", preload: "metadata", src: `data:audio/mpeg;base64,${sound}`, parent });
  player.setAttribute("aria-label", id);
  return player;
}

function show(i) {
  const of = units();
  const detail = make("div");
  make("h3", { text: state.mode === "clips" ? labelled(of, i) : nameOf(of, i), parent: detail });
  const values = valuesOf(of, i);
  if (state.mode === "clips") {
    clipHeard(of.ids[i], detail, { told: true });
    make("p", { class: "note", text: HEAT(of), parent: detail });
    heat(of, i, detail, { [of.words[i]]: "words", [of.voice[i]]: "voice" }, room());
    const margins = values.map((row) => row[of.voice[i]] - row[of.words[i]]);
    curve(of.layers, margins, meanMargin(of), say("margin: voice − words (logits)"), detail);
  } else {
    const mark = { [of.target[i]]: state.mode === "semantic" ? "words" : "voice" };
    clipHeard(of.recipient[i], detail, { heading: say("recipient"), told: true });
    clipHeard(of.donor[i], detail, { heading: say("donor"), told: true });
    make("p", { class: "note", text: `${say("target")}${say(": ")}${labels()[of.target[i]]}. ${say("patched answers: the recipient's audio span is the donor's from layer l on")}`, parent: detail });
    make("p", { class: "note", text: HEAT(of), parent: detail });
    heat(of, i, detail, mark, room());
    const base = values[values.length - 1][of.target[i]];
    curve(of.layers, values.map((row) => row[of.target[i]] - base), null, say("target's logit, patched − unpatched"), detail);
  }
  $("detail").replaceChildren(...detail.childNodes);
}

function meanMargin(of) {
  of.mean ??= of.layers.map((_, l) => {
    const conflict = of.ids.map((_, i) => i).filter((i) => of.words[i] !== of.voice[i]);
    return conflict.reduce((sum, i) => sum + logit(of, i, l, of.voice[i]) - logit(of, i, l, of.words[i]), 0) / Math.max(1, conflict.length);
  });
  return of.mean;
}

// The drawing is as wide as its place, so that its letters keep their size on a phone.
const room = () => Math.min(640, Math.max(300, $("detail").clientWidth || 640));

// Where a layer, or a place between two, lies in a drawing: true to its number, as layers may be listed with gaps.
const across = (layers, left, width) => (place) => left + ((place + 0.5) * (width - left)) / (layers[layers.length - 1] + 1);

const HEAT = (of) => [
  say("label logits less their mean over the labels, by layer"), say("the outlined label is the answer of the layer"),
  ...(of.readable?.includes(0) ? [say("faint layers: the lens is not informative")] : []),
].join("; ");

const valuesOf = (of, i) => of.layers.map((_, l) => labels().map((_, k) => logit(of, i, l, k)));

function heat(of, i, parent, marks, width) {
  const values = valuesOf(of, i);
  const [left, high, bottom] = [Math.min(96, 14 + 8 * Math.max(...labels().map((label) => label.length))), 26, 22];
  const x = across(of.layers, left, width);
  const edges = [-0.5, ...of.layers.slice(1).map((layer, l) => (of.layers[l] + layer) / 2), of.layers[of.layers.length - 1] + 0.5].map(x);
  const tall = labels().length * high;
  const svg = make("svg", { viewBox: `0 0 ${width} ${tall + bottom}`, role: "img", class: "heat", parent }, SVG);
  svg.setAttribute("aria-label", say("label logits less their mean over the labels, by layer"));
  const centred = values.map((row) => row.map((v) => v - row.reduce((a, b) => a + b, 0) / row.length));
  const faint = of.layers.map((_, l) => of.readable?.[l] === 0);
  const most = Math.max(1e-9, ...centred.filter((_, l) => !faint[l] || !faint.includes(false)).flat().map(Math.abs));
  labels().forEach((label, k) => {
    const name = make("text", { x: left - 8, y: k * high + high / 2 + 5, "text-anchor": "end", text: label.length > 13 ? `${label.slice(0, 12)}…` : label, parent: svg }, SVG);
    if (marks[k]) name.setAttribute("style", `fill: var(--${marks[k]}); font-weight: 700`);
    of.layers.forEach((layer, l) => {
      const answer = of.answers[i * of.layers.length + l] === k;
      const cell = make("rect", { x: edges[l] + 1, y: k * high + 1, width: Math.max(1, edges[l + 1] - edges[l] - 2), height: high - 2, rx: 2, parent: svg }, SVG);
      const share = Math.min(100, Math.round((100 * Math.abs(centred[l][k])) / most));
      cell.style.fill = `color-mix(in srgb, var(--${centred[l][k] > 0 ? "above" : "below"}) ${share}%, var(--mid))`;
      if (answer && !faint[l]) cell.setAttribute("style", `${cell.getAttribute("style")}; stroke: var(--ink); stroke-width: 2`);
      if (faint[l]) cell.style.opacity = "0.25";
      make("title", { text: `${say("layer")} ${layer}, ${label}: ${values[l][k].toFixed(2)}`, parent: cell }, SVG);
    });
  });
  axis(svg, of.layers, x, tall + 16);
}

function axis(svg, layers, x, y) {
  let last = -Infinity;
  for (const layer of layers) {
    if (x(layer) - last < 26) continue;
    last = x(layer);
    make("text", { x: last, y, "text-anchor": "middle", text: String(layer), parent: svg }, SVG);
  }
}

function curve(layers, values, mean, title, parent) {
  make("p", { class: "note", text: mean ? `${title}; - - ${say("mean of all")}` : title, parent });
  const [left, width, tall, bottom] = [96, room(), 150, 22];
  const all = [0, ...values, ...(mean ?? [])];
  const [low, top] = [Math.min(...all), Math.max(...all)];
  const x = across(layers, left, width);
  const y = (v) => 8 + ((top - v) / Math.max(1e-9, top - low)) * (tall - 16);
  const svg = make("svg", { viewBox: `0 0 ${width} ${tall + bottom}`, role: "img", class: "curve", parent }, SVG);
  svg.setAttribute("aria-label", title);
  for (const v of new Set([low, 0, top])) {
    make("line", { x1: left, x2: width, y1: y(v), y2: y(v), style: `stroke: var(--${v === 0 ? "soft" : "line"})`, parent: svg }, SVG);
    if (v === 0 || Math.abs(y(v) - y(0)) > 14) make("text", { x: left - 8, y: y(v) + 5, "text-anchor": "end", text: v.toFixed(1), parent: svg }, SVG);
  }
  const line = (of, style) => make("polyline", { points: of.map((v, l) => `${x(layers[l])},${y(v)}`).join(" "), style: `fill: none; ${style}`, parent: svg }, SVG);
  if (mean) line(mean, "stroke: var(--soft); stroke-dasharray: 5 4");
  line(values, "stroke: var(--ink); stroke-width: 2.5");
  values.forEach((v, l) => {
    const dot = make("circle", { cx: x(layers[l]), cy: y(v), r: 4, style: "fill: var(--ink)", parent: svg }, SVG);
    make("title", { text: `${say("layer")} ${layers[l]}: ${v.toFixed(2)}`, parent: dot }, SVG);
  });
  axis(svg, layers, x, tall + 16);
}

// The semantic x prosody table: a button in each cell lists its clips.
function cells() {
  const table = $("cells");
  table.replaceChildren();
  const of = unpacked(state.look.clips);
  $("cells-caption").hidden = !of;
  if (!of) return;
  const head = make("tr", { parent: table });
  make("th", { text: `${say("words")} \\ ${say("voice")}`, parent: head });
  labels().forEach((label) => make("th", { text: label, scope: "col", class: "voice", parent: head }));
  labels().forEach((label, w) => {
    const row = make("tr", { parent: table });
    make("th", { text: label, scope: "row", class: "words", parent: row });
    labels().forEach((_, v) => {
      const inside = of.ids.map((_, i) => i).filter((i) => of.words[i] === w && of.voice[i] === v);
      const cell = make("td", { parent: row });
      if (!inside.length) return;
      const share = (...outcomes) => (inside.filter((i) => outcomes.includes(of.outcome[i])).length / inside.length).toFixed(2);
      const text = w === v ? `${say("right")} ${share("both")}` : `${share("semantic")} / ${share("prosody")}`;
      const button = make("button", { type: "button", text, title: `n = ${inside.length}`, "aria-pressed": "false", parent: cell });
      const lead = Number(share("prosody")) - Number(share("semantic"));
      const [tint, part] = w === v ? ["agree", Number(share("both"))] : [lead > 0 ? "voice" : "words", Math.abs(lead)];
      button.style.background = `color-mix(in srgb, var(--${tint}) ${Math.round(40 * part)}%, var(--raised))`;
      button.setAttribute("aria-label", `${labels()[w]}, ${labels()[v]}: ${text}, n = ${inside.length}`);
      button.dataset.words = String(w);
      button.dataset.voice = String(v);
      button.addEventListener("click", () => {
        state.mode = "clips";
        setFilters();
        [$("by-words").value, $("by-voice").value, $("by-outcome").value] = [String(w), String(v), ""];
        refresh();
        $("list").focus();
      });
    });
  });
}

function openStudy(number, pick = null) {
  state.look = page.studies[number];
  setFilters();
  cells();
  refresh(pick);
}

// The clips to hear first, of the first study that has some: each with its words, its sound and its heat map.
function cards() {
  const number = page.studies.findIndex((look) => look.picks.length);
  if (number < 0) return;
  [state.look, state.mode] = [page.studies[number], "clips"];
  const of = units();
  const won = { semantic: say("The words win"), prosody: say("The voice wins"), other: say("Neither wins") };
  if (page.studies.length > 1) $("picks-heading").textContent = say("Clips to hear") + say(": ") + state.look.name;
  $("cards").replaceChildren();
  const places = state.look.picks.map(() => make("div", { class: "card", role: "group", parent: $("cards") }));
  for (const [place, pick] of state.look.picks.entries()) {
    const [i, card] = [of.ids.indexOf(pick.id), places[place]];
    const heading = make("h3", { text: won[pick.outcome], id: `card-${pick.outcome}`, parent: card });
    card.setAttribute("aria-labelledby", heading.id);
    make("small", { text: say("{n} of {m} clips", { n: pick.n, m: pick.all }), parent: heading });
    clipHeard(pick.id, card);
    const said = make("p", { class: "note", text: say("answer") + say(": "), parent: card });
    make("strong", { text: labels()[answer(of, i)], parent: said });
    heat(of, i, card, { [of.words[i]]: "words", [of.voice[i]]: "voice" }, Math.max(240, card.clientWidth - 26));
    const more = make("button", { type: "button", text: say("look closer"), parent: card });
    more.addEventListener("click", () => {
      state.mode = "clips";
      $("study").value = String(number);
      for (const id of ["by-words", "by-voice", "by-outcome"]) $(id).value = "";
      openStudy(number, pick.id);
      $("closer").scrollIntoView();
      $("list").focus({ preventScroll: true });
    });
  }
}

// A sentence's link shows the rows of the table that it comes from: its title names their kind and layers.
function mark(link) {
  const fold = document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1)));
  const table = fold?.querySelector("table");
  document.querySelectorAll("tr.found").forEach((row) => row.classList.remove("found"));
  if (!table) return;
  fold.open = true;
  const names = [...table.querySelectorAll("th")].map((th) => th.textContent);
  const wanted = link.title.split("; ");
  for (const row of table.tBodies[0].rows) {
    const texts = [...row.cells].map((cell) => cell.textContent);
    const layer = Number(texts[names.indexOf("l")]);
    const holds = (part) => {
      const range = part.match(/^(?:mean of )?l = (\d+)(?: to (\d+))?$/);
      if (!range) return names[0] === "l" || texts.includes(part) || !table.tBodies[0].textContent.includes(part);
      return !names.includes("l") || (layer >= Number(range[1]) && layer <= Number(range[2] ?? range[1]));
    };
    if (wanted.every(holds)) row.classList.add("found");
  }
  [state.from, $("back").hidden] = [link, false];
  requestAnimationFrame(() => (table.querySelector("tr.found") ?? fold).scrollIntoView({ block: "center" }));
}

options($("study"), page.studies.map((look, i) => [String(i), look.name || String(i + 1)]), "0");
$("study").parentElement.hidden = page.studies.length < 2;
$("study").addEventListener("change", () => openStudy(Number($("study").value)));
$("mode").addEventListener("change", () => {
  state.mode = $("mode").value;
  $("by-outcome").value = $("sort").value = ""; // each has an order of its own to begin with
  setFilters();
  refresh();
});
for (const id of ["by-words", "by-voice", "by-outcome", "sort"]) $(id).addEventListener("change", () => refresh());
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => write());
$("list").addEventListener("keydown", (event) => {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  if (event.key in steps && state.found.length) {
    event.preventDefault();
    choose(Math.min(state.found.length - 1, Math.max(0, state.picked + steps[event.key])));
  } else if (event.key === "Enter") {
    event.preventDefault();
    $("detail").querySelector("audio")?.play().catch(() => {});
  }
});
let width = innerWidth; // a phone resizes its window whenever its bars come and go
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  const [look, mode] = [state.look, state.mode];
  cards();
  [state.look, state.mode] = [look, mode];
  if (state.picked >= 0) show(state.found[state.picked]);
});
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("article a[title]");
  if (link) mark(link);
  if (!event.target.closest?.("#contents summary")) $("contents").open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") $("contents").open = false;
});
$("back").addEventListener("click", () => {
  $("back").hidden = true;
  state.from.scrollIntoView({ block: "center" });
  state.from.focus({ preventScroll: true });
});
cards();
openStudy(0);
