// The report of one run: each section from its part of the data, those without data left out.

const main = document.getElementById("main");
startTheme();
main.append(make("h1", { text: DATA.heading }));
main.append(...DATA.about.map((line) => make("p", { class: "meta" }, line.map((part) => (part.code ? make("code", { text: part.code }) : part.text)))));

function summary() {
  main.append(make("dl", { class: "tiles panel" }, DATA.summary.map((tile) => {
    const change = tile.previous === undefined || tile.previous === null ? null : tile.value - tile.previous;
    const better = change === null || Math.abs(change) < 0.5 * 10 ** -tile.digits ? 0 : Math.sign(change) * (tile.lower ? -1 : 1);
    const note = change === null ? tile.note || "" : null;
    return make("div", { class: "tile" }, make("dt", { text: tile.label, title: tile.hint }), make("dd", { text: number(tile.value, tile.digits) }),
      note !== null ? make("p", { class: "note", text: note })
        : make("p", { class: "note" }, make("span", { class: better > 0 ? "up" : better < 0 ? "down" : null, text: better ? signed(change, tile.digits) : "unchanged" }), better ? ` from ${number(tile.previous, tile.digits)}` : ""));
  })));
  if (DATA.previous) main.append(make("p", { class: "readout", text: DATA.previous }));
}

function curves(view) {
  let picked = null;
  const whole = { name: "all classes", color: css("accent"), y: view.curves.all };
  const strict = { name: "all, IoU 0.75", color: css("accent"), y: view.curves.strict, dashed: true, width: 1.5 };
  const pr = lineChart({
    label: "Precision over recall", steps: view.curves.recall, xLabel: "Recall", start: 50,
    series: () => [whole, strict, ...(picked === null ? [] : [{ name: DATA.classes[picked], color: css("second"), y: view.curves.classes[picked] }])],
  });
  const legend = make("div");
  const relabel = () => legend.replaceChildren(keys([{ name: "All classes, IoU 0.5", color: css("accent") }, { name: "IoU 0.75", color: css("accent"), dashed: true }, ...(picked === null ? [] : [{ name: DATA.classes[picked], color: css("second") }])]));
  relabel();
  const present = DATA.classes.map((name, index) => [String(index), name]).filter(([index]) => view.curves.classes[index]);
  const select = choose("Add a class", [["", "none"], ...present], (value) => { picked = value === "" ? null : Number(value); relabel(); pr.host.redraw(); });
  const scores = [
    { name: "F1", color: css("accent"), y: view.scores.f1, width: 2.5 },
    { name: "precision", color: css("good"), y: view.scores.precision, width: 1.5 },
    { name: "recall", color: css("second"), y: view.scores.recall, width: 1.5 },
  ];
  const best = view.threshold;
  const f1 = lineChart({
    label: "F1, precision and recall over the score threshold", steps: view.scores.steps, xLabel: "Score threshold", series: () => scores,
    mark: best && { x: best.score, label: `best F1 at ${number(best.score, 2)}` }, start: best ? Math.round(best.score * 100) : 0,
  });
  return make("div", { class: "cols" },
    make("div", { class: "panel pad" }, make("div", { class: "chart-head" }, make("h3", { text: "Precision and recall" }), select), legend, pr.host, pr.readout),
    make("div", { class: "panel pad" }, make("div", { class: "chart-head", style: { "min-height": "57px" } }, make("h3", { text: "Which threshold to choose" })), keys(scores), f1.host, f1.readout));
}

function errors(view) {
  const most = Math.max(...view.errors.map((entry) => entry.cost), 1e-9);
  const sorted = [...view.errors].sort((a, b) => b.cost - a.cost);
  return make("div", { class: "panel scroll" }, make("table", { class: "data plain errors" },
    make("thead", {}, make("tr", {}, [DETECTS ? "Kind" : "Wrong pixels", view.costLabel, view.countLabel].map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, sorted.map((entry) => make("tr", {},
      make("td", {}, make("i", { class: "swatch", style: { background: css(entry.name) } }), make("span", { class: "name", text: entry.name[0].toUpperCase() + entry.name.slice(1) }), make("small", { text: entry.text })),
      make("td", {}, make("span", { class: "track" }, make("i", { style: { width: `${(100 * entry.cost) / most}%`, background: css(entry.name) } })), make("span", { class: "cost", text: number(entry.cost, 1) })),
      make("td", { text: view.countShare ? `${number(entry.count, 2)} %` : whole(entry.count) }))))));
}

function confusion(view) {
  const heat = heatMap(view.confusion);
  const parts = make("div", {}, make("div", { class: "panel" }, heat.node, make("div", { class: "foot" }, make("span", { text: view.confusion.note }))), heat.readout);
  if (!view.confusion.pairs.length) return parts;
  const list = sortedTable({
    columns: [{ label: "Annotated" }, { label: "Predicted" }, { label: view.confusion.unit, digits: 0 }, { label: "Share, %", digits: 1 }],
    rows: view.confusion.pairs, first: 2, falling: true, limit: 8, caption: "What is taken for what most often",
  });
  const wide = view.confusion.rows.length > 14;
  return make("div", { class: wide ? "" : "cols top-cols" }, parts, make("div", {}, make("h3", { class: wide ? "gap" : "list-head", text: "Most frequent confusions" }), list.panel));
}

function everySection() {
  summary();
  const views = DATA.views;
  const part = (id, title, text, build) => {
    if (!views.some((view) => build(view))) return;
    const holder = make("div");
    const { head } = section(id, title, text, holder);
    const draw = (view) => holder.replaceChildren(build(view) || make("p", { class: "none", text: "Nothing to show." }));
    if (views.length > 1) head.append(tabs(views.map((view) => [view.key, view.label]), "Boxes or masks", (key) => draw(views.find((view) => view.key === key))));
    draw(views[0]);
  };
  part("curves", "Curves", "", (view) => view.curves && curves(view));
  part("classes", "Classes", DATA.text.classes, (view) => {
    const made = sortedTable({ ...view.table, colors: DATA.colors, caption: "Figures of each class" });
    return make("div", {}, made.find ? make("div", { class: "find" }, made.find) : null, made.panel);
  });
  part("errors", "Errors", DATA.text.errors, errors);
  part("confusion", "Confusion", DATA.text.confusion, (view) => view.confusion && confusion(view));
  part("calibration", "Calibration", DATA.text.calibration, (view) => {
    if (!view.calibration) return null;
    const chart = reliabilityChart({ label: "Share that is right over confidence", ...view.calibration });
    return make("div", { class: "panel pad", style: { "max-width": "640px" } }, keys([{ name: "share that is right", color: css("accent") }, { name: "as it should be", color: css("second"), dashed: true }, { name: "how many", color: css("line") }]), chart.host, chart.readout);
  });
  doubts();
  gallery({
    id: "pictures", title: "Pictures", text: DATA.text.pictures,
    orders: [
      ["worst", "worst first", (image) => image.r[0].q],
      ["best", "best first", (image) => -image.r[0].q],
      ...(DETECTS ? [["errors", "most errors first", (image) => -(image.r[0].n[1] + image.r[0].n[2])]] : []),
      ["name", "by name", (image) => image.n],
    ],
    card: (image, state) => cardOf(image, [frame(image, "found", { least: state.least })], image.n, `${GALLERY.figure} ${number(image.r[0].q / GALLERY.scale, GALLERY.digits)}`, `${image.n}, ${GALLERY.figure} ${number(image.r[0].q / GALLERY.scale, GALLERY.digits)}: open`),
  });
}

function doubts() {
  if (!DATA.doubts.length) return;
  let shown = 8;
  const grid = make("div", { class: "grid" }), more = make("button", { class: "quiet", type: "button", text: "Show more", onclick: () => { shown += 16; draw(); } });
  const draw = () => {
    grid.replaceChildren(...DATA.doubts.slice(0, shown).map((doubt) => {
      const image = GALLERY.images[doubt.image], node = frame(image, DETECTS ? "photo" : "truth");
      const mark = boxOn(doubt.box, { color: css("accent") });
      node.append(mark);
      const card = cardOf(image, [node], doubt.text, number(doubt.weight, 2), `${image.n}: ${doubt.text}: open`);
      card.title = `${image.n}: ${doubt.text}`;
      card.addEventListener("click", () => viewer.open(DATA.doubts.map((one) => one.image), DATA.doubts.indexOf(doubt), card, doubt));
      return card;
    }));
    more.hidden = shown >= DATA.doubts.length;
  };
  draw();
  section("doubts", "Doubtful annotations", DATA.text.doubts, grid, make("div", { class: "pager" }, more));
}

everySection();
