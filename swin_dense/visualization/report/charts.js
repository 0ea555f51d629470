// Charts in SVG, drawn anew at the width they have. Values read under the pointer, a finger or the arrow keys.

function responsive(draw) {
  const host = make("div");
  let width = 0;
  new ResizeObserver((entries) => {
    const now = Math.round(entries[0].contentRect.width);
    if (now && now !== width) { width = now; host.replaceChildren(draw(now)); }
  }).observe(host);
  host.redraw = () => { if (width) host.replaceChildren(draw(width)); };
  return host;
}

const EDGE = { left: 46, right: 12, top: 10, bottom: 40 };

function scales(width, height, x, y) {
  const inner = { w: width - EDGE.left - EDGE.right, h: height - EDGE.top - EDGE.bottom };
  return {
    x: (value) => EDGE.left + ((value - x.from) / (x.to - x.from)) * inner.w,
    y: (value) => EDGE.top + (1 - (value - y.from) / (y.to - y.from)) * inner.h,
    back: (px) => x.from + ((px - EDGE.left) / inner.w) * (x.to - x.from),
    inner,
  };
}

function axes(svg, width, height, x, y, at) {
  for (const tick of y.ticks) {
    svg.append(make("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: at.y(tick), y2: at.y(tick) }));
    svg.append(make("text", { x: EDGE.left - 8, y: at.y(tick) + 4, "text-anchor": "end", text: y.format(tick) }));
  }
  svg.append(make("line", { class: "axis", x1: EDGE.left, x2: width - EDGE.right, y1: at.y(y.from), y2: at.y(y.from) }));
  for (const tick of x.ticks)
    svg.append(make("text", { x: at.x(tick), y: height - EDGE.bottom + 18, "text-anchor": "middle", text: x.format(tick) }));
  svg.append(make("text", { x: EDGE.left + at.inner.w / 2, y: height - 4, "text-anchor": "middle", text: x.label }));
  svg.append(make("text", { x: EDGE.left, y: 0, "text-anchor": "start", text: y.label, dy: -2 }));
}

const UNIT = { from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], format: (value) => value.toFixed(2).replace(/0$/, "") };

// one value of x under the cursor at a time; read() tells what the curves say there
function withCursor(svg, height, at, steps, read, spoken, start) {
  const line = make("line", { class: "cursor", y1: EDGE.top, y2: height - EDGE.bottom, visibility: "hidden" });
  const dots = make("g");
  svg.append(line, dots);
  let index = start;
  const show = (next) => {
    index = Math.max(0, Math.min(steps.length - 1, next));
    const found = read(index);
    line.setAttribute("x1", at.x(steps[index]));
    line.setAttribute("x2", at.x(steps[index]));
    line.setAttribute("visibility", "visible");
    dots.replaceChildren(...found.points.map(([value, color]) =>
      make("circle", { cx: at.x(steps[index]), cy: at.y(value), r: 4, fill: color, stroke: css("panel"), "stroke-width": 1.5 })));
    svg.setAttribute("aria-valuenow", steps[index]);
    svg.setAttribute("aria-valuetext", spoken(found.parts));
  };
  const nearest = (event) => {
    const value = at.back(event.clientX - svg.getBoundingClientRect().left);
    let best = 0;
    steps.forEach((step, other) => { if (Math.abs(step - value) < Math.abs(steps[best] - value)) best = other; });
    show(best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("focus", () => show(index));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(index + move);
  });
}

function speak(readout) {
  return (parts) => {
    readout.replaceChildren(...parts.flatMap(([name, value], index) => [index ? " · " : "", `${name} `, make("b", { text: value })]));
    return parts.map((part) => part.join(" ")).join(", ");
  };
}

// series: {name, color, y: [one value a step], dashed}; marks: {x, label}
function lineChart({ label, steps, xLabel, yLabel, series, mark, start }) {
  const readout = make("p", { class: "readout", text: "Point at the chart, or focus it and use the arrow keys." });
  const host = responsive((width) => {
    const height = Math.max(220, Math.min(320, width * 0.62));
    const x = { ...UNIT, label: xLabel }, y = { ...UNIT, label: "" };
    const at = scales(width, height, x, y);
    const svg = make("svg", {
      class: "chart", viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "slider", "aria-label": label,
      "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 0,
    });
    axes(svg, width, height, x, y, at);
    const shown = series().filter((one) => one.y);
    if (mark) {
      svg.append(make("line", { x1: at.x(mark.x), x2: at.x(mark.x), y1: EDGE.top, y2: height - EDGE.bottom, stroke: css("accent"), "stroke-dasharray": "4 4" }));
      const left = mark.x > 0.6;
      svg.append(make("text", { x: at.x(mark.x) + (left ? -7 : 7), y: EDGE.top + 12, "text-anchor": left ? "end" : "start", text: mark.label }));
    }
    for (const one of shown) {
      let path = "";
      one.y.forEach((value, index) => { if (value !== null) path += `${path ? "L" : "M"}${at.x(steps[index]).toFixed(1)} ${at.y(value).toFixed(1)}`; });
      svg.append(make("path", { d: path, fill: "none", stroke: one.color, "stroke-width": one.width || 2, "stroke-linejoin": "round", "stroke-dasharray": one.dashed ? "5 4" : null }));
    }
    withCursor(svg, height, at, steps, (index) => ({
      points: shown.filter((one) => one.y[index] !== null).map((one) => [one.y[index], one.color]),
      parts: [[xLabel.toLowerCase(), number(steps[index], 2)], ...shown.map((one) => [one.name, number(one.y[index], 3)])],
    }), speak(readout), start || 0);
    return svg;
  });
  return { host, readout };
}

function keys(series) {
  return make("div", { class: "legend" }, series.map((one) =>
    make("span", { class: "key" }, make("i", { style: { background: one.dashed ? `repeating-linear-gradient(90deg, ${one.color} 0 4px, transparent 4px 7px)` : one.color } }), one.name)));
}

function reliabilityChart({ label, count, confidence, accuracy }) {
  const readout = make("p", { class: "readout", text: "Point at the chart, or focus it and use the arrow keys." });
  const bins = count.length, centres = count.map((_, index) => (index + 0.5) / bins);
  const most = Math.max(...count, 1);
  const host = responsive((width) => {
    const height = Math.max(240, Math.min(340, width * 0.7));
    const x = { ...UNIT, label: "Confidence" }, y = { ...UNIT, label: "" };
    const at = scales(width, height, x, y);
    const svg = make("svg", {
      class: "chart", viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "slider", "aria-label": label,
      "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": 1,
    });
    axes(svg, width, height, x, y, at);
    const wide = at.inner.w / bins;
    accuracy.forEach((value, index) => {
      const tall = (count[index] / most) * at.inner.h;
      svg.append(make("rect", { x: EDGE.left + index * wide + 1, y: at.y(0) - tall, width: wide - 2, height: tall, fill: css("hair") }));
      if (value !== null)
        svg.append(make("rect", { x: EDGE.left + index * wide + wide * 0.2, y: at.y(value), width: wide * 0.6, height: Math.max(0, at.y(0) - at.y(value)), rx: 2, fill: css("accent"), opacity: 0.85 }));
    });
    svg.append(make("line", { x1: at.x(0), y1: at.y(0), x2: at.x(1), y2: at.y(1), stroke: css("second"), "stroke-dasharray": "5 4", "stroke-width": 1.5 }));
    withCursor(svg, height, at, centres, (index) => ({
      points: accuracy[index] === null ? [] : [[accuracy[index], css("accent")]],
      parts: [["confidence", number(confidence[index], 2)], ["right", number(accuracy[index], 2)], ["predictions", whole(count[index])]],
    }), speak(readout), bins - 1);
    return svg;
  });
  return { host, readout };
}

// a matrix of shares of each row; one cell is in the tab order, the arrow keys move it
function heatMap({ rows, columns, counts, rowName, columnName }) {
  const readout = make("p", { class: "readout", "aria-live": "polite", text: "Point at a cell, or focus one and use the arrow keys." });
  const sums = counts.map((row) => row.reduce((sum, value) => sum + value, 0));
  const cell = rows.length <= 8 ? 52 : rows.length <= 14 ? 40 : 27;
  const cells = [];
  const tell = (r, c) => {
    const share = sums[r] ? (100 * counts[r][c]) / sums[r] : 0;
    speak(readout)([[rowName, rows[r]], [columnName, columns[c]], ["count", whole(counts[r][c])], ["share of the row", `${number(share)} %`]]);
  };
  const body = rows.map((name, r) => make("tr", {}, make("th", { scope: "row", text: name, title: name }), columns.map((_, c) => {
    const share = sums[r] ? counts[r][c] / sums[r] : 0;
    const node = make("td", {
      tabindex: r + c === 0 ? 0 : -1, class: share > 0.55 ? "dense" : null, style: { "--v": share.toFixed(3) },
      text: share >= 0.005 && cell >= 27 ? String(Math.round(100 * share)) : "",
      "aria-label": `${rowName} ${name}, ${columnName} ${columns[c]}: ${number(100 * share)} percent, ${counts[r][c]}`,
      onpointerenter: () => tell(r, c), onfocus: () => tell(r, c),
      onkeydown: (event) => {
        const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] || [0, 0];
        const next = cells[r + dr] && cells[r + dr][c + dc];
        if (!next || !(dr || dc)) return;
        event.preventDefault();
        node.tabIndex = -1; next.tabIndex = 0; next.focus();
      },
    });
    (cells[r] = cells[r] || [])[c] = node;
    return node;
  })));
  const head = make("tr", {}, make("td", { style: { background: "none" } }), columns.map((name) => make("th", { scope: "col", title: name }, make("span", { text: name }))));
  const table = make("table", { class: "heat", style: { "--cell": `${cell}px` } }, make("thead", {}, head), make("tbody", {}, body));
  return { node: make("div", { class: "scroll pad" }, table), readout };
}
