// Small helpers that the sections share: elements, numbers, theme, choices.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);

function make(tag, options = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "rect", "text", "g", "polygon"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, entry] of Object.entries(value)) node.style.setProperty(key, entry);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const MINUS = "−";
const number = (value, digits = 1) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", MINUS);
const whole = (value) => value.toLocaleString("en-US").replace("-", MINUS);
const signed = (value, digits = 1) => (value > 0 ? "+" : "") + number(value, digits);
const css = (name) => `var(--${name})`;
const plural = (count, one, many) => `${whole(count)} ${count === 1 ? one : many || one + "s"}`;

function section(id, title, text, ...content) {
  const heading = make("div", {}, make("h2", { text: title, id: `${id}-title` }), text ? make("p", { text }) : null);
  const head = make("div", { class: "head" }, heading);
  const node = make("section", { id, "aria-labelledby": `${id}-title` }, head, ...content);
  document.getElementById("main").append(node);
  document.getElementById("nav").append(make("a", { href: `#${id}`, text: node.dataset.short || title }));
  return { node, head };
}

function tabs(choices, label, pick) {
  const buttons = choices.map(([key, text], index) =>
    make("button", {
      type: "button", text, "aria-pressed": String(index === 0),
      onclick: () => {
        buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
        pick(key);
      },
    }));
  return make("div", { class: "tabs", role: "group", "aria-label": label }, buttons);
}

function choose(label, entries, pick) {
  const select = make("select", { onchange: () => pick(select.value) },
    entries.map(([value, text]) => make("option", { value, text })));
  return make("label", { class: "field" }, label, select);
}

// keeps the reader's choice where the browser allows storage for files
function startTheme() {
  const names = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
  const system = matchMedia("(prefers-color-scheme: dark)");
  let choice = "auto";
  try { choice = localStorage.getItem("swin_dense theme") || "auto"; } catch { /* storage is closed */ }
  const button = document.getElementById("theme");
  const apply = () => {
    document.documentElement.dataset.theme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    button.textContent = names[choice];
  };
  button.addEventListener("click", () => {
    const order = system.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
    choice = order[(order.indexOf(choice) + 1) % 3];
    try { localStorage.setItem("swin_dense theme", choice); } catch { /* storage is closed */ }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
