"use strict";
/* Where label and score come from: models, cost, and the calls themselves, which are loaded when one looks. */

(() => {
  const { el, text } = G;

  const STAGES = { explain: "Explainer", score: "Scorer" };

  /** The fold at the end of a card. */
  G.provenance = ({ card, meta }) => {
    const { explanation: e, score: s } = card;
    const line = (name, value) => (value === null || value === "" ? null : [el("dt", {}, name), el("dd", {}, value)]);
    const model = ({ model, provider, prompt }) => [text(model), provider ? [" at ", text(provider)] : null, prompt ? [", prompt ", el("code", { title: prompt }, text(prompt.slice(0, 12)))] : null].flat();
    const box = el("div.calls");
    const open = (event) => {
      if (!event.currentTarget.open || !meta.has_calls || box.hasChildNodes()) return;
      G.callsOf(Math.floor(card.id / meta.shard_cards)).then((shard) => box.replaceChildren(...calls(shard, card.id % meta.shard_cards)), (error) => box.replaceChildren(el("p.missing", {}, "The calls cannot be read (", text(error.message), ").")));
    };
    return el("details.provenance", { on: { toggle: open } }, el("summary", {}, "Where this comes from"), el("dl", {},
      line("Explainer", e ? model(e) : "none yet"),
      e && line("Bound to", e.domain ? text(e.domain) : ""),
      e && line("How it was named", e.provenance ? text(e.provenance) : ""),
      e && line("It was shown", `${G.plural(e.n_shown, "image")}, ${G.plural(e.n_calls, "call")}, ${G.dollars(e.usd)}`),
      e && line("Its confidence", e.confidence === null ? "" : `${e.confidence} of 100, as it says itself`),
      e && line("Candidates", e.candidates.length ? e.candidates.map((name, i) => [i ? ", " : "", text(name)]).flat() : ""),
      e && line("Remarks", e.lint.length ? text(e.lint.join(", ")) : ""),
      line("Scorer", s ? model(s) : "none yet"),
      s && s.circular ? line("Circular", "it looks with the CLIP that the SAE is made of, so its scores run high") : null,
      s && line("It was asked", `about ${G.plural(s.n_positive + s.n_negative, "image")}, ${G.plural(s.n_calls, "call")}, ${G.dollars(s.usd)}`),
      e && line("Why there is no label", e.failure ? text([e.failure.replaceAll("_", " "), e.reason].filter(Boolean).join(": ")) : ""),
      s && line("Why answers are missing", s.reason || s.failure ? text([s.failure?.replaceAll("_", " "), s.reason].filter(Boolean).join(": ")) : "")),
    meta.has_calls ? box : null);
  };

  /** What was asked and answered, call by call. */
  function calls({ texts, calls: all }, at) {
    const found = all[at] ?? [];
    if (!found.length) return [el("p.missing", {}, "No call is behind this label: it was named on this machine.")];
    return found.map(([stage, created, model, provider, usd, prompt, reply]) => el("details.call", {},
      el("summary", {}, STAGES[stage] ?? text(stage), " · ", text(model), provider ? [" at ", text(provider)] : null, ` · ${G.dollars(usd)} · `, text(created)),
      el("h3", {}, "Prompt"), el("pre", { tabindex: 0, "aria-label": "Prompt" }, prompt.map((place) => texts[place]).join("\n\n")),
      el("h3", {}, "Reply"), el("pre", { tabindex: 0, "aria-label": "Reply" }, texts[reply] || "(empty)")));
  }
})();
