// A photograph with what was annotated or predicted on it, and the masks that a file beside the page brings.

const GALLERY = DATA.gallery;
const DETECTS = DATA.task === "detection";
const CROWD = 2, MISSED = 1;

const classColor = (label) => DATA.colors[label] || "#808080";
const className = (label) => DATA.classes[label] ?? "nothing";
const onColor = (hex) => {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
};

// the flat lists of a picture as objects; places are thousandths of its sides
function annotated(image, run) {
  const found = [];
  for (let at = 0, index = 0; at < image.t.length; at += 5, index++)
    found.push({ index, label: image.t[at], box: image.t.slice(at + 1, at + 5), state: image.r[run].s[index] });
  return found;
}

function detected(image, run) {
  const flat = image.r[run].d, found = [];
  for (let at = 0, index = 0; at < flat.length; at += 8, index++)
    found.push({ index, label: flat[at], score: flat[at + 1] / 1000, kind: GALLERY.kinds[flat[at + 2]] || "passed over", iou: flat[at + 3] / 1000, box: flat.slice(at + 4, at + 8) });
  return found;
}

const source = (image, ending) => `${encodeURIComponent(GALLERY.folder)}/${image.u}${ending}`;

function boxOn(box, { color, text, dashed, mute }) {
  const [x, y, w, h] = box;
  const node = make("div", {
    class: `box${dashed ? " dashed" : ""}${y < 60 ? " low" : ""}${x > 700 ? " right" : ""}${mute ? " mute" : ""}`,
    style: { left: `${x / 10}%`, top: `${y / 10}%`, width: `${w / 10}%`, height: `${h / 10}%`, "--c": color },
  });
  if (text) node.append(make("span", { text }));
  return node;
}

// what: "photo", "truth", "found" or "wrong"; run: which of the runs; least: the least score shown
function frame(image, what, { run = 0, least = 0, labels = false, lazy = true, only = null, boxes = null } = {}) {
  const node = make("div", { class: "frame", style: { "--ratio": (image.w / image.h).toFixed(4) } });
  const picture = (ending, name) => make("img", { src: source(image, ending), alt: "", loading: lazy ? "lazy" : null, decoding: "async", draggable: "false", class: name });
  node.append(picture(".jpg"));
  if (!DETECTS) {
    if (what === "truth") node.append(picture("_t.png", "over"));
    if (what === "found") node.append(picture(`_${run}.png`, "over"));
    if (what === "wrong") node.append(picture(`_${run}e.png`, "over solid"));
    return node;
  }
  const marks = what === "truth"
    ? annotated(image, run).map((mark) => ({ ...mark, color: mark.state === MISSED ? css("missed") : mark.state === CROWD ? "#9a9ea8" : classColor(mark.label), text: className(mark.label) + (mark.state === CROWD ? " (crowd)" : ""), dashed: mark.state !== 0 }))
    : what === "found"
      ? detected(image, run).filter((mark) => mark.score >= least && (!only || only(mark))).map((mark) => ({ ...mark, color: css(mark.kind), text: `${className(mark.label)} ${mark.score.toFixed(2)}`, dashed: false }))
      : [];
  const order = [...marks].sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3]);
  for (const mark of order) {
    const drawn = boxOn(mark.box, { ...mark, text: labels ? mark.text : null, mute: marks.length > 14 });
    drawn.style.setProperty("--t", what === "truth" && mark.state === 0 ? onColor(classColor(mark.label)) : "#0b0c0f");
    drawn.dataset.index = mark.index;
    node.append(drawn);
    if (boxes) boxes.set(mark.index, drawn);
  }
  return node;
}

// outlines of masks, or coarse label maps, come from a script beside the page: a file opened from a disk may not fetch
const waiting = new Map();
window.swinDenseBeside = (name, content) => { const done = waiting.get(name); if (done) done(content); };
function besideOf(image) {
  if (!GALLERY.beside) return Promise.resolve(null);
  return new Promise((resolve) => {
    waiting.set(image.u, (found) => { waiting.delete(image.u); resolve(found); });
    const script = make("script", { src: source(image, ".js"), onerror: () => resolve(null), onload: () => script.remove() });
    document.head.append(script);
  });
}

function labelsOf(flat, size) {
  const labels = new Int32Array(size);
  for (let at = 0, from = 0; at < flat.length; at += 2) { labels.fill(flat[at], from, from + flat[at + 1]); from += flat[at + 1]; }
  return labels;
}

// the classes at one place of a picture stand in all captions at once
function tellClasses(panes, grid) {
  const size = grid.w * grid.h, truth = labelsOf(grid.t, size), runs = grid.r.map((flat) => labelsOf(flat, size));
  const captions = panes.map((pane) => pane.closest("figure").querySelector("figcaption"));
  const plain = captions.map((caption) => caption.textContent);
  const dots = panes.map((pane) => { const dot = make("i", { class: "dot" }); pane.append(dot); return dot; });
  const reset = () => { captions.forEach((caption, index) => { caption.textContent = plain[index]; }); dots.forEach((dot) => { dot.hidden = true; }); };
  reset();
  for (const pane of panes) {
    pane.addEventListener("pointermove", (event) => {
      const place = pane.getBoundingClientRect();
      const x = (event.clientX - place.left) / place.width, y = (event.clientY - place.top) / place.height;
      if (x < 0 || y < 0 || x >= 1 || y >= 1) return reset();
      const cell = Math.floor(y * grid.h) * grid.w + Math.floor(x * grid.w);
      captions.forEach((caption, index) => {
        const labels = index === 0 ? truth : runs[index - 1];
        if (labels) caption.textContent = `${plain[index]}: ${DATA.classes[labels[cell]] ?? "not labelled"}`;
      });
      dots.forEach((dot) => { dot.hidden = false; dot.style.left = `${100 * x}%`; dot.style.top = `${100 * y}%`; });
    });
    pane.addEventListener("pointerleave", reset);
  }
}

function addOutlines(node, polygons, boxes, color) {
  if (!polygons) return;
  const svg = make("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" });
  for (const [index] of boxes) for (const points of polygons[index] || [])
    svg.append(make("polygon", { points: points.join(" "), style: { fill: color(index), "fill-opacity": 0.28, stroke: color(index), "stroke-width": 1.5, "vector-effect": "non-scaling-stroke" } }));
  node.insertBefore(svg, node.children[1] || null);
}
