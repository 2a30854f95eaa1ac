"use strict";

// Tables: a header's button sorts, the field and the list above filter.

const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent;
};

const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

function sortBy(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const missing = (row) => row.cells[column].textContent === "-";
  const rows = [...table.tBodies[0].rows].sort(
    (a, b) => missing(a) - missing(b) || (descending ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column))
  );
  table.tBodies[0].append(...rows);
}

function filter(board) {
  const words = board.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = board.querySelector("select").value;
  let shown = 0;
  for (const row of board.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = (state && row.dataset.state !== state) || !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  board.querySelector("output").textContent = `${shown.toLocaleString("en")} rows`;
}

for (const button of document.querySelectorAll("th button")) {
  const header = button.parentElement;
  button.addEventListener("click", () => sortBy(header.closest("table"), header.cellIndex));
}
for (const board of document.querySelectorAll(".board")) {
  board.querySelector("input").addEventListener("input", () => filter(board));
  board.querySelector("select").addEventListener("change", () => filter(board));
  filter(board);
}

// Figures: drawn when they come into view, in the colours of the page.

const dark = matchMedia("(prefers-color-scheme: dark)");

function template() {
  const style = getComputedStyle(document.documentElement);
  const [ink, rule] = ["--ink", "--rule"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: rule, linecolor: rule, zerolinecolor: rule, automargin: true, exponentformat: "e" };
  return {
    layout: {
      font: { color: ink, family: "system-ui, sans-serif", size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { t: 20, r: 20, b: 50, l: 60 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      xaxis: axis,
      yaxis: axis,
    },
  };
}

function draw(element) {
  const figure = JSON.parse(element.querySelector("script").textContent);
  const target = element.querySelector("div");
  figure.layout.template = template();
  Plotly.newPlot(target, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
  element.dataset.drawn = "yes";
}

const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  },
  { rootMargin: "300px" }
);
for (const element of document.querySelectorAll(".figure")) watcher.observe(element);
dark.addEventListener("change", () => {
  for (const element of document.querySelectorAll(".figure[data-drawn]"))
    Plotly.relayout(element.querySelector("div"), { template: template() });
});
const PAPER_WIDTH = 680; // pixels, of what fits on a page

addEventListener("beforeprint", () => {
  for (const element of document.querySelectorAll(".figure")) {
    if (!element.dataset.drawn) draw(element);
    const width = element.closest(".grid") ? PAPER_WIDTH / 2 : PAPER_WIDTH;
    Plotly.relayout(element.querySelector("div"), { width });
  }
});
addEventListener("afterprint", () => {
  for (const element of document.querySelectorAll(".figure"))
    Plotly.relayout(element.querySelector("div"), { width: null, autosize: true });
});

// Links within the page: where it is shown inside another, as MLflow does, it has no address to go to.

for (const link of self === top ? [] : document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(link.hash.slice(1)).scrollIntoView();
  });
}
