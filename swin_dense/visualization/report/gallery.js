// The pictures in pages, filtered by class, kind of error and score, the worst first.

function gallery({ title, text, id, orders, card, wide, perPage = 24 }) {
  const state = { label: "", kind: "", least: GALLERY.least || 0, order: orders[0][0], page: 0, name: "" };
  const grid = make("div", { class: `grid${wide ? " wide" : ""}` });
  const pager = make("div", { class: "pager" });
  const status = make("p", { class: "readout", "aria-live": "polite" });
  let chosen = [];

  const fits = (image) => {
    if (state.name && !image.n.toLowerCase().includes(state.name)) return false;
    if (!state.label && !state.kind) return true;
    const label = state.label === "" ? null : Number(state.label);
    return DETECTS ? detectionFits(image, label) : regionFits(image, label);
  };

  function detectionFits(image, label) {
    return image.r.some((_, run) => {
      const named = (mark) => label === null || mark.label === label;
      if (state.kind === "missed") return annotated(image, run).some((mark) => mark.state === MISSED && named(mark));
      if (detected(image, run).some((mark) => mark.score >= state.least && named(mark) && (!state.kind || mark.kind === state.kind))) return true;
      return !state.kind && annotated(image, run).some(named);
    });
  }

  function regionFits(image, label) {
    return image.r.some((one) => {
      let has = label === null;
      for (let at = 0; at < one.c.length && !has; at += 4) has = one.c[at] === label;
      return has && (!state.kind || one.k[GALLERY.pixelKinds.indexOf(state.kind)] >= 5);
    });
  }

  function filter() {
    chosen = GALLERY.images.map((_, index) => index).filter((index) => fits(GALLERY.images[index]));
    const key = orders.find(([name]) => name === state.order)[2];
    const values = new Map(chosen.map((index) => [index, key(GALLERY.images[index])]));
    chosen.sort((a, b) => {
      const [left, right] = [values.get(a), values.get(b)];
      return (typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right) || a - b;
    });
    state.page = 0;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(chosen.length / perPage)), from = state.page * perPage;
    const shown = chosen.slice(from, from + perPage);
    grid.replaceChildren(...shown.map((index, at) => {
      const button = card(GALLERY.images[index], state);
      button.addEventListener("click", () => viewer.open(chosen, from + at, button));
      return button;
    }));
    if (!shown.length) grid.replaceChildren(make("p", { class: "empty", text: "No picture fits these filters." }));
    status.textContent = `${plural(chosen.length, "picture")}${chosen.length < GALLERY.images.length ? ` of ${whole(GALLERY.images.length)}` : ""}`;
    const go = (page) => () => { state.page = page; draw(); document.getElementById(id).scrollIntoView(); };
    pager.replaceChildren(...(pages < 2 ? [] : [
      make("button", { class: "step", type: "button", text: "Previous", disabled: state.page === 0, onclick: go(state.page - 1) }),
      make("span", { text: `${whole(from + 1)}–${whole(from + shown.length)} of ${whole(chosen.length)}` }),
      make("button", { class: "step", type: "button", text: "Next", disabled: state.page >= pages - 1, onclick: go(state.page + 1) }),
    ]));
  }

  const set = (key) => (value) => { state[key] = value; filter(); };
  const names = DATA.classes.map((name, index) => [String(index), name]);
  const kinds = DETECTS ? [...GALLERY.kinds, "missed"] : GALLERY.pixelKinds;
  const out = make("output", { text: state.least.toFixed(2) });
  const filters = make("div", { class: "panel filters" },
    choose("Class", [["", "any"], ...names], set("label")),
    choose(DETECTS ? "Detection or miss" : "Wrong pixels", [["", "any"], ...kinds.map((name) => [name, name])], set("kind")),
    DETECTS ? make("label", { class: "field" }, make("span", { style: { color: css("soft") } }, "Least score ", out), make("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: state.least,
      oninput: (event) => { out.textContent = (+event.target.value).toFixed(2); }, onchange: (event) => set("least")(+event.target.value),
    })) : null,
    choose("Order", orders.map(([key, name]) => [key, name]), set("order")),
    make("label", { class: "field" }, "File", make("input", { type: "search", placeholder: "part of a name", oninput: (event) => set("name")(event.target.value.toLowerCase()) })));
  section(id, title, text, filters, make("div", { class: "status" }, status, DETECTS ? kindLegend() : null), grid, pager);
  document.getElementById(id).dataset.gallery = "";
  filter();
}

function cardOf(image, shots, left, right, label) {
  return make("button", { class: "card", type: "button", "aria-label": label },
    make("span", { class: "shot" }, shots.map((shot) => make("span", { class: "fit" }, shot))),
    make("span", { class: "cap" }, make("span", { text: left }), make("b", { text: right })));
}
