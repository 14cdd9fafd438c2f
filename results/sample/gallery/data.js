"use strict";
/* The data files: each is a script that calls one function here, since file:// lets no page fetch. */

(() => {
  const KEPT_SHARDS = 12;
  const waiting = new Map(); // file -> what its script resolves
  const shards = new Map(); // file -> promise of its values, least recently used first

  /** Called by data/index.js. */
  G.index = (columns) => G.begin(expand(columns));
  /** Called by data/cNNNN.js, data/pNNNN.js, data/map.js, data/text.js, data/words.js, local.js. */
  G.shard = (k, cards) => waiting.get(numbered("c", k))?.(cards);
  G.calls = (k, calls) => waiting.get(numbered("p", k))?.(calls);
  G.map = (places) => waiting.get("data/map.js")?.(places);
  G.texts = (texts) => waiting.get("data/text.js")?.(texts);
  G.words = (found) => waiting.get("data/words.js")?.(found);
  G.local = (roots) => waiting.get("local.js")?.(roots);

  G.cards = (k) => kept(numbered("c", k));
  G.callsOf = (k) => kept(numbered("p", k));
  G.once = (file) => kept(file);

  const numbered = (kind, k) => `data/${kind}${String(k).padStart(4, "0")}.js`;

  function kept(file) {
    const known = shards.get(file) ?? load(file);
    shards.delete(file);
    shards.set(file, known);
    if (shards.size > KEPT_SHARDS) shards.delete(shards.keys().next().value);
    known.catch(() => shards.delete(file));
    return known;
  }

  function load(file) {
    return new Promise((resolve, reject) => {
      const script = G.el("script", { src: file, on: { error: () => reject(new Error(file)), load: () => script.remove() } });
      waiting.set(file, resolve);
      document.head.append(script);
    });
  }

  /** The columns as the page uses them: a value a latent. Older galleries have them so already. */
  function expand(columns) {
    const index = { ...columns, meta: { pool: "max", dense_by: "images", domain_images: [], ...columns.meta } };
    for (const name of ["state", "status", "supported", "failure", "transfer"]) index[name] = words(columns[name]);
    const n = index.status.length;
    index.supported ??= new Array(n).fill(null);
    index.failure ??= new Array(n).fill("");
    index.token_frequency ??= new Array(n).fill(null);
    index.shares ??= earlierShares(columns);
    if (columns.images) {
      for (const name of ["score", "low", "high"]) index[name] = columns[name].map((value) => (value === null ? null : value / 10000));
      index.thumb = columns.thumb.map((at) => (at === null ? null : columns.images[at]));
    }
    index.top_classes ??= { names: [], of: [] };
    index.overview ??= { nulls: [], cost: [], failures: [], settings: [], versions: {}, k: null };
    index.meta.nulls = index.overview.nulls;
    onDemand(index, "groups", () => groups(index.label));
    index.lowerClasses = index.top_classes.names.map((name) => name.toLowerCase());
    searchable(index);
    return index;
  }

  function words(column) {
    if (!column || Array.isArray(column)) return column;
    const { names, codes } = column, found = new Array(codes.length);
    for (let i = 0; i < codes.length; i++) { const code = codes.charCodeAt(i); found[i] = names[code < 58 ? code - 48 : code - 87]; }
    return found;
  }

  /** A gallery of an older version knows the share of one domain alone. */
  function earlierShares({ meta: { domains, share_of: name }, share }) {
    const other = (value) => (value === null || domains.length > 2 ? null : 1 - value);
    return domains.map((domain) => (domain === name ? share : share.map(other)));
  }

  /** Label without regard to case and blanks -> how many latents have it. */
  function groups(labels) {
    const counts = new Map();
    for (const label of labels) {
      if (label === null) continue;
      const words = G.wording(label);
      counts.set(words, (counts.get(words) ?? 0) + 1);
    }
    return counts;
  }

  G.wording = (label) => { const lower = label.toLowerCase(); return /\s\s|^\s|\s$|[^\S ]/.test(lower) ? lower.split(/\s+/).filter(Boolean).join(" ") : lower; };

  /** What a latent is searched by: label, classes and, once they are there, descriptions; a line each. */
  G.searched = (index, i) => {
    const { of } = index.top_classes;
    const classes = of[i]?.map((at) => index.lowerClasses[at]).join("\n") ?? "";
    return `${index.label[i] === null ? "" : index.label[i].toLowerCase()}\n${classes}\n${index.texts ? index.texts[i].toLowerCase() : ""}`;
  };

  /**
   * `index.search`: what each latent is searched by, all in one text, where a word is found in a fraction of the time that
   * it takes latent by latent. It is made when a word is first looked for, or a part at a time by what is returned.
   */
  function searchable(index) {
    const n = index.status.length, starts = new Int32Array(n + 1), changed = new Set();
    const line = (id) => (G.review.hides(id) ? "" : G.searched(index, id));
    let lines = [], whole = null;
    const fill = (end) => { while (lines.length < end) lines.push(line(lines.length)); };
    const join = () => {
      if (whole === null) fill(n);
      else lines = Array.from(starts.subarray(1), (end, id) => (changed.has(id) ? line(id) : whole.slice(starts[id], end - 1)));
      for (let id = 0; id < n; id++) starts[id + 1] = starts[id] + lines[id].length + 1;
      whole = lines.join("\n");
      lines = [];
      changed.clear();
    };
    index.search = {
      /** By latent, 1 where it has the word, which holds no blanks. */
      having: (word) => {
        if (whole === null || changed.size) join();
        const found = new Uint8Array(n);
        for (let at = whole.indexOf(word), id = 0; at >= 0; at = whole.indexOf(word, starts[id + 1])) {
          while (starts[id + 1] <= at) id += 1;
          found[id] = 1;
        }
        return found;
      },
      /** What the latent is searched by is another now. */
      renew: (id) => { if (whole !== null) changed.add(id); else if (id < lines.length) lines[id] = line(id); },
    };
    const go = () => { fill(Math.min(n, lines.length + 2000)); if (lines.length < n) setTimeout(go); else join(); };
    return () => { if (whole === null) go(); };
  }

  /** A column that most visits have no need of. */
  function onDemand(index, name, make) {
    Object.defineProperty(index, name, { configurable: true, enumerable: true, get: () => {
      const value = make();
      Object.defineProperty(index, name, { value, writable: true });
      return value;
    } });
  }

  /** Descriptions come after the list is there; an older gallery has none. */
  G.loadTexts = async (index) => {
    if (!index.images) return;
    index.texts = await G.once("data/text.js").catch(() => undefined);
    searchable(index)();
  };
})();
