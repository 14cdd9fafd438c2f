"use strict";
/* The page: what the address says is what is shown. #/17?q=wheel&sort=score&show=labelled */

(() => {
  const { el, text } = G;
  const $ = (id) => document.getElementById(id);
  const KEPT_SHARDS = 12;
  const START = { q: "", sort: "score", show: "all", class: "" };

  let index = null;
  let list = null;
  let state = { id: null, ...START };
  const shards = new Map(); // k -> promise of cards, least recently used first
  const waiting = new Map(); // k -> what a shard's script resolves

  /* ---- data ---- */

  /** Called by data/index.js. */
  G.index = (columns) => {
    index = columns;
    index.shares ??= earlierShares(columns);
    index.token_frequency ??= index.label.map(() => null); // an older gallery does not know it, nor
    index.meta = { pool: "max", dense_by: "images", ...index.meta }; // any other way
    index.lower = index.label.map((label) => (label === null ? "" : label.toLowerCase()));
    begin();
  };

  /** A gallery of an older version knows the share of one domain alone. */
  function earlierShares({ meta: { domains, share_of: name }, share }) {
    const other = (value) => (value === null || domains.length > 2 ? null : 1 - value);
    return domains.map((domain) => (domain === name ? share : share.map(other)));
  }

  /** Called by data/cNNNN.js. */
  G.shard = (k, cards) => waiting.get(k)?.(cards);

  function shard(k) {
    const known = shards.get(k) ?? load(k);
    shards.delete(k);
    shards.set(k, known);
    if (shards.size > KEPT_SHARDS) shards.delete(shards.keys().next().value);
    return known;
  }

  function load(k) {
    return new Promise((resolve, reject) => {
      const file = `data/c${String(k).padStart(4, "0")}.js`;
      const script = el("script", { src: file, on: { error: () => reject(new Error(file)), load: () => script.remove() } });
      waiting.set(k, resolve);
      document.head.append(script);
    });
  }

  /* ---- address ---- */

  function parse(hash) {
    const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
    const asked = new URLSearchParams(query);
    const id = /^\d+$/.test(path) && Number(path) < index.status.length ? Number(path) : null;
    const known = (name, names) => (Object.hasOwn(names, asked.get(name) ?? "") ? asked.get(name) : START[name]);
    const name = index.classes?.names.includes(asked.get("class")) ? asked.get("class") : "";
    return { id, q: asked.get("q") ?? "", sort: known("sort", G.sorts(index)), show: known("show", Object.fromEntries(G.shown(index))), class: name };
  }

  /** The address of a latent's card (of the start page: null) with the list as it is. */
  G.href = (id) => {
    const query = new URLSearchParams(Object.keys(START).filter((name) => state[name] !== START[name]).map((name) => [name, state[name]]));
    return `#/${id ?? ""}${query.size ? `?${query}` : ""}`;
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
    show: () => (state.id === null ? showStart() : showCard()),
    say: (words) => { $("said").textContent = words; },
  };

  function begin() {
    const { meta } = index;
    G.review.begin(index, lent);
    $("run").textContent = meta.run;
    $("summary").textContent = `${G.plural(index.status.length, "latent")} · ${G.plural(meta.n_images, "image")}`;
    options($("show"), G.shown(index).map(([name, [title, fits]]) => [name, `${title} (${G.count(index.status.filter((_, i) => fits(index, i)).length)})`]));
    options($("sort"), Object.entries(G.sorts(index)).map(([name, [title]]) => [name, title]));
    const { names, latents } = index.classes ?? { names: [] };
    $("of-class").hidden = names.length === 0;
    options($("class"), [["", "All classes"], ...names.map((name, i) => [name, `${name} (${G.count(latents[i].length)})`])]);
    list = new G.List($("rows"), $("space"), index);
    $("query").addEventListener("input", () => change({ q: $("query").value }));
    $("show").addEventListener("change", () => change({ show: $("show").value }));
    $("sort").addEventListener("change", () => change({ sort: $("sort").value }));
    $("class").addEventListener("change", () => change({ class: $("class").value, sort: $("class").value ? "rank" : START.sort }));
    document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });
    window.addEventListener("hashchange", () => follow(parse(location.hash)));
    document.addEventListener("keydown", onKey);
    follow(parse(location.hash), true);
  }

  function options(select, pairs) {
    select.replaceChildren(...pairs.map(([value, title]) => el("option", { value }, title)));
  }

  function change(part) {
    Object.assign(state, part);
    history.replaceState(null, "", G.href(state.id));
    relist();
    if (state.id !== null) showCard();
  }

  function follow(next, first = false) {
    const moved = first || Object.keys(START).some((name) => state[name] !== next[name]);
    state = next;
    if (moved) relist();
    else list.mark(state.id);
    if (state.id === null) showStart();
    else showCard();
  }

  function relist() {
    for (const [id, name] of [["query", "q"], ["sort", "sort"], ["show", "show"], ["class", "class"]]) if ($(id).value !== state[name]) $(id).value = state[name];
    list.current = state.id;
    list.set(G.select(index, state));
    const n = list.ids.length;
    $("count").textContent = n === 0 ? "Nothing fits this search." : n === index.status.length ? "" : `${G.plural(n, "latent")} of ${G.count(index.status.length)}`;
  }

  async function showCard() {
    const { id } = state;
    const around = list.around(id);
    const { shard_cards: size } = index.meta;
    let shown, card;
    try {
      card = (await shard(Math.floor(id / size)))[id % size];
      shown = G.card(G.review.open(card), index.meta, around);
    } catch (error) {
      shards.delete(Math.floor(id / size));
      shown = el("p.notice", { role: "alert" }, "This card cannot be read (", text(error.message), "). Is the gallery folder complete?");
    }
    if (state.id !== id) return; // the reader has gone on
    const same = document.body.dataset.shown === String(id);
    show(shown, String(id), index.label[id] ?? `Latent ${id}`, card);
    if (!same) $("said").textContent = `Latent ${id}: ${index.label[id] ?? "no label"}`;
    if (around.after !== null) shard(Math.floor(around.after / size)).catch(() => shards.delete(Math.floor(around.after / size)));
  }

  function show(node, name, title, card = null) {
    const same = document.body.dataset.shown === name;
    document.title = `${title} – ${index.meta.run}`;
    document.body.dataset.shown = name;
    document.body.classList.toggle("has-card", name !== "start");
    $("main").replaceChildren(node);
    G.review.show(card);
    if (same) return;
    $("main").scrollTop = 0;
    window.scrollTo(0, 0);
    // On a narrow screen the list has no height while a card is shown.
    if (name === "start") list.draw();
  }

  function showStart() {
    const present = (values) => values.filter((value) => value !== null);
    const scores = present(index.score).sort((a, b) => a - b);
    const tally = (show) => index.status.filter((_, i) => G.SHOWN[show][1](index, i)).length;
    const { meta } = index;
    const figure = (value, name, title) => el("div", { title }, el("strong", {}, value), el("span", {}, name));
    const empty = (command) => el("p.missing", {}, "Nothing yet; ", el("code", {}, command), " fills this in.");
    show(el("article.card.start", {},
      el("header.head", {}, el("div.eyebrow", {}, el("span.source", {}, G.source(meta))),
        el("h1", {}, text(meta.run)),
        el("p.description", {}, `${G.plural(index.status.length, "latent")} of a sparse autoencoder, looked at on ${G.plural(meta.n_images, "image")} of `,
          meta.domains.map((name, i) => [i === 0 ? "" : i === meta.domains.length - 1 ? " and " : ", ", el("em", {}, text(name))]).flat(), ".")),
      el("div.headline", {},
        figure(G.count(tally("labelled")), "labelled", "Latents with a label"),
        figure(G.count(tally("live")), "live", "Active on some images, not on too many"),
        figure(G.count(tally("dense")), "dense", "Active on so many images that a single label seldom fits"),
        figure(G.count(tally("dead")), "dead", "Active on no image"),
        figure(scores.length ? G.fixed(scores[Math.floor(scores.length / 2)]) : "–", "median AUROC", "Of the scored latents; 0.5 is chance")),
      el("div.figures", {},
        el("section.panel", {}, el("h2", {}, "Scores"),
          scores.length ? [G.distribution(scores, 20, "Latents by AUROC", 0.5), G.axis([[0, "0"], [0.5, "chance"], [1, "1"]]), el("p.caption", {}, `${G.plural(scores.length, "scored latent")} by AUROC on unseen images`)] : empty("interp score")),
        meta.domains.length === 1 ? null : el("section.panel.where", {}, el("h2", {}, "Where latents answer"), shares(meta))),
      samples("Labels that predict best", "score"),
      samples("Labels that predict worst", "worst"),
      el("p.keys", {}, el("kbd", {}, "j"), " next  ", el("kbd", {}, "k"), " previous  ", el("kbd", {}, "/"), " search  ", el("kbd", {}, "h"), " heat map"),
      el("p.keys.more", {}, el("kbd", {}, "1"), " right  ", el("kbd", {}, "2"), " partly  ", el("kbd", {}, "3"), " wrong  ", el("kbd", {}, "4"), " unclear  ", el("kbd", {}, "n"), " next to review  ", el("kbd", {}, "u"), " undo  ", el("kbd", {}, "e"), " better label  ", el("kbd", {}, "m"), " note  ", el("kbd", {}, "b"), " blind")),
    "start", "Latents");
  }

  /** How much of the latents' rates is one domain's: of two it says all, of more one figure each. */
  function shares({ domains, share_of: name }) {
    const figure = (domain, line) => [
      G.distribution(index.shares[domains.indexOf(domain)].filter((value) => value !== null), 20, `Latents by ${domain} share`, line),
      G.axis([[0, `never ${domain}`], ...(line === null ? [] : [[line, "all alike"]]), [1, `${domain} only`]]),
    ];
    if (domains.length === 2) return [figure(name, null), el("p.caption", {}, `latents by ${name} share of their rates`)];
    return [domains.map((domain) => figure(domain, 1 / domains.length)), el("p.caption", {}, "latents by each domain's share of their rates")];
  }

  /** A row of pictures that lead to the first latents of an order; nothing without two rows of scores. */
  function samples(title, sort) {
    const ids = G.select(index, { q: "", show: "labelled", sort }).filter((id) => index.score[id] !== null);
    if (ids.length < 16) return null;
    return el("section.images", {}, el("h2", {}, title), el("div.tiles.large", {}, ids.slice(0, 8).map((id) =>
      el("a.sample", { href: G.href(id), title: `#${id}, AUROC ${G.fixed(index.score[id])}` },
        el("span.frame", {}, index.thumb[id] ? el("img", { src: G.thumb(G.hex(index.thumb[id])), alt: "" }) : null),
        el("span.sample-name", {}, text(index.label[id])), el("span.sample-score", {}, G.fixed(index.score[id]))))));
  }

  /* ---- keys ---- */

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
    if (typing) {
      if (event.key === "Escape") document.activeElement.blur();
      return;
    }
    const { before, after } = list.around(state.id);
    if (G.review.onKey(event)) { event.preventDefault(); return; }
    if (event.key === "j" && after !== null) location.hash = G.href(after);
    else if (event.key === "k" && before !== null) location.hash = G.href(before);
    else if (event.key === "h") G.toggleHeat();
    else if (event.key === "/") { event.preventDefault(); $("query").focus(); }
  }
})();
