// Two runs beside each other: what changed, how sure that is, and in which pictures.

const main = document.getElementById("main");
startTheme();
main.append(make("h1", { text: DATA.heading }));
main.append(...DATA.about.map((line) => make("p", { class: "meta" }, line.map((part) => (part.code ? make("code", { text: part.code }) : part.text)))));

function differences() {
  const reach = Math.max(...DATA.differences.flatMap((one) => [Math.abs(one.low), Math.abs(one.high), Math.abs(one.change)]), 0.1) * 1.08;
  const at = (value) => 110 + (value / reach) * 104;
  const whisker = (one) => {
    const color = css(!one.clear ? "faint" : one.change > 0 ? "good" : "bad");
    return make("svg", { class: "whisker", width: 220, height: 22, viewBox: "0 0 220 22", "aria-hidden": "true" },
      make("line", { x1: 110, x2: 110, y1: 0, y2: 22, stroke: css("line") }),
      make("line", { x1: at(one.low), x2: at(one.high), y1: 11, y2: 11, stroke: color, "stroke-width": 2, "stroke-linecap": "round" }),
      make("circle", { cx: at(one.change), cy: 11, r: 4.5, fill: color }));
  };
  const heads = ["Figure", "A", "B", "Change", "95 % interval", ""];
  section("figures", "Figures", DATA.text.figures, make("div", { class: "panel scroll" }, make("table", { class: "data plain" },
    make("thead", {}, make("tr", {}, heads.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, DATA.differences.map((one) => make("tr", {},
      make("th", { scope: "row", text: one.name }), make("td", { text: number(one.first, 1) }), make("td", { text: number(one.second, 1) }),
      make("td", {}, make("span", { class: one.clear ? (one.change > 0 ? "up" : "down") : null, text: signed(one.change, 1) })),
      make("td", { text: `${signed(one.low, 1)} to ${signed(one.high, 1)}` }), make("td", {}, whisker(one))))))));
}

differences();
for (const view of DATA.views) {
  const made = sortedTable({ ...view.table, colors: DATA.colors, caption: `Change of each class, ${view.label}` });
  section(`classes-${view.key}`, DATA.views.length > 1 ? `Classes, ${view.label.toLowerCase()}` : "Classes", DATA.text.classes,
    made.find ? make("div", { class: "find" }, made.find) : null, made.panel);
}
const changeOf = (image) => image.r[1].q - image.r[0].q;
gallery({
  id: "pictures", title: "Pictures", text: DATA.text.pictures, wide: true, perPage: 12,
  orders: [
    ["changed", "most changed first", (image) => -Math.abs(changeOf(image))],
    ["better", "better in B first", (image) => -changeOf(image)],
    ["worse", "worse in B first", changeOf],
    ["name", "by name", (image) => image.n],
  ],
  card: (image, state) => cardOf(image, [0, 1].map((run) => frame(image, "found", { run, least: state.least })), image.n,
    `${GALLERY.figure} ${image.r.map((one) => number(one.q / GALLERY.scale, GALLERY.digits)).join(" → ")}`, `${image.n}: open`),
});
