// One picture at full size: annotated beside predicted, arrow keys for the next, Esc to go back.

const viewer = {
  dialog: document.getElementById("viewer"), list: [], at: 0, least: 0, onlyErrors: false, opener: null, spot: null,

  open(list, at, opener, spot = null) {
    Object.assign(this, { list, at, opener, spot });
    if (!this.dialog.open) { this.least = GALLERY.least || 0; this.dialog.showModal(); }
    this.draw();
  },

  step(by) {
    const next = this.at + by;
    if (next < 0 || next >= this.list.length) return;
    this.at = next;
    this.spot = null;
    this.draw();
  },

  draw() {
    const image = GALLERY.images[this.list[this.at]];
    const held = this.dialog.contains(document.activeElement) && document.activeElement.dataset.hold;
    const press = (text, label, hold, action, off) => make("button", { class: "step", type: "button", "aria-label": label, "data-hold": hold, onclick: action, disabled: off, text });
    const title = make("h2", { id: "viewer-title" }, image.n, make("small", { text: `${this.at + 1} of ${whole(this.list.length)} · ${image.size ? image.size.join(" × ") : `${image.w} × ${image.h}`}` }));
    const buttons = make("div", { class: "buttons" },
      press("←", "Previous picture", "back", () => this.step(-1), this.at === 0),
      press("→", "Next picture", "next", () => this.step(1), this.at === this.list.length - 1),
      press("Close", "Close", "close", () => this.dialog.close()));
    const stage = make("div", { class: "stage" }), side = make("aside", { tabindex: -1 });
    const body = make("div", { class: "viewer" }, make("header", {}, title, buttons), make("div", { class: "body" }, stage, side), this.footer());
    this.dialog.replaceChildren(body);
    if (DETECTS) this.detection(image, stage, side); else this.segmentation(image, stage, side);
    (held && this.dialog.querySelector(`[data-hold="${held}"]:enabled`) || this.dialog.querySelector('[data-hold="close"]')).focus();
  },

  pane(stage, caption, node) {
    stage.append(make("figure", {}, make("figcaption", { text: caption }), make("div", { class: "fit" }, node)));
    return node;
  },

  detection(image, stage, side) {
    const least = this.least, only = this.onlyErrors ? (mark) => mark.kind !== "correct" : null;
    const truthBoxes = new Map(), runBoxes = DATA.runs.map(() => new Map());
    const truth = this.pane(stage, "Annotated", frame(image, "truth", { labels: true, lazy: false, boxes: truthBoxes }));
    const runs = DATA.runs.map((name, run) => this.pane(stage, DATA.runs.length > 1 ? name : "Predicted", frame(image, "found", { run, least, labels: true, lazy: false, only, boxes: runBoxes[run] })));
    if (this.spot) for (const node of [truth, ...runs]) {
      const mark = boxOn(this.spot.box, { color: css("accent"), dashed: true });
      mark.classList.add("hot");
      node.append(mark);
    }
    const drawnFor = image.u;
    besideOf(image).then((found) => {
      if (!found || GALLERY.images[this.list[this.at]].u !== drawnFor) return;
      const gt = annotated(image, 0);
      addOutlines(truth, found.t, truthBoxes, (index) => (gt[index].state ? css("missed") : classColor(gt[index].label)));
      runs.forEach((node, run) => {
        const all = detected(image, run);
        addOutlines(node, found.r[run], runBoxes[run], (index) => css(all[index].kind));
      });
    });
    DATA.runs.forEach((name, run) => {
      const marks = detected(image, run).filter((mark) => mark.score >= least && (!only || only(mark)));
      this.listOf(side, DATA.runs.length > 1 ? name : `Predicted, score ${least.toFixed(2)} and more`, marks.map((mark) => ({
        color: css(mark.kind), name: className(mark.label), value: mark.score.toFixed(2), box: runBoxes[run].get(mark.index),
        note: mark.kind === "correct" ? `correct, IoU ${mark.iou.toFixed(2)}` : mark.iou > 0 ? `${mark.kind}, IoU ${mark.iou.toFixed(2)}` : mark.kind,
      })));
    });
    this.listOf(side, "Annotated", annotated(image, 0).map((mark) => ({
      color: classColor(mark.label), name: className(mark.label), value: "", box: truthBoxes.get(mark.index),
      note: mark.state === MISSED ? "not found" : mark.state === CROWD ? "crowd, not counted" : null,
    })));
  },

  segmentation(image, stage, side) {
    const truth = this.pane(stage, "Annotated", frame(image, "truth", { lazy: false }));
    const panes = [truth];
    DATA.runs.forEach((name, run) => {
      panes.push(this.pane(stage, DATA.runs.length > 1 ? name : "Predicted", frame(image, "found", { run, lazy: false })));
      if (DATA.runs.length === 1) panes.push(this.pane(stage, "Wrong pixels", frame(image, "wrong", { run, lazy: false })));
    });
    if (this.spot) for (const node of panes) {
      const mark = boxOn(this.spot.box, { color: css("accent"), dashed: true });
      mark.classList.add("hot");
      node.append(mark);
    }
    besideOf(image).then((grid) => { if (grid && truth.isConnected) tellClasses(panes, grid); });
    DATA.runs.forEach((name, run) => {
      const flat = image.r[run].c, entries = [];
      for (let at = 0; at < flat.length; at += 4) entries.push(flat.slice(at, at + 4));
      entries.sort((a, b) => b[1] + b[2] - a[1] - a[2]);
      this.listOf(side, DATA.runs.length > 1 ? `${name}: IoU` : "IoU in this picture", entries.map(([label, inTruth, inFound, iou]) => ({
        color: classColor(label), name: className(label), value: number(iou / 10, 1),
        note: `${number(inTruth / 10)} % annotated, ${number(inFound / 10)} % predicted`,
      })));
    });
  },

  listOf(side, heading, entries) {
    side.append(make("h3", { text: `${heading} (${entries.length})` }), make("ol", {}, entries.map((entry) => {
      const light = (on) => () => entry.box && entry.box.classList.toggle("hot", on);
      const inner = [make("i", { class: "swatch", style: { background: entry.color } }), make("span", { text: entry.name }), make("span", { text: entry.value }), entry.note ? make("small", { text: entry.note }) : null];
      return make("li", {}, entry.box
        ? make("button", { type: "button", onpointerenter: light(true), onpointerleave: light(false), onfocus: light(true), onblur: light(false) }, inner)
        : make("div", {}, inner));
    })));
  },

  footer() {
    const parts = [make("span", { class: "hint", text: "← → next picture · Esc back to the report" })];
    if (DETECTS) {
      const value = make("output", { text: this.least.toFixed(2) });
      parts.unshift(
        make("label", {}, "Least score", make("input", { type: "range", min: 0, max: 1, step: 0.01, value: this.least, "data-hold": "least", oninput: (event) => { value.textContent = (+event.target.value).toFixed(2); }, onchange: (event) => { this.least = +event.target.value; this.draw(); } }), value),
        make("label", {}, make("input", { type: "checkbox", checked: this.onlyErrors, "data-hold": "errors", onchange: (event) => { this.onlyErrors = event.target.checked; this.draw(); } }), "Errors only"));
      parts.push(kindLegend());
    } else if (DATA.runs.length === 1) parts.push(kindLegend());
    return make("footer", {}, parts);
  },
};

function kindLegend() {
  const names = DETECTS ? GALLERY.kinds : GALLERY.pixelKinds;
  return make("span", { class: "legend" }, names.map((name) => make("span", { class: "key" }, make("i", { style: { background: css(name), height: "8px", width: "8px" } }), name)));
}

viewer.dialog.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) { event.preventDefault(); viewer.step(by); }
});
viewer.dialog.addEventListener("click", (event) => { if (event.target === viewer.dialog) viewer.dialog.close(); });
viewer.dialog.addEventListener("close", () => {
  viewer.dialog.replaceChildren();
  if (viewer.opener && viewer.opener.isConnected) viewer.opener.focus();
});
