"use strict";
/* The map of decoder directions: like ones lie near each other. */

(() => {
  const { el, text } = G;
  const GROUPS = ["#3d6ea8", "#c9772b", "#4d8c6a", "#8d5a9c", "#b83a52", "#7b7f2d", "#2a93a8", "#a8663d", "#5b62c4", "#c45b9d", "#5f9e3b", "#7a6f66"];
  const SUPPORT = { supported: "#23784f", undecided: "#c9962f", unsupported: "#b83a32" };
  const VERDICTS = { right: "#23784f", partly: "#c9962f", wrong: "#b83a32", unclear: "#5b62c4" };
  const NONE = "#8b9198";
  let colouring = "score";
  let places = null;
  let points = null;

  /** Name -> { title, colour(index, places) -> (id) -> css, key(index) -> elements }. Other files may add to it. */
  G.COLOURINGS = {
    score: { title: "AUROC", colour: (index) => (id) => (index.score[id] === null ? NONE : G.ramp(2 * index.score[id] - 1)), key: () => ramp("0.5 or less", "1") },
    share: { title: "Share of a domain", has: ({ meta }) => meta.domains.length > 1, colour: (index) => { const values = index.shares[index.meta.domains.indexOf(index.meta.share_of)]; return (id) => (values[id] === null ? NONE : G.ramp(values[id])); }, key: ({ meta }) => ramp(`never ${meta.share_of}`, `${meta.share_of} only`) },
    cluster: { title: "Cluster of directions", colour: (index, { cluster }) => (id) => GROUPS[cluster[id] % GROUPS.length], key: () => [el("span", {}, "each group of like directions in a colour of its own")] },
    support: { title: "Support", has: ({ supported }) => supported.some(Boolean), colour: (index) => (id) => SUPPORT[index.supported[id]] ?? NONE, key: () => Object.entries(SUPPORT).map(([name, colour]) => dot(name, colour)) },
  };

  G.COLOURINGS.verdict = { title: "A person's verdict", has: () => G.review.kept() !== "nowhere", colour: () => (id) => VERDICTS[G.review.of(id)?.verdict] ?? NONE, key: () => [...Object.entries(VERDICTS), ["not reviewed", NONE]].map(([name, colour]) => dot(name, colour)) };

  G.mapView = (index) => {
    const known = Object.entries(G.COLOURINGS).filter(([, { has }]) => !has || has(index));
    const key = el("p.map-key");
    const stage = el("div.map-stage", {}, el("p.missing", {}, "The map is being read."));
    const select = el("select", { id: "colouring", on: { change: () => { colouring = select.value; redraw(); } } }, known.map(([name, { title }]) => el("option", { value: name, selected: name === colouring }, title)));
    const redraw = () => {
      key.replaceChildren(...G.COLOURINGS[colouring].key(index));
      if (places) paint = G.COLOURINGS[colouring].colour(index, places);
      points?.redraw();
    };
    let paint = () => NONE;
    let shown = new Set();
    G.redrawMap = () => { shown = new Set(G.found()); points?.redraw(); };
    G.once("data/map.js").then((found) => {
      places = found;
      const share = (values) => values.map((value) => (value === null ? null : value / found.side));
      shown = new Set(G.found());
      points = G.scatter({ x: share(found.x), y: share(found.y), colour: (id) => paint(id), faint: (id) => !shown.has(id), name: "Map of decoder directions" });
      stage.replaceChildren(points);
      method.textContent = `${found.method}. Near means a like direction; far apart says little. The filters of the list fade the others.`;
      redraw();
    }, (error) => stage.replaceChildren(el("p.notice", { role: "alert" }, "The map cannot be read (", text(error.message), ").")));
    const method = el("p.caption");
    return el("article.map-view", {},
      el("div.map-head", {}, el("h1", {}, "Map of directions"),
        el("label", {}, "Colour by ", select), key,
        el("span.map-zoom", {}, [["+", 1.5, "Zoom in"], ["–", 0.66, "Zoom out"], ["All", null, "Show all"]].map(([sign, factor, title]) => el("button.plain-button", { type: "button", title, "aria-label": title, on: { click: () => points?.zoom(factor) } }, sign)))),
      stage, method);
  };
  G.redrawMap = () => {};

  const dot = (name, colour) => { const mark = el("i.key-dot", { "aria-hidden": true }); mark.style.background = colour; return el("span.key-name", {}, mark, name); };

  function ramp(from, to) {
    const bar = el("i.key-ramp", { "aria-hidden": true });
    bar.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map(G.ramp).join(", ")})`;
    return [el("span", {}, text(from)), bar, el("span", {}, text(to))];
  }
})();
