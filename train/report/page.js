"use strict";
// Sorting, filtering, paging and switching. Without this script everything but the samples is there.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---------------------------------------------------------------- which part is shown

const parts = all("main > section.part");
const switches = all("[data-shows]");
function show(id) {
  for (const part of parts) part.hidden = part.id !== id;
  for (const one of switches) one.setAttribute("aria-pressed", one.dataset.shows === id);
}
for (const one of switches) one.addEventListener("click", () => show(one.dataset.shows));
if (switches.length) show(parts[0].id);

document.getElementById("theme").addEventListener("click", () => {
  const style = document.documentElement.style;
  const dark = (style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  style.colorScheme = dark ? "light" : "dark";
});

// ---------------------------------------------------------------- tables

function sortValue(cell, kind) {
  if (kind === "text") return cell.textContent;
  const number = Number(cell.textContent.replaceAll(",", ""));
  return Number.isNaN(number) ? null : number;
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);  // no value comes last
  return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}

function sort(table, column, kind, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [sortValue(row.cells[column], kind), row]);
  rows.sort(([a], [b]) => (descending && a !== null && b !== null ? compare(b, a) : compare(a, b)));
  body.append(...rows.map(([, row]) => row));
}

for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const was = head.getAttribute("aria-sort");
    const descending = was ? was === "ascending" : head.dataset.kind !== "text";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sort(table, column, head.dataset.kind, descending);
  }));
}

const lineOf = (row) => document.getElementById(`${row.closest("section").id}-${row.dataset.of}`);

for (const input of all(".filter")) {
  const rows = [...document.getElementById(input.dataset.filters).tBodies[0].rows];
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      if (row.dataset.of) lineOf(row)?.classList.toggle("off", row.hidden);
    }
  });
}

for (const row of all("tr[data-of]")) {
  for (const [event, lit] of [["mouseenter", true], ["mouseleave", false]]) {
    row.addEventListener(event, () => lineOf(row)?.classList.toggle("lit", lit));
  }
}

for (const box of all("[data-swaps]")) {
  box.addEventListener("change", () => {
    document.getElementById(`${box.dataset.swaps}-open`).hidden = !box.checked;
    document.getElementById(`${box.dataset.swaps}-all`).hidden = box.checked;
  });
}

// ---------------------------------------------------------------- samples

const { runs, pictures } = JSON.parse(document.getElementById("samples").textContent);
const KINDS = { hit: "right", near: "near miss: the truth is among the five", miss: "miss" };

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function picture(sample, looked) {
  const source = pictures[sample.image];
  const made = source ? element("img") : element("div", "none", "the cache keeps no picture of this image");
  if (source) Object.assign(made, { src: source, alt: "" });
  if (!sample.look || !looked) return made;
  const most = Math.max(...sample.look.flat());
  const cells = sample.look.flat().map((weight) => {
    const cell = element("i");
    cell.title = weight.toFixed(3);
    cell.style.opacity = 0.75 * (1 - weight / most);
    return cell;
  });
  const grid = element("div", "look", ...cells);
  grid.style.gridTemplateColumns = `repeat(${sample.look[0].length}, 1fr)`;
  return element("div", "looked", made, grid);
}

function words(sample) {
  const made = element("div", "", element("p", "question", sample.question), element("p", `kind ${sample.kind}`, KINDS[sample.kind]));
  const list = element("ol");
  for (const [answer, share] of sample.top) {
    const line = element("li", answer === sample.truth ? "truth" : "", element("span", "", answer), element("span", "", share.toFixed(3)));
    line.style.setProperty("--share", share);
    list.append(line);
  }
  made.append(list, element("p", "", "truth: ", element("b", "", sample.truth)));
  if (sample.annotators.length) made.append(element("p", "", "answers given: " + sample.annotators.map(([answer, n]) => `${answer} (${n})`).join(", ")));
  for (const [run, answer, share] of sample.others) made.append(element("p", "", `${run} says: ${answer} (${share.toFixed(3)})`));
  made.append(element("p", "", element("small", "", `question ${sample.id}${sample.type ? ", " + sample.type : ""}`)));
  return made;
}

function viewer(root) {
  const samples = runs[root.dataset.run] ?? [];
  const form = root.querySelector("form");
  const types = [...new Set(samples.map((sample) => sample.type))].filter(Boolean).sort();
  form.elements.type.append(...types.map((type) => new Option(type, type)));
  let chosen = samples, place = 0;

  function draw() {
    root.querySelector("output").textContent = chosen.length ? `${place + 1} of ${chosen.length}` : "none";
    const sample = chosen[place];
    const looked = form.elements.look?.checked;
    root.querySelector("article").replaceChildren(...(sample ? [picture(sample, looked), words(sample)] : []));
  }
  function step(by) {
    if (chosen.length) place = (place + by + chosen.length) % chosen.length;
    draw();
  }
  function choose() {
    const { kind, type, text } = form.elements;
    const word = text.value.toLowerCase();
    const told = (sample) => [sample.question, sample.truth, ...sample.top.map(([answer]) => answer)].join("\n").toLowerCase();
    chosen = samples.filter((sample) => (!kind.value || sample.kind === kind.value) && (!type.value || sample.type === type.value) && told(sample).includes(word));
    place = 0;
    draw();
  }
  form.elements.look?.addEventListener("input", (event) => { event.stopPropagation(); draw(); });
  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of all("[data-step]", root)) button.addEventListener("click", () => step(Number(button.dataset.step)));
  draw();
  return { root, step };
}

const viewers = all(".samples").map(viewer);
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.target.closest?.("input, select, textarea, .scroll")) return;
  const shown = viewers.find(({ root }) => !root.closest("section").hidden);
  if (!shown) return;
  event.preventDefault();
  shown.step(by);
});
