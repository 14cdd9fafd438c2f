"use strict";
/* The list of all latents: search, filter, sort; only the rows in sight are in the document. */

(() => {
  const { el, text } = G;
  const ROW = 60; // px, as in app.css
  const MARGIN = 6; // rows kept above and below

  G.SHOWN = {
    all: ["All latents", () => true],
    labelled: ["Labelled", (index, i) => index.state[i] === "labelled"],
    supported: ["Label supported", (index, i) => index.supported[i] === "supported"],
    undecided: ["Label undecided", (index, i) => index.supported[i] === "undecided"],
    unsupported: ["Label not supported", (index, i) => index.supported[i] === "unsupported"],
    unclear: ["Unclear", (index, i) => index.state[i] === "unclear"],
    failed: ["Explainer failed", (index, i) => index.state[i] === "failed"],
    unlabelled: ["Not labelled yet", (index, i) => index.state[i] === "unlabelled" && index.status[i] !== "dead"],
    live: ["Live", (index, i) => index.status[i] === "live"],
    dense: ["Dense", (index, i) => index.status[i] === "dense"],
    dead: ["Dead", (index, i) => index.status[i] === "dead"],
    shape: ["Across domains: shape", (index, i) => index.transfer?.[i] === "shape"],
    bound: ["Across domains: bound to one", (index, i) => index.transfer?.[i] === "domain-bound"],
    oneway: ["Across domains: one way", (index, i) => index.transfer?.[i] === "one way"],
    open: ["Across domains: undecided", (index, i) => index.transfer?.[i] === "undecided"],
  };

  /** The filters that this run has something for. */
  G.shown = (index) => Object.entries(G.SHOWN).filter(([name]) => index.transfer || !["shape", "bound", "oneway", "open"].includes(name));

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

  /** The latents that fit a query, a filter and a class, in order. */
  G.select = (index, { q, sort, show, class: name }) => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = G.SHOWN[show][1];
    const of = name ? index.classes.latents[index.classes.names.indexOf(name)] : [...index.status.keys()];
    const found = of.filter((i) => fits(index, i) && words.every((word) => index.lower[i].includes(word) || word.replace(/^#/, "") === String(i)));
    const [, values, direction] = G.sorts(index)[sort];
    if (values === null) return sort === "rank" ? found : found.sort((a, b) => a - b);
    const rank = (i) => (values[i] === null ? Infinity : direction * values[i]);
    return found.sort((a, b) => rank(a) - rank(b) || a - b || 0);
  };

  /** A list in `box` that draws rows of `index`; `.set(ids)`, `.mark(id)`. */
  G.List = class {
    constructor(box, space, index) {
      Object.assign(this, { box, space, index, ids: [], current: null, drawn: new Map() });
      box.addEventListener("scroll", () => this.draw(), { passive: true });
      new ResizeObserver(() => this.draw()).observe(box);
    }

    set(ids) {
      this.ids = ids;
      this.place = new Map(ids.map((id, at) => [id, at]));
      this.space.style.height = `${ids.length * ROW}px`;
      this.clear();
      this.box.scrollTop = 0;
      this.mark(this.current);
    }

    /** Mark a latent as the one shown, and bring its row into sight. */
    mark(id) {
      this.current = id;
      const at = this.place.get(id);
      if (at !== undefined) {
        const top = at * ROW, height = this.box.clientHeight;
        if (top < this.box.scrollTop) this.box.scrollTop = top;
        else if (top + ROW > this.box.scrollTop + height) this.box.scrollTop = top + ROW - height;
      }
      this.clear();
      this.draw();
    }

    /** The neighbours of a latent in the list; null at the ends or when it is not listed. */
    around(id) {
      const at = this.place.get(id);
      if (at === undefined) return { before: null, after: this.ids[0] ?? null };
      return { before: this.ids[at - 1] ?? null, after: this.ids[at + 1] ?? null };
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
      const { index } = this;
      const current = id === this.current;
      const link = el(`a.row${current ? ".current" : ""}`, { href: G.href(id), "aria-current": current ? "page" : null },
        index.thumb[id] ? el("img", { src: G.thumb(G.hex(index.thumb[id])), alt: "", decoding: "async" }) : el("span.blank", { "aria-hidden": true }),
        el("span.row-text", {}, name(index, id),
          el("span.row-facts", {}, el("span", { title: "The latent's number" }, `#${id}`), G.review.mark(id),
            index.status[id] === "dead" ? null : el("span", { title: "Share of all images on which it is active" }, G.percent(index.frequency[id])),
            index.status[id] === "dead" || !G.hasTokens(index.meta) || index.token_frequency[id] === null ? null : el("span", { title: "Share of all tokens on which it is active" }, `${G.percent(index.token_frequency[id])} tokens`),
            index.status[id] === "live" ? null : el(`span.badge.${index.status[id]}`, {}, index.status[id]))),
        score(index, id));
      const item = el("div.row-place", { role: "listitem", "aria-setsize": this.ids.length, "aria-posinset": at + 1 }, link);
      item.style.transform = `translateY(${at * ROW}px)`;
      return item;
    }
  };

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
