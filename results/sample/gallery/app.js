"use strict";
/* The page: what the address says is what is shown. #/17?q=wheel&sort=score, #/list?show=labelled, #/map */

(() => {
  const { el, text } = G;
  const $ = (id) => document.getElementById(id);
  const VIEWS = { start: ["", "Overview"], list: ["list", "List"], map: ["map", "Map"] };
  const START = { q: "", sort: "score", show: "all", support: "", transfer: "", failure: "", label: "", top: "", class: "", score: "", share: "", freq: "" };

  let index = null;
  let list = null;
  let controls = null;
  let state = { view: "start", id: null, ...START };

  G.state = () => state;
  G.hasOriginals = () => Boolean(index.meta.has_originals);
  /** What the list knows of a latent. */
  G.listed = (id) => ({ label: index.label[id], thumb: index.thumb[id], score: index.score[id] });

  /* ---- address ---- */

  function parse(hash) {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
    const asked = new URLSearchParams(query);
    const id = /^\d+$/.test(path) && Number(path) < index.status.length ? Number(path) : null;
    const view = id !== null ? "card" : path === "list" ? "list" : path === "map" && index.has_map ? "map" : "start";
    const next = { view, id, ...START };
    for (const name of Object.keys(START)) if (asked.has(name) && isKnown(name, asked.get(name))) next[name] = asked.get(name);
    return next;
  }

  function isKnown(name, value) {
    if (name === "q") return true;
    if (name === "sort") return Object.hasOwn(G.sorts(index), value);
    if (Object.hasOwn(G.RANGES, name)) return G.range(value) !== null;
    if (name === "label" && /^\d+$/.test(value)) return Number(value) < index.status.length;
    return G.CHOICES[name].choices(index, value).some(([known]) => known === value);
  }

  /** The address of a latent's card (of the view that is open: null) with the list as it is. */
  G.href = (id) => G.hrefWith(id ?? (state.view === "card" ? "" : VIEWS[state.view][0]), state);

  /** The address of a view or card under these filters alone. */
  G.hrefWith = (place, filters = {}) => {
    const query = new URLSearchParams(Object.keys(START).filter((name) => (filters[name] ?? START[name]) !== START[name]).map((name) => [name, filters[name]]));
    return `#/${place}${query.size ? `?${query}` : ""}`;
  };

  /* ---- page ---- */

  /** What reviewing needs of the page. */
  const lent = {
    id: () => state.id,
    goal: () => parse(location.hash).id,
    ids: () => list.ids,
    go: (id) => { location.hash = G.href(id); },
    redraw: () => list?.redraw(),
    relist: () => relist(),
    show: () => draw(),
    say: (words) => { $("said").textContent = words; },
  };

  /** Called with the index, once it is there. */
  G.begin = (columns) => {
    index = columns;
    for (const name of Object.keys(G.CHOICES)) START[name] ??= ""; // a filter that another file adds
    const { meta } = index;
    G.review.begin(index, lent);
    $("run").textContent = meta.run;
    $("summary").textContent = `${G.plural(index.status.length, "latent")} · ${G.plural(meta.n_images, "image")}`;
    controls = G.controls(index, $("controls"), $("filters-body"), change);
    list = new G.List($("rows"), $("space"), $("heads"), index);
    $("query").addEventListener("input", () => change({ q: $("query").value }));
    $("clear").addEventListener("click", () => change({ ...START }));
    document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
    window.addEventListener("hashchange", () => follow(parse(location.hash)));
    document.addEventListener("keydown", onKey);
    follow(parse(location.hash), true);
    afterPaint(controls.finish);
    afterPaint(() => setTimeout(() => G.loadTexts(index).then(() => { if (state.q) relist(); }), 50));
  };

  function change(part) {
    Object.assign(state, part);
    history.replaceState(null, "", G.href(state.id));
    relist();
    if (state.view === "card") steps();
    if (state.view === "map") G.redrawMap();
  }
  G.change = change;

  function follow(next, first = false) {
    const moved = first || Object.keys(START).some((name) => state[name] !== next[name]);
    const turned = first || state.view !== next.view;
    state = next;
    document.body.dataset.view = state.view;
    if (turned) {
      tabs();
      list.resize();
    }
    if (moved) relist();
    else list.mark(state.id);
    if (first && state.view === "start") afterPaint(draw); // the list first
    else draw();
  }

  /** Once the list is on the screen. */
  function afterPaint(then) {
    requestAnimationFrame(() => setTimeout(then));
  }

  function draw() {
    if (state.view === "card") showCard();
    else if (state.view === "map") show(G.mapView(index), "map", "Map");
    else if (state.view === "list") show(el("div"), "list", "List");
    else show(G.overview(index), "start", "Latents");
  }

  function tabs() {
    const known = Object.entries(VIEWS).filter(([name]) => name !== "map" || index.has_map);
    $("tabs").replaceChildren(...known.map(([name, [place, title]]) => el("a.tab", { href: G.hrefWith(place, state), "aria-current": state.view === name ? "page" : null, on: { click: (event) => { event.currentTarget.href = G.hrefWith(place, state); } } }, title)));
  }

  function relist() {
    controls.show(state);
    if ($("query").value !== state.q) $("query").value = state.q;
    list.current = state.id;
    list.set(G.select(index, state));
    const n = list.ids.length;
    const narrowed = Object.keys(START).filter((name) => !["q", "sort", "show"].includes(name) && state[name] !== START[name]).length;
    $("n-filters").textContent = narrowed ? `(${narrowed} on)` : "";
    $("clear").hidden = narrowed === 0 && state.q === "" && state.show === "all";
    $("count").textContent = n === 0 ? "Nothing fits this search." : n === index.status.length ? "" : `${G.plural(n, "latent")} of ${G.count(index.status.length)}${G.meantNote(index, state)}`;
  }

  /** The latents that the list shows, in its order. */
  G.found = () => list.ids;

  async function showCard() {
    const { id } = state;
    const around = list.around(id);
    const { shard_cards: size } = index.meta;
    let shown, card;
    try {
      card = (await G.cards(Math.floor(id / size)))[id % size];
      shown = G.card(G.review.open(card), index.meta, around);
    } catch (error) {
      shown = el("p.notice", { role: "alert" }, "This card cannot be read (", text(error.message), "). Is the gallery folder complete?");
    }
    if (state.id !== id) return; // the reader has gone on
    const same = document.body.dataset.shown === String(id);
    show(shown, String(id), index.label[id] ?? `Latent ${id}`, card);
    if (!same) $("said").textContent = `Latent ${id}: ${index.label[id] ?? "no label"}`;
    const { after } = list.around(id);
    if (after !== null) G.cards(Math.floor(after / size)).catch(() => {});
  }

  /** The card's way to its neighbours, when the list around it has changed. */
  function steps() {
    document.querySelector(".steps")?.replaceChildren(...G.steps(list.around(state.id)));
  }

  function show(node, name, title, card = null) {
    const same = document.body.dataset.shown === name;
    document.title = `${title} – ${index.meta.run}`;
    document.body.dataset.shown = name;
    $("main").replaceChildren(node);
    G.review.show(card);
    if (same) return;
    $("main").scrollTop = 0;
    window.scrollTo(0, 0);
    // On a narrow screen the list has no height while a card is shown.
    if (state.view === "list") list.draw();
  }

  /** Put text on the clipboard and say so; where the browser does not allow it, show it to be copied. */
  G.copy = async (what, said) => {
    try {
      await navigator.clipboard.writeText(what);
      $("said").textContent = said;
      flash(said);
    } catch {
      window.prompt("Copy this:", what);
    }
  };

  function flash(said) {
    document.querySelector(".flash")?.remove();
    const note = el("div.flash", { "aria-hidden": true }, said);
    (document.querySelector("dialog[open]") ?? document.body).append(note);
    setTimeout(() => note.remove(), 1600);
  }

  /* ---- keys ---- */

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const at = document.activeElement;
    const typing = ["SELECT", "TEXTAREA"].includes(at?.tagName) || (at?.tagName === "INPUT" && at.type !== "range");
    if (typing) {
      if (event.key === "Escape") at.blur();
      return;
    }
    const { before, after } = list.around(state.id);
    if (G.review.onKey(event)) { event.preventDefault(); return; }
    if (event.key === "j" && after !== null) location.hash = G.href(after);
    else if (event.key === "k" && before !== null) location.hash = G.href(before);
    else if (event.key === "h") G.toggleHeat();
    else if (event.key === "p" && index.has_map) location.hash = G.hrefWith("map", state);
    else if (event.key === "l") location.hash = G.hrefWith("list", state);
    else if (event.key === "o") location.hash = G.hrefWith("", state);
    else if (event.key === "/") { event.preventDefault(); $("query").focus(); }
  }
})();
