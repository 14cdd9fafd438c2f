"use strict";
/* The bar below a card in which a person says what a label is worth, and the tools above the list. */

(() => {
  const { el, text, review: R } = G;
  const NAMES = { right: "Right", partly: "Partly", wrong: "Wrong", unclear: "Unclear" };
  const MEANS = {
    right: "The label says what these images share",
    partly: "It says a part of it, or too much",
    wrong: "It says something else",
    unclear: "I cannot tell what these images share",
  };
  const drafts = new Map(); // latent -> { better, note }: what is typed and not said yet
  let current = null; // the card that is shown, as it came
  let drawn = {}; // its bar, and what brings that up to date
  let arrived = null; // the latent that `next` has led to: its guess can be typed at once
  let early = null; // what was pressed before its card was there: a verdict, or the letters of a guess

  /** Lay the bar under a card; none where there is nothing to say of it. */
  R.show = (card) => {
    current = R.kept() === "nowhere" || !card?.label_hash || card.stats.status === "dead" ? null : card;
    draw();
    const { word, guess = "", isDone } = current && early?.goal === current.id ? early : {};
    const isNext = current && arrived === current.id && R.hides(arrived);
    arrived = early = null;
    if (isNext) type(guess, isDone);
    if (word) say(word);
  };

  function type(guess, isDone) {
    const input = box().querySelector(".better");
    input.value = guess;
    input.focus({ preventScroll: true });
    if (isDone) input.form.requestSubmit();
  }

  const box = () => document.getElementById("review-bar");

  /** The bar stays in the document while its card does: what is being clicked must not go away. */
  function draw() {
    const mode = current && `${current.id} ${R.hides(current.id)} ${R.machine(current.id)}`;
    if (mode !== drawn.mode) {
      drawn = current ? { mode, ...(R.hides(current.id) ? guessBar(current) : verdictBar(current)) } : { mode };
      box().hidden = !current;
      box().replaceChildren(...(drawn.bar ? [drawn.bar] : []));
    }
    drawn.refresh?.();
  }

  /** Called when what is known of a latent has changed. */
  R.changed = (id) => {
    R.page.redraw();
    R.drawTools();
    if (!current) return;
    const shown = document.getElementById("title")?.dataset.label ?? "";
    if (current.id === id && shown !== (R.label(id) ?? "")) R.page.show();
    else draw();
  };

  /* ---- the bar ---- */

  /** A bar of `content` with steps and lines below; `more` brings the rest of it up to date. */
  function frame(card, content, more = () => {}) {
    const count = el("span.review-count", { title: "Labels that are reviewed" }), lines = el("div");
    const back = el("button.button", { type: "button", title: "Take the last verdict back (u)", on: { click: undo } }, "Undo");
    const on = el("button.button.strong", { type: "button", title: "Next label without a verdict (n)", on: { click: next } }, "Next");
    const bar = el("section.review", { "aria-label": "Your verdict" }, el("div.review-row", {}, content, el("div.review-steps", {}, count, back, on)), lines);
    const refresh = () => {
      const { done, all } = R.progress();
      count.textContent = `${G.count(done)} / ${G.count(all)}`;
      count.setAttribute("aria-label", `${done} of ${all} labels reviewed`);
      back.disabled = !R.canUndo();
      lines.replaceChildren(...[told(card), notSaved()].filter(Boolean));
      more();
    };
    return { bar, refresh };
  }

  function guessBar({ id, ...card }) {
    const input = el("input.better", { type: "text", maxlength: 200, autocomplete: "off", "aria-label": "Your guess: what do these images share?", placeholder: "What do these images share? Your guess, then Enter" });
    const form = el("form.guess", { on: { submit: (event) => { event.preventDefault(); guess(); } } }, input, el("button.button", { type: "submit" }, "Show the label"));
    function guess() {
      if (!input.value.trim()) return;
      R.setGuess(id, input.value);
      document.getElementById("main").focus({ preventScroll: true });
    }
    return frame({ id, ...card }, form);
  }

  function verdictBar(card) {
    const { id } = card, machine = R.machine(id), own = machine === null ? "A label of your own" : "A better label";
    const field = (tag, name, more) => el(tag, { autocomplete: "off", on: { input: (event) => drafts.set(id, { ...draftOf(id), [name]: event.target.value }), change: () => edited(card) }, ...more });
    const better = field("input.better", "better", { type: "text", maxlength: 200, placeholder: `${own} (e)`, "aria-label": own });
    better.addEventListener("keydown", (event) => { if (event.key === "Enter") leave(better); });
    const note = field("textarea.note", "note", { rows: 2, maxlength: 2000, placeholder: "A note", "aria-label": "A note" });
    note.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) leave(note); });
    const words = el("details.note-box", { open: Boolean(draftOf(id).note) }, el("summary", {}, "Note (m)"), note);
    const buttons = R.WORDS.map((word, at) => el(`button.verdict.${word}`, { type: "button", title: `${MEANS[word]} (${at + 1})`, on: { click: () => say(word) } }, el("kbd", { "aria-hidden": true }, at + 1), NAMES[word]));
    const choice = machine === null ? el("p.review-none", {}, "No label to judge") : el("div.verdicts", { role: "group", "aria-label": "The label is" }, buttons);
    return frame(card, [choice, better, words], () => {
      const draft = draftOf(id);
      buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(R.of(id)?.verdict === R.WORDS[at])));
      if (better.value !== draft.better) better.value = draft.better;
      if (note.value !== draft.note) note.value = draft.note;
    });
  }

  /** What is typed of a latent, or else what was said of it. */
  const draftOf = (id) => drafts.get(id) ?? { better: R.of(id)?.better ?? "", note: R.of(id)?.note ?? "" };

  /** One line below: the guess, and whether the verdict is safe. */
  function told(card) {
    const guess = R.hides(card.id) ? "" : R.guess(card.id), said = R.of(card.id), draft = draftOf(card.id), parts = [];
    if (guess) parts.push(el("span", {}, "Your guess: ", el("em", {}, text(guess))));
    const waits = R.unsent().some(({ said: one, why }) => one.latent === card.id && !why);
    if (waits) parts.push(el("span", {}, "Saving…"));
    else if (said) parts.push(el("span", {}, R.kept() === "run" ? "Saved in the run." : "Kept in this browser; Export hands it over."));
    else if ((draft.better || draft.note) && R.machine(card.id) !== null) parts.push(el("span", {}, "A verdict, 1 to 4, keeps what you typed."));
    return parts.length ? el("p.review-told", {}, parts) : null;
  }

  function notSaved() {
    const lost = R.unsent().filter(({ why }) => why);
    if (!lost.length) return null;
    return el("p.review-lost", { role: "alert" }, el("span", {}, `${G.plural(lost.length, "verdict")} not saved: `, text(lost.at(-1).why)),
      el("button.button.again", { type: "button", on: { click: R.again } }, "Try again"));
  }

  /* ---- what the keys and buttons do ---- */

  function say(word) {
    if (!current || R.hides(current.id) || R.machine(current.id) === null) return;
    const draft = draftOf(current.id);
    drafts.delete(current.id);
    R.say(current, word, draft);
    const { done, all } = R.progress();
    R.page.say(`${NAMES[word]}. ${done} of ${all} reviewed.`);
  }

  /** Text that was typed goes with the verdict that is there; a label for what had none needs none. */
  function edited(card) {
    const draft = drafts.get(card.id), said = R.of(card.id);
    const word = said?.verdict ?? (R.machine(card.id) === null && draft?.better.trim() ? "unclear" : null);
    if (!draft || !word) return;
    drafts.delete(card.id);
    R.say(card, word, draft);
  }

  function leave(input) {
    input.blur();
    document.getElementById("main").focus({ preventScroll: true });
  }

  function next() {
    const id = R.next();
    if (id === null) R.page.say("Every label of this list is reviewed.");
    else R.page.go(arrived = id);
    const count = document.querySelector(".review-count");
    if (id === null && count) count.textContent = "All reviewed";
  }

  function undo() {
    const id = R.undo();
    if (id === null) return;
    drafts.delete(id);
    R.page.say(`Verdict on latent ${id} taken back.`);
    if (id !== R.page.id()) R.page.go(id);
  }

  /** Whether a key was one of ours. */
  R.onKey = ({ key }) => {
    const word = R.WORDS[Number(key) - 1], goal = R.page.goal();
    if (goal !== null && document.body.dataset.shown !== String(goal)) { // what is meant is the card to come
      if (arrived === goal && R.hides(goal)) return guessEarly(goal, key);
      if (word) early = { goal, word };
      return Boolean(word) || "nubem".includes(key);
    }
    if (word && current) say(word);
    else if (key === "n") next();
    else if (key === "u") undo();
    else if (key === "b") R.setBlind(!R.isBlind());
    else if (key === "e" && current) box().querySelector("input")?.focus();
    else if (key === "m" && current && !R.hides(current.id)) openNote();
    else return false;
    return true;
  };

  /** The letters of a guess wait for its card. Whether the key was one of them. */
  function guessEarly(goal, key) {
    const { guess = "", isDone = false } = early?.goal === goal ? early : {};
    if (key === "Enter") early = { goal, guess, isDone: true };
    else if (key === "Backspace") early = { goal, guess: guess.slice(0, -1), isDone };
    else if ([...key].length === 1) early = { goal, guess: (guess + key).slice(0, 200), isDone };
    else return false;
    return true;
  }

  function openNote() {
    box().querySelector(".note-box").open = true;
    box().querySelector(".note").focus();
  }

  /* ---- above the list ---- */

  R.drawTools = () => {
    const box = document.getElementById("review-tools"), { done, all } = R.progress();
    box.hidden = R.kept() === "nowhere" || all === 0;
    if (box.hidden) return;
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const blind = el("button.switch", { type: "button", "data-name": "blind", "aria-pressed": String(R.isBlind()), title: "Labels and scores show after your guess (b)", on: { click: () => R.setBlind(!R.isBlind()) } }, "Blind");
    const hand = R.kept() === "run" ? null : el("button.switch", { type: "button", "data-name": "export", title: "A file for `interp verdicts import`", on: { click: save } }, "Export");
    box.replaceChildren(el("progress", { max: all, value: done, "aria-label": `${done} of ${all} labels reviewed` }), el("span", {}, `${G.count(done)} of ${G.count(all)} reviewed`), blind, ...(hand ? [hand] : []));
    if (focused) box.querySelector(`[data-name="${focused}"]`)?.focus();
  };

  function save() {
    const address = URL.createObjectURL(new Blob(R.lines(), { type: "application/jsonl" }));
    el("a", { href: address, download: `verdicts-${R.runName()}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }
})();
