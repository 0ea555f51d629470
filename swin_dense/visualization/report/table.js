// A table that sorts by its heads, and shows its first rows until asked for all.

// columns: {label, digits, meter (the largest value), hint, signed}; rows: arrays, the first entry a name
function sortedTable({ columns, rows, colors, limit = 20, first = 0, falling = false, caption }) {
  let column = first, down = falling, all = rows.length <= limit + 5, search = "";
  const body = make("tbody");
  const heads = columns.map((entry, index) => make("th", { scope: "col", title: entry.hint, class: rows.length && typeof rows[0][index] === "string" ? "text" : null },
    make("button", { type: "button", text: entry.label, onclick: () => { down = column === index ? !down : index > 0; column = index; draw(); } })));
  const note = make("span");
  const more = make("button", { type: "button", class: "quiet", onclick: () => { all = !all; draw(); } });
  const foot = make("div", { class: "foot" }, note, more);

  function cellOf(row, entry, index) {
    const value = row[index];
    if (value === null) return make("td", {}, make("span", { class: "none", text: "–" }));
    if (typeof value === "string") return make("td", { class: "text", text: value });
    const text = entry.signed ? signed(value, entry.digits) : entry.digits === 0 ? whole(value) : number(value, entry.digits);
    const tone = entry.signed && entry.clear && row[entry.clear] ? (value > 0 ? "up" : "down") : null;
    const cell = make("td", {}, make("span", { class: tone, text }));
    if (entry.meter) cell.append(make("span", { class: "meter" }, make("i", { style: { width: `${Math.max(0, Math.min(100, (100 * value) / entry.meter))}%` } })));
    return cell;
  }

  function draw() {
    const order = rows.map((row, index) => index).filter((index) => rows[index][0].toLowerCase().includes(search));
    order.sort((a, b) => {
      const [left, right] = [rows[a][column], rows[b][column]];
      if (left === null || right === null) return (left === null) - (right === null);
      const sign = typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right;
      return (down ? -sign : sign) || a - b;
    });
    heads.forEach((head, index) => index === column ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    const shown = all ? order : order.slice(0, limit);
    body.replaceChildren(...shown.map((index) => make("tr", {},
      make("th", { scope: "row" }, colors ? make("i", { class: "swatch", style: { background: colors[index] } }) : null, rows[index][0]),
      columns.slice(1).map((entry, at) => cellOf(rows[index], entry, at + 1)))));
    note.textContent = shown.length < order.length ? `${shown.length} of ${order.length} shown` : plural(order.length, "row");
    more.hidden = rows.length <= limit + 5;
    more.textContent = all ? "Show fewer" : "Show all";
  }

  draw();
  const table = make("table", { class: "data" }, make("caption", { text: caption, hidden: true }), make("thead", {}, make("tr", {}, heads)), body);
  const panel = make("div", { class: "panel" }, make("div", { class: "scroll" }, table), rows.length > limit + 5 ? foot : null);
  const find = make("label", { class: "field" }, "Find", make("input", { type: "search", placeholder: "class", oninput: (event) => { search = event.target.value.toLowerCase(); draw(); } }));
  return { panel, find: rows.length > limit ? find : null };
}
