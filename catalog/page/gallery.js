// The gallery page. All text comes in as data and goes out by textContent; no markup is ever made from it.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const styles = data.styles;
const metricNames = [...new Set(styles.flatMap((style) => Object.keys(style.metrics)))].sort();
const probeSets = data.probe_sets;
const PORTRAITS = Math.max(1, ...styles.map((style) => probeSets[style.probe_set]?.length ?? 0));

const state = { q: "", base: "", sort: "newest", every: false, tags: new Set(), ranges: Object.create(null), probe: 0, open: "" };
let shown = styles;
let sorted = "";

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const title = (style) => `${style.id}@${style.version}`;
const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// ---- pictures

function tile(style, probe, row, alt) {
  const box = element("span", { className: "tile" });
  const count = probeSets[style.probe_set]?.length;
  if (style.sheet && count) {
    box.append(element("img", { className: "sheet", loading: "lazy", decoding: "async", alt, src: style.sheet }));
    box.style.setProperty("--of", count);
    setCell(box, Math.min(probe, count - 1), row);
  } else if (style.reference) {
    box.append(element("img", { className: "whole", loading: "lazy", decoding: "async", alt, src: style.reference }));
  }
  return box;
}

function setCell(box, probe, row) {
  box.style.setProperty("--at", probe);
  box.style.setProperty("--row", row);
}

function card(style) {
  const picture = tile(style, state.probe, 1, `A portrait in the style ${style.id}`);
  style.tile = picture;
  if (!style.sheet) picture.append(element("span", { className: "absent", textContent: style.reference ? "reference only" : "no picture" }));
  else if (style.reference) picture.append(element("img", { className: "inset", loading: "lazy", alt: "", src: style.reference }));
  const name = element("span", { className: "name", textContent: style.id, title: style.id });
  const line = element("span", { className: "line" }, `v${style.version}`);
  for (const alias of style.aliases) line.append(" · ", element("span", { className: "alias", textContent: alias }));
  if (style.metrics.structure !== undefined) line.append(` · structure ${style.metrics.structure.toFixed(2)}`);
  const tags = element("span", { className: "line", textContent: style.tags.join(", ") });
  const made = element("button", { type: "button", className: "card", "aria-label": `Open ${title(style)}` }, picture, element("span", { className: "text" }, name, line, tags));
  made.addEventListener("click", () => open(style));
  return element("div", { role: "listitem" }, made);
}

// ---- filter and sort

const sorts = {
  newest: ["newest", (a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : byName(a, b))],
  oldest: ["oldest", (a, b) => sorts.newest[1](b, a)],
  name: ["name", byName],
};
for (const name of metricNames) {
  const value = (style, missing) => style.metrics[name] ?? missing;
  sorts[`${name}:high`] = [`${name}, high first`, (a, b) => value(b, -Infinity) - value(a, -Infinity) || byName(a, b)];
  sorts[`${name}:low`] = [`${name}, low first`, (a, b) => value(a, Infinity) - value(b, Infinity) || byName(a, b)];
}

function byName(a, b) {
  return a.id < b.id ? -1 : a.id > b.id ? 1 : b.version - a.version;
}

function matches(style, wanted) {
  return (
    (state.every || style.latest) &&
    (!state.base || style.base === state.base) &&
    [...state.tags].every((tag) => style.tags.includes(tag)) &&
    wanted.every((word) => style.words.includes(word)) &&
    Object.entries(state.ranges).every(([name, [low, high]]) => {
      const value = style.metrics[name];
      return value !== undefined && value >= low && value <= high;
    })
  );
}

function refresh() {
  const wanted = words(state.q);
  if (sorted !== state.sort) {
    sorted = state.sort;
    styles.sort(sorts[sorted][1]);
    at("grid").append(...styles.map((style) => style.item));
  }
  for (const style of styles) style.item.hidden = !matches(style, wanted);
  shown = styles.filter((style) => !style.item.hidden);
  const all = styles.filter((style) => state.every || style.latest).length;
  at("count").textContent = `${shown.length.toLocaleString("en")} of ${all.toLocaleString("en")} ${state.every ? "versions" : "styles"}`;
  at("nothing").hidden = shown.length > 0;
  at("ranges").toggleAttribute("data-active", Object.keys(state.ranges).length > 0);
  for (const chip of at("tags").children) chip.setAttribute("aria-pressed", state.tags.has(chip.value));
  remember();
}

function toggleTag(tag) {
  if (!state.tags.delete(tag)) state.tags.add(tag);
  refresh();
}

function showProbe(probe) {
  state.probe = probe;
  for (const style of styles) if (style.sheet) setCell(style.tile, Math.min(probe, probeSets[style.probe_set].length - 1), style.row);
  for (const group of ["probes", "strip"]) check(at(group), probe);
  if (at("detail").open) fillCompare(opened());
  remember();
}

function check(group, probe) {
  [...group.children].forEach((button, i) => {
    button.setAttribute("aria-checked", i === probe);
    button.tabIndex = i === probe ? 0 : -1;
  });
}

function flip() {
  const photos = at("flip").getAttribute("aria-pressed") !== "true";
  at("flip").setAttribute("aria-pressed", photos);
  for (const style of styles) {
    style.row = photos ? 0 : 1;
    style.tile.style.setProperty("--row", style.row);
  }
}

// ---- one style

const opened = () => styles.find((style) => title(style) === state.open);

function open(style) {
  state.open = title(style);
  at("detail-name").textContent = title(style);
  at("reference").hidden = !style.reference;
  at("reference").src = style.reference || "data:,";
  at("notes").textContent = style.notes;
  at("badges").replaceChildren(...style.aliases.map((alias) => element("span", { className: "tag alias", textContent: `@${alias}` })), ...style.tags.map((tag) => tagChip(tag)));
  at("command").value = style.command;
  at("settings").textContent = JSON.stringify(style.train_config, null, 2);
  at("facts").replaceChildren(...facts(style));
  at("strip").replaceChildren(...probeButtons(style, 1));
  check(at("strip"), state.probe);
  fillCompare(style);
  if (!at("detail").open) at("detail").showModal();
  at("detail").scrollTop = 0;
  remember();
}

function facts(style) {
  const versions = styles.filter((other) => other.id === style.id).sort(byName);
  const links = versions.map((other) => {
    const link = element("button", { type: "button", textContent: [`v${other.version}`, ...other.aliases].join(" "), "aria-pressed": other === style });
    link.addEventListener("click", () => open(other));
    return link;
  });
  const metrics = Object.entries(style.metrics).sort();
  const rows = [["versions", links], ["base", [`${style.base} (${style.fingerprint})`]], ["preset", [style.preset]], ["made", [`${style.created.slice(0, 16).replace("T", " ")} UTC, in ${style.train_seconds.toFixed(0)} s on ${style.device}`]],
    ["licence", [style.license]], ["size", [`${(style.checkpoint_bytes / 1e6).toFixed(1)} MB`]], ...metrics.map(([name, value]) => [name, [number(value)]])];
  return rows.filter(([, cells]) => cells[0]).map(([name, cells]) => element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", {}, ...cells)));
}

function fillCompare(style) {
  const box = at("compare");
  for (const old of box.querySelectorAll(".tile, .knob")) old.remove();
  const whole = !style.sheet;
  box.classList.toggle("whole", whole);
  box.prepend(tile(style, state.probe, 1, `A portrait in the style ${style.id}`));
  if (whole) return;
  const photo = tile(style, state.probe, 0, "The photograph");
  photo.classList.add("photo");
  box.firstChild.after(photo, element("span", { className: "knob", textContent: "⇔" }));
}

function step(by) {
  const place = shown.indexOf(opened());
  open(shown[(place + by + shown.length) % shown.length] ?? opened());
}

// ---- controls

function tagChip(tag, count) {
  const chip = element("button", { type: "button", className: "tag", value: tag, "aria-pressed": state.tags.has(tag) }, tag, count ? element("small", { textContent: count }) : null);
  chip.addEventListener("click", () => {
    if (at("detail").open) at("detail").close();
    toggleTag(tag);
  });
  return chip;
}

function probeButtons(style, row) {
  const names = (style.sheet && probeSets[style.probe_set]) || [];
  return names.map((name, i) => {
    const button = element("button", { type: "button", role: "radio", title: `${name.replaceAll("-", " ")} (${i + 1})`, "aria-label": name.replaceAll("-", " ") }, tile(style, i, row, ""));
    button.addEventListener("click", () => showProbe(i));
    return button;
  });
}

function metricRow(name) {
  const values = styles.map((style) => style.metrics[name]).filter((value) => value !== undefined);
  const [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const inputs = [["from", least], ["to", most]].map(([word, value]) =>
    element("input", { type: "number", step: "any", placeholder: number(value), "aria-label": `${name} ${word}` }));
  const changed = () => {
    const [low, high] = inputs.map((input) => (input.value === "" ? null : Number(input.value)));
    if (low === null && high === null) delete state.ranges[name];
    else state.ranges[name] = [low ?? -Infinity, high ?? Infinity];
    refresh();
  };
  inputs.forEach((input, i) => {
    const bound = state.ranges[name]?.[i];
    if (Number.isFinite(bound)) input.value = bound;
    input.addEventListener("input", changed);
  });
  return [element("span", { textContent: name }), ...inputs];
}

function clearAll() {
  Object.assign(state, { q: "", base: "", ranges: Object.create(null) });
  state.tags.clear();
  at("query").value = at("base").value = "";
  for (const input of at("metrics").querySelectorAll("input")) input.value = "";
  refresh();
}

// ---- the state in the address, so that a view can be sent to others and reloaded

function remember() {
  const entries = { q: state.q, base: state.base, sort: state.sort === "newest" ? "" : state.sort, all: state.every ? "1" : "", tags: [...state.tags].join(","), probe: state.probe || "", style: state.open };
  const told = new URLSearchParams(Object.entries(entries).filter(([, value]) => value !== ""));
  for (const [name, [low, high]] of Object.entries(state.ranges)) told.append("range", `${name} ${low} ${high}`);
  history.replaceState(null, "", `#${told}`);
}

function recall() {
  const told = new URLSearchParams(location.hash.slice(1));
  state.q = told.get("q") ?? "";
  state.base = told.get("base") ?? "";
  state.sort = Object.hasOwn(sorts, told.get("sort")) ? told.get("sort") : "newest";
  state.every = told.get("all") === "1";
  for (const tag of (told.get("tags") ?? "").split(",").filter(Boolean)) state.tags.add(tag);
  for (const range of told.getAll("range")) {
    const [, name, low, high] = range.match(/^(.*) (\S+) (\S+)$/) ?? [];
    if (metricNames.includes(name) && !isNaN(low) && !isNaN(high)) state.ranges[name] = [Number(low), Number(high)];
  }
  const probe = Number(told.get("probe"));
  state.probe = Number.isInteger(probe) && probe >= 0 && probe < PORTRAITS ? probe : 0;
  state.open = told.get("style") ?? "";
}

// ---- keyboard

function moveFocus(key) {
  const cards = shown.map((style) => style.item.firstChild);
  const here = cards.indexOf(document.activeElement);
  if (here < 0) return cards[0]?.focus();
  const across = getComputedStyle(at("grid")).gridTemplateColumns.split(" ").length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  const next = cards[Math.max(0, Math.min(cards.length - 1, here + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=checkbox], [type=range]), select");
  const dialog = at("detail").open;
  const arrow = event.key.startsWith("Arrow");
  if (event.key === "Escape" && typing && !dialog) {
    if (event.target.id === "query" && event.target.value) { event.target.value = state.q = ""; refresh(); } else event.target.blur();
  } else if (event.key === "Escape" && at("ranges").open) at("ranges").open = false;
  else if (typing) return;
  else if (event.key === "/" && !dialog) at("query").select(), at("query").focus();
  else if (arrow && event.target.matches("[role=radio]")) return moveRadio(event);
  else if (arrow && !dialog) moveFocus(event.key);
  else if (dialog && event.target.id !== "slider" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) step(event.key === "ArrowLeft" ? -1 : 1);
  else if (/^[1-9]$/.test(event.key) && event.key <= PORTRAITS) showProbe(event.key - 1);
  else if (event.key === "p" && !dialog) flip();
  else if (event.key === "t") switchTheme();
  else return;
  event.preventDefault();
}

function moveRadio(event) {
  const group = event.target.parentElement.id;
  const count = at(group).children.length;
  showProbe((state.probe + (event.key === "ArrowLeft" || event.key === "ArrowUp" ? count - 1 : 1)) % count);
  at(group).children[state.probe].focus();
  event.preventDefault();
}

function switchTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.style.colorScheme || (dark ? "dark" : "light");
  document.documentElement.style.colorScheme = now === "dark" ? "light" : "dark";
}

// ---- beginning

function begin() {
  recall();
  const latest = new Map();
  for (const style of styles) if (!(latest.get(style.id)?.version > style.version)) latest.set(style.id, style);
  const counts = new Map();
  for (const style of styles) {
    style.latest = latest.get(style.id) === style;
    style.row = 1;
    style.words = [style.id, title(style), style.base, style.notes, style.license, ...style.tags, ...style.aliases].join(" ").toLowerCase();
    style.item = card(style);
    for (const tag of new Set(style.tags)) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  }
  for (const base of [...new Set(styles.map((style) => style.base))].sort()) at("base").append(element("option", { value: base, textContent: base }));
  for (const [key, [label]] of Object.entries(sorts)) at("sort").append(element("option", { value: key, textContent: label }));
  at("tags").append(...[...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 40).map(([tag, count]) => tagChip(tag, count)));
  at("metrics").append(...metricNames.flatMap(metricRow));
  at("ranges").hidden = metricNames.length === 0;
  const example = styles.find((style) => style.sheet && probeSets[style.probe_set]?.length === PORTRAITS);
  if (example) at("probes").append(...probeButtons(example, 0));
  at("flip").hidden = at("probes").hidden = !example;

  for (const [id, key] of [["query", "q"], ["base", "base"], ["sort", "sort"]]) {
    at(id).value = state[key];
    at(id).addEventListener("input", () => { state[key] = at(id).value; refresh(); });
  }
  at("every").checked = state.every;
  at("every").addEventListener("change", () => { state.every = at("every").checked; refresh(); });
  at("clear").addEventListener("click", clearAll);
  at("flip").addEventListener("click", flip);
  at("theme").addEventListener("click", switchTheme);
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("close").addEventListener("click", () => at("detail").close());
  at("detail").addEventListener("click", (event) => { if (event.target === at("detail")) at("detail").close(); });
  at("detail").addEventListener("close", () => { const style = opened(); state.open = ""; remember(); style?.item.firstChild.focus(); });
  at("slider").addEventListener("input", () => at("compare").style.setProperty("--x", `${at("slider").value}%`));
  at("command").addEventListener("focus", () => at("command").select());
  document.addEventListener("keydown", onKey);
  showProbe(state.probe);
  const first = opened();
  refresh();
  if (first) open(first);
}

begin();
