"use strict";
/* The list of all latents: search, filter, sort; only the rows in sight are in the document. */

(() => {
  const { el, text } = G;
  const ROW = 60; // px, as in list.css
  const MARGIN = 6; // rows kept above and below
  const WIDE = 1000; // px from which the list by itself has columns, as in list.css

  G.SHOWN = {
    all: ["All latents", () => true],
    labelled: ["Labelled", (index, i) => index.state[i] === "labelled"],
    unclear: ["Unclear", (index, i) => index.state[i] === "unclear"],
    failed: ["Explainer failed", (index, i) => index.state[i] === "failed"],
    unlabelled: ["Not labelled yet", (index, i) => index.state[i] === "unlabelled" && index.status[i] !== "dead"],
    unscored: ["Labelled, without a score", (index, i) => index.state[i] === "labelled" && index.score[i] === null],
    live: ["Live", (index, i) => index.status[i] === "live"],
    dense: ["Dense", (index, i) => index.status[i] === "dense"],
    dead: ["Dead", (index, i) => index.status[i] === "dead"],
  };

  /** Name -> [text, values by latent, direction]; a missing value always comes last. */
  G.sorts = ({ meta, score, frequency, shares, classes }) => ({
    score: ["Best score first", score, -1],
    worst: ["Lowest score first", score, 1],
    frequent: ["Most frequent first", frequency, -1],
    rare: ["Rarest first", frequency, 1],
    ...shareSorts(meta, shares),
    ...(classes ? { rank: ["First of the class first", null, 1] } : {}),
    id: ["By number", null, 1],
  });

  function shareSorts({ domains, share_of: name }, shares) {
    if (domains.length === 1) return {};
    if (domains.length > 2) return Object.fromEntries(domains.map((domain, i) => [`share${i}`, [`Most ${domain} first`, shares[i], -1]]));
    const values = shares[domains.indexOf(name)];
    return { share: [`Most ${name} first`, values, -1], other: [`Least ${name} first`, values, 1] };
  }

  /** All latents, or those of a class, in order; each order is made once. */
  function ordered(index, { sort, class: name }) {
    if (name) {
      const found = index.classes.latents[index.classes.names.indexOf(name)];
      return sort === "rank" ? found : inOrder(found, G.sorts(index)[sort]);
    }
    index.orders ??= new Map();
    if (!index.orders.has(sort)) index.orders.set(sort, inOrder([...index.status.keys()], G.sorts(index)[sort]));
    return index.orders.get(sort);
  }

  /** By values, equal ones by number. Each value's place among the distinct ones is counted out, which takes a quarter of a sort's time. */
  function inOrder(ids, [, values, direction]) {
    const numbered = Array.from(Int32Array.from(ids).sort());
    if (values === null) return numbered;
    const known = Float64Array.from(new Set(values.filter((value) => value !== null))).sort();
    const places = new Map();
    for (let at = 0; at < known.length; at++) places.set(known[at], direction > 0 ? at : known.length - 1 - at);
    const place = (id) => places.get(values[id]) ?? known.length; // what is missing comes last
    const starts = new Int32Array(known.length + 2);
    for (const id of numbered) starts[place(id) + 1] += 1;
    for (let at = 1; at < starts.length; at++) starts[at] += starts[at - 1];
    const found = new Array(numbered.length);
    for (const id of numbered) found[starts[place(id)]++] = id;
    return found;
  }

  /** The latents that fit a state (a query and filters), in its order. */
  G.select = (index, state) => {
    const words = (state.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const tests = G.tests(index, state);
    const ids = ordered(index, state);
    if (!words.length && !tests.length) return ids;
    const meant = new Set(G.meant(index, state.q));
    const having = words.map((word) => {
      const found = index.search.having(word);
      if (/^#?\d+$/.test(word)) found[Number(word.replace("#", ""))] = 1;
      return found;
    });
    const found = ids.filter((i) => {
      for (const fits of tests) if (!fits(i)) return false;
      if (meant.has(i)) return true;
      for (const has of having) if (!has[i]) return false;
      return true;
    });
    if (!meant.size || state.sort !== "score") return found;
    const fits = new Set(found);
    return [...[...meant].filter((i) => fits.has(i)), ...found.filter((i) => !meant.has(i))]; // the best match first
  };

  /** A list in `box` that draws rows of `index`; `.set(ids)`, `.mark(id)`. `heads` are its columns' heads. */
  G.List = class {
    constructor(box, space, heads, index) {
      Object.assign(this, { box, space, heads, index, ids: [], place: new Int32Array(index.status.length), current: null, drawn: new Map() });
      box.addEventListener("scroll", () => this.draw(), { passive: true });
      new ResizeObserver(() => this.resize()).observe(box);
    }

    set(ids) {
      this.ids = ids;
      this.place.fill(-1);
      for (let at = 0; at < ids.length; at++) this.place[ids[at]] = at;
      this.space.style.height = `${ids.length * ROW}px`;
      this.clear();
      this.box.scrollTop = 0;
      this.mark(this.current);
    }

    /** Mark a latent as the one shown, and bring its row into sight. */
    mark(id) {
      this.current = id;
      const at = id === null ? -1 : this.place[id];
      if (at >= 0) {
        const top = at * ROW, height = this.box.clientHeight;
        if (top < this.box.scrollTop) this.box.scrollTop = top;
        else if (top + ROW > this.box.scrollTop + height) this.box.scrollTop = top + ROW - height;
      }
      this.clear();
      this.draw();
    }

    /** The neighbours of a latent in the list; null at the ends or when it is not listed. */
    around(id) {
      const at = id === null ? -1 : this.place[id];
      if (at < 0) return { before: null, after: this.ids[0] ?? null };
      return { before: this.ids[at - 1] ?? null, after: this.ids[at + 1] ?? null };
    }

    /** Columns where the list has the page to itself. */
    get wide() {
      return document.body.dataset.view === "list" && this.box.clientWidth >= WIDE;
    }

    resize() {
      const wide = this.wide;
      this.box.parentElement.classList.toggle("in-columns", wide);
      if (wide !== this.wasWide) this.clear();
      this.wasWide = wide;
      this.heads.replaceChildren(...(wide ? heads(this.index) : []));
      this.draw();
    }

    redraw() {
      this.clear();
      this.draw();
    }

    clear() {
      this.drawn.clear();
      this.space.replaceChildren();
    }

    draw() {
      const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - MARGIN);
      const last = Math.min(this.ids.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + MARGIN);
      for (const [at, row] of this.drawn) {
        if (at < first || at >= last) {
          row.remove();
          this.drawn.delete(at);
        }
      }
      for (let at = first; at < last; at++) {
        if (this.drawn.has(at)) continue;
        const row = this.row(this.ids[at], at);
        this.drawn.set(at, row);
        this.space.append(row);
      }
    }

    row(id, at) {
      const { index, wide } = this;
      const current = id === this.current;
      const link = el(`a.row${current ? ".current" : ""}`, { href: G.href(id), "aria-current": current ? "page" : null },
        index.thumb[id] ? el("img", { src: G.thumb(G.hex(index.thumb[id])), alt: "", decoding: "async" }) : el("span.blank", { "aria-hidden": true }),
        el("span.row-text", {}, name(index, id), el("span.row-facts", {}, facts(index, id, wide))),
        wide ? cells(index, id) : null,
        score(index, id));
      const item = el("div.row-place", { role: "listitem", "aria-setsize": this.ids.length, "aria-posinset": at + 1 }, link);
      item.style.transform = `translateY(${at * ROW}px)`;
      return item;
    }
  };

  function facts(index, id, wide) {
    const status = index.status[id] === "live" ? null : el(`span.badge.${index.status[id]}`, {}, index.status[id]);
    if (wide) return [el("span", { title: "The latent's number" }, `#${id}`), G.review.mark(id), status];
    const dead = index.status[id] === "dead", tokens = index.token_frequency[id];
    return [el("span", { title: "The latent's number" }, `#${id}`), G.review.mark(id),
      dead ? null : el("span", { title: "Share of all images on which it is active" }, G.percent(index.frequency[id])),
      dead || !G.hasTokens(index.meta) || tokens === null ? null : el("span", { title: "Share of all tokens on which it is active" }, `${G.percent(tokens)} tokens`),
      status];
  }

  /** What a row shows besides, where there is room: as `heads` names it. */
  function cells(index, id) {
    const { meta, shares } = index;
    const share = meta.domains.length > 1 ? shares[meta.domains.indexOf(meta.share_of)][id] : null;
    const classes = (G.review.hides(id) ? [] : index.top_classes.of[id] ?? []).map((at) => index.top_classes.names[at]).join(", ");
    return [
      el("span.cell.row-classes", { title: classes }, text(classes || "–")),
      el("span.cell", {}, index.supported[id] ?? (index.failure[id] ? text(index.failure[id].replaceAll("_", " ")) : "–")),
      el("span.cell.number-cell", {}, index.status[id] === "dead" ? "–" : G.percent(index.frequency[id])),
      meta.domains.length > 1 ? el("span.cell.number-cell", {}, G.fixed(share)) : null,
    ];
  }

  function heads({ meta }) {
    const sort = (title, key, back) => el("button.head-button", { type: "button", on: { click: () => G.change({ sort: G.state().sort === key ? back : key }) } }, title);
    return [
      el("span"), sort("Latent", "id", "score"), el("span", {}, "Most frequent classes"), el("span", {}, "Support"),
      sort("Active on", "frequent", "rare"),
      meta.domains.length === 2 ? sort(`Share of ${meta.share_of}`, "share", "other") : meta.domains.length > 1 ? el("span", {}, text(`Share of ${meta.share_of}`)) : null,
      sort("AUROC", "score", "worst"),
    ];
  }

  function name(index, id) {
    if (index.label[id] !== null) return el("span.row-name", { title: index.label[id] }, text(index.label[id]));
    const why = G.review.hides(id) ? "hidden until your guess" : index.status[id] === "dead" ? "never active" : index.state[id] === "failed" ? "no label" : "not labelled yet";
    return el("span.row-name.none", {}, why);
  }

  function score(index, id) {
    const value = index.score[id];
    if (value === null) return el("span.row-score.none", { title: "Not scored" }, "–");
    const [low, high] = [index.low[id], index.high[id]];
    return el("span.row-score", { title: `AUROC ${G.fixed(value)}${low === null ? "" : `, 95% interval ${G.fixed(low)} to ${G.fixed(high)}`}; 0.5 is chance` },
      el("span", {}, G.fixed(value)), G.dotAndWhisker({ value, low, high, height: 12, radius: 3 }));
  }
})();
