"use strict";
/* What people say of labels: kept in this browser, or sent to `interp review`. Blind mode: what is not guessed yet is taken out of the index, so that nothing on the page can show it. */

(() => {
  const { el } = G;
  const R = (G.review = {});
  const OPEN = ["status", "frequency", "token_frequency", "shares", "thumb", "lower", "domains"]; // columns that blind mode leaves

  R.WORDS = ["right", "partly", "wrong", "unclear"];
  R.SIGNS = { right: "✓", partly: "~", wrong: "✗", unclear: "?" };

  let index = null; // the columns of data/index.js
  let own = {}; // as they came, without what a person said
  let page = null; // what app.js lends: id, ids, go, redraw, show, say
  let now = {}; // what `interp review` sends before the index
  let isBlind = false;
  let random = [];
  const verdicts = new Map(); // latent -> the verdict that counts
  const guesses = new Map(); // latent -> what was typed before its label showed
  const unsent = new Map(); // id of a verdict -> the verdict, and why it was not saved
  const last = new Map(); // latent -> id of the verdict that was given last
  let asked = Promise.resolve(); // until the server has answered: the verdict given last arrives last
  const undone = []; // [latent, the verdict before], last change last

  /** Called by the server's data/index.js, before G.index: the verdicts of now, kept in the run. */
  G.now = (values) => { now = values; };

  /** Take the index before anything of it is shown. */
  R.begin = (columns, lent) => {
    [index, page] = [columns, R.page = lent];
    const n = index.status.length;
    own = Object.fromEntries(Object.entries(index).filter(([name, column]) => Array.isArray(column) && column.length === n && !OPEN.includes(name)).map(([name, column]) => [name, column.slice()]));
    isBlind = remembered(sessionStorage, key("blind")) === "on";
    random = shuffled(n);
    for (const record of now.reviews ?? index.review?.reviews ?? []) put(record);
    if (R.kept() === "browser") for (const record of stored()) put(record);
    if (isBlind) for (let id = 0; id < n; id++) recall(id);
    for (let id = 0; id < n; id++) if (isBlind || verdicts.has(id)) apply(id);
    window.addEventListener("storage", ({ key: name }) => { if (name?.startsWith(key("verdict"))) { reload(name); } });
    window.addEventListener("focus", () => { if (R.kept() === "run") fetchAll(); });
    window.addEventListener("beforeunload", (event) => { if (unsent.size) event.preventDefault(); });
    if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token
    R.drawTools();
  };

  /** Where verdicts go: "run", "browser", or "nowhere" where the gallery does not say whose it is. */
  R.kept = () => (index.review?.run ? now.kept ?? "browser" : "nowhere");

  const key = (what, ...more) => ["sae-interp", what, index.review?.run ?? "", ...more].join(" ");

  /* ---- what is known ---- */

  R.of = (id) => verdicts.get(id) ?? null;
  R.guess = (id) => guesses.get(id) ?? verdicts.get(id)?.guess ?? "";
  R.machine = (id) => own.label[id];

  /** Whether the judge takes a label to hold: it is supported, or where no null was graded its interval lies above chance; null without a score. */
  R.accepts = (id) => (own.score[id] === null ? null : own.supported[id] ? own.supported[id] === "supported" : own.low[id] > 0.5);

  R.isBlind = () => isBlind;
  R.unsent = () => [...unsent.values()];
  R.canUndo = () => undone.length > 0;

  /** Whether what was said of a latent may not be seen yet. */
  R.hides = (id) => isBlind && own.label[id] !== null && !verdicts.has(id) && !guesses.has(id);

  const isOpen = (id) => own.label[id] !== null && index.status[id] !== "dead" && !verdicts.has(id);

  R.progress = () => {
    const all = own.label.map((_, id) => id).filter((id) => own.label[id] !== null && index.status[id] !== "dead");
    return { done: all.filter((id) => verdicts.has(id)).length, all: all.length };
  };

  /** A label that is a person's, to be shown in the place of the machine's. */
  R.label = (id) => verdicts.get(id)?.better || null;

  /** What of a card may be shown now: of one that is still to be guessed, pictures without words. */
  R.open = (card) => {
    if (!R.hides(card.id)) return card;
    const { status, n_active, frequency, token_frequency, mean, max, hist, rates } = card.stats;
    return {
      id: card.id, blind: true, label_hash: card.label_hash,
      stats: { status, n_active, frequency, token_frequency, mean, max, hist, rates, entropy: null, classes: [] },
      explanation: null, score: null, causal: "", support: null, transfer: null, tasks: [], verdicts: [],
      images: card.images.map(([id, domain, , , ...rest]) => [id, domain, "", "", ...rest]),
      top: card.top, quantiles: card.quantiles,
    };
  };

  /** A small sign for a row of the list. */
  R.mark = (id) => {
    const found = verdicts.get(id);
    return found ? el(`span.verdict-mark.${found.verdict}`, { title: `A person says: ${found.verdict}`, role: "img", "aria-label": `verdict: ${found.verdict}` }, R.SIGNS[found.verdict]) : null;
  };

  /* ---- orders and filters of the list ---- */

  const sorts = G.sorts;
  G.sorts = (columns) => ({
    ...sorts(columns),
    ...(R.kept() === "nowhere" ? {} : {
      score: ["Best score first", own.score, -1],
      worst: ["Lowest score first", own.score, 1],
      random: ["In random order", random, 1],
      ...(own.gain ? { gain: ["Highest gain first", own.gain, -1] } : {}),
      ...(own.disagreement ? { truth: ["Judge against truth first", own.disagreement, -1] } : {}),
    }),
  });

  Object.assign(G.SHOWN, {
    todo: ["Not reviewed yet", (_, id) => isOpen(id)],
    reviewed: ["Reviewed", (_, id) => verdicts.has(id)],
    ...Object.fromEntries(R.WORDS.map((word) => [`said-${word}`, [`Verdict: ${word}`, (_, id) => verdicts.get(id)?.verdict === word]])),
    edited: ["With a person's label", (_, id) => Boolean(R.label(id))],
  });

  /** Chances from 0 to 1, the same ones each time for a seed. */
  R.chances = (seed) => {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  };

  /** The same order each time, by the run alone. */
  function shuffled(n) {
    const draw = R.chances([...(index.review?.run ?? "")].reduce((sum, sign) => (Math.imul(sum, 31) + sign.charCodeAt(0)) | 0, 7));
    return Array.from({ length: n }, draw);
  }

  /** The next latent of the list without a verdict; null where there is none. */
  R.next = () => {
    const ids = page.ids(), at = ids.indexOf(page.id());
    return [...ids.slice(at + 1), ...ids.slice(0, Math.max(at, 0))].find(isOpen) ?? null;
  };

  /* ---- saying ---- */

  /** Say something of a card's label; what was said before can be had back by `undo`. */
  R.say = (card, verdict, { better = "", note = "" }) => {
    undone.push([card, verdicts.get(card.id) ?? null]);
    return send(record(card, { verdict, better, note }));
  };

  /** Take the last change back; the latent that it was of, or null. */
  R.undo = () => {
    if (!undone.length) return null;
    const [card, before] = undone.pop();
    send(record(card, before ?? { verdict: "withdrawn" }));
    return card.id;
  };

  function record({ id: latent, label_hash }, { verdict, better = "", note = "", guess = R.guess(latent) }) {
    const digits = crypto.getRandomValues(new Uint8Array(16));
    return {
      id: Array.from(digits, (byte) => byte.toString(16).padStart(2, "0")).join(""),
      run: index.review.run, latent, label: own.label[latent] ?? "", label_hash, verdict,
      better: clean(better, 200) === own.label[latent] ? "" : clean(better, 200), note: note.trim().slice(0, 2000), guess: clean(guess, 200),
      at: `${new Date().toISOString().slice(0, 19)}Z`,
    };
  }

  const clean = (words, most) => Array.from(words.split(/\s+/).filter(Boolean).join(" ")).slice(0, most).join("");

  /** Keep a verdict, and tell the page when it is safe, or why it is not. */
  async function send(said) {
    put(said);
    apply(said.latent);
    for (const [id, one] of unsent) if (one.said.latent === said.latent && one.why) unsent.delete(id); // it holds no more
    unsent.set(said.id, { said, why: "" });
    last.set(said.latent, said.id);
    R.changed(said.latent);
    try {
      if (R.kept() === "run") await inTurn(() => post(said));
      else keep(said);
      unsent.delete(said.id);
    } catch (error) {
      if (last.get(said.latent) === said.id) unsent.set(said.id, { said, why: error.message });
      else unsent.delete(said.id);
    }
    R.changed(said.latent);
  }

  function inTurn(work) {
    const turn = asked.then(work);
    asked = turn.catch(() => {});
    return turn;
  }

  /** Try once more to save what could not be saved. */
  R.again = () => { for (const { said, why } of R.unsent()) if (why) send(said); };

  async function post(said) {
    let answer;
    try {
      answer = await fetch("verdicts", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) });
    } catch {
      throw new Error("`interp review` does not answer; is it still running?");
    }
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).refused ?? `status ${answer.status}`);
  }

  /** Each verdict has a place of its own: two tabs never write over each other's. */
  function keep(said) {
    try {
      localStorage.setItem(key("verdict", said.latent, said.label_hash), JSON.stringify(said));
    } catch {
      throw new Error("this browser keeps nothing; export the verdicts before you leave");
    }
  }

  function stored() {
    try {
      return Object.keys(localStorage).filter((name) => name.startsWith(`${key("verdict")} `)).map((name) => parsed(localStorage.getItem(name))).filter(Boolean);
    } catch {
      return [];
    }
  }

  /** What is not of our form is none of ours: other pages of this disk write here too. */
  function parsed(json) {
    try {
      const said = JSON.parse(json);
      const texts = ["id", "run", "label", "label_hash", "verdict", "better", "note", "guess", "at"];
      return texts.every((name) => typeof said[name] === "string") && Number.isInteger(said.latent) ? said : null;
    } catch {
      return null;
    }
  }

  /** What another tab has written. */
  function reload(name) {
    const said = parsed(remembered(localStorage, name));
    if (said) take([said]);
  }

  async function fetchAll() {
    const found = await inTurn(async () => {
      const answer = await fetch("verdicts");
      return answer.ok ? answer.json() : null;
    }).catch(() => null);
    if (!found) return;
    const there = new Set(found.map(({ latent }) => latent));
    take([...found, ...[...verdicts.values()].filter(({ latent }) => !there.has(latent)).map((said) => ({ ...said, verdict: "withdrawn" }))]);
  }

  function take(records) {
    const waiting = new Set(R.unsent().map(({ said }) => said.latent));
    for (const said of records) {
      const known = verdicts.get(said.latent);
      if (waiting.has(said.latent) || (known?.id === said.id && known.verdict === said.verdict)) continue;
      put(said);
      apply(said.latent);
      R.changed(said.latent);
    }
  }

  /** The last word on a latent, where it is of the label that it has. */
  function put(said) {
    if (!Object.hasOwn(own.label, said.latent) || said.label !== (own.label[said.latent] ?? "")) return;
    if (R.WORDS.includes(said.verdict)) verdicts.set(said.latent, said);
    else verdicts.delete(said.latent);
  }

  /** The verdicts of this browser as lines of a file that `interp verdicts import` takes. */
  R.lines = () => {
    const said = new Map(stored().map((one) => [one.latent, one]));
    for (const { said: one } of R.unsent()) said.set(one.latent, one);
    return [...said.values()].sort((a, b) => a.latent - b.latent).map((one) => `${JSON.stringify(one)}\n`);
  };

  R.runName = () => index.meta.run;

  /* ---- blind mode ---- */

  R.setBlind = (on) => {
    isBlind = on;
    remember(sessionStorage, key("blind"), on ? "on" : "off");
    for (let id = 0; id < index.status.length; id++) apply(id);
    page.relist();
    page.show();
    page.say(on ? "Labels and scores are hidden until your guess." : "Labels and scores are shown."); // what was read out names a label
    R.drawTools();
  };

  /** A guess opens what was hidden. */
  R.setGuess = (id, words) => {
    guesses.set(id, clean(words, 200));
    remember(sessionStorage, key("guess", id), guesses.get(id));
    apply(id);
    page.redraw();
    page.show();
  };

  function recall(id) {
    const words = remembered(sessionStorage, key("guess", id));
    if (words) guesses.set(id, words);
  }

  /** Put into the index what of a latent may be seen now. */
  function apply(id) {
    const hidden = R.hides(id);
    for (const [name, column] of Object.entries(own)) index[name][id] = hidden ? null : column[id];
    if (!hidden && R.label(id)) index.label[id] = R.label(id);
    index.search.renew(id);
  }

  function remembered(storage, name) {
    try {
      return storage.getItem(name);
    } catch {
      return null;
    }
  }

  function remember(storage, name, value) {
    try {
      storage.setItem(name, value);
    } catch {
      // it is then forgotten with the page
    }
  }
})();
