"use strict";
/* One latent as a card. What is not there is said to be missing; it is never shown as 0. */

(() => {
  const { el, text } = G;

  /** The card's element; `meta` is the run's, `around` holds the ids before and after it in the list. */
  G.card = (card, meta, around) => {
    const view = { card, meta, pictures: card.images };
    return el("article.card", { "aria-labelledby": "title" },
      head(view, around),
      card.blind ? [tops(view), quantiles(view)] : card.stats.status === "dead" ? dead() : [
        el("div.figures", {}, scorePanel(view), factsPanel(view)),
        el("div.figures", {}, histogramPanel(view), domainPanel(view)),
        card.causal ? panel("causal", "What editing the latent does", el("p", {}, text(card.causal))) : null,
        tasksPanel(view),
        transferPanel(view),
        tops(view), quantiles(view), heldOut(view),
      ],
      card.blind ? null : provenance(view));
  };

  /* ---- head ---- */

  function head({ card, meta }, { before, after }) {
    const said = card.explanation;
    return el("header.head", {},
      el("div.eyebrow", {},
        el("a.back", { href: G.href(null), "aria-label": "Back to the list" }, "‹ All latents"),
        el("span.number", { title: "The latent's number in the SAE" }, `#${card.id}`),
        badges(card, meta),
        el("span.source", { title: "The CLIP model, the layer and the tokens that the SAE reads" },
          G.source(meta)),
        el("span.steps", {}, step(before, "‹", "Previous latent in the list (k)"), step(after, "›", "Next latent in the list (j)"))),
      title(card),
      G.review.label(card.id) ? el("p.second.machine", { title: "The heading is a person's label, in place of this one" }, said && said.label ? ["the machine said ", el("em", {}, text(said.marked_label || said.label)), "; the score is of that"] : "the machine had no label") : null,
      said && said.second_label ? el("p.second", { title: "The explainer saw two things" }, "and also ", el("em", {}, text(said.second_label))) : null,
      said && said.description ? el("p.description", {}, text(said.description)) : null,
      said && said.failure ? el("p.notice", {}, "The explainer gave no label: ", why(said)) : null,
      !said && !card.blind && card.stats.status !== "dead" ? el("p.notice", {}, "Nobody has looked at this latent yet; ", el("code", {}, "interp explain"), " names it.") : null);
  }

  /** A kind of failure, and the words of the server. */
  const why = ({ failure, reason }) => [text(failure.replaceAll("_", " ")), ".", reason ? el("span.reason", {}, text(reason)) : null];

  /** Model, layer and tokens in words. */
  G.source = (meta) => {
    const layer = meta.layer === "projected" ? "projected embedding" : `block ${meta.layer}`;
    const named = { cls: "class token", patch: "patch tokens", all: "all tokens" }[meta.pool === "cls" ? "cls" : meta.tokens];
    const kept = { max: "the largest", mean: "the mean", sum: "the sum" }[meta.pool];
    const tokens = G.hasTokens(meta) && kept ? `${named}, ${kept} of an image` : named;
    return [text(meta.clip), " · ", text(layer), " · ", tokens];
  };

  /** Whether an image has several tokens that count. */
  G.hasTokens = (meta) => meta.tokens !== "cls" && meta.pool !== "cls";

  /** How an image's activation comes of its tokens'. */
  const pooled = ({ pool }) => ({ max: "is the largest of its tokens", mean: "is the mean over its tokens", sum: "is the sum over its tokens", cls: "is that of the class token" })[pool];

  function title({ id, blind, explanation: said, stats }) {
    if (blind) return el("h1.none", { id: "title" }, "What do these images share?");
    const human = G.review.label(id);
    if (human) return el(`h1${human.length > 48 ? ".long" : ""}`, { id: "title", "data-label": human }, text(human));
    const label = said && (said.marked_label || said.label);
    const none = stats.status === "dead" ? "Dead latent" : said ? "No label" : "Not labelled yet";
    return label ? el(`h1${label.length > 48 ? ".long" : ""}`, { id: "title" }, text(label)) : el("h1.none", { id: "title" }, none);
  }

  function badges({ stats, explanation: said }, meta) {
    const meaning = {
      live: `Active on some ${meta.dense_by}, and not on too many`,
      dense: `Active on so many ${meta.dense_by} that a single label seldom fits`,
      dead: "Not active on any image of the store",
    };
    return [
      el(`span.badge.${stats.status}`, { title: meaning[stats.status] }, stats.status),
      said && said.failure ? el("span.badge.failed", { title: "The explainer gave no usable answer" }, "no label") : null,
      said && said.verdict && said.verdict !== "single" ? el("span.badge", { title: "The explainer's own finding" }, text(said.verdict)) : null,
      said && said.level ? el("span.badge", { title: "What kind of thing the label names" }, text(said.level)) : null,
    ];
  }

  function step(id, sign, name) {
    return id === null ? el("span.step.off", { "aria-hidden": true }, sign) : el("a.step", { href: G.href(id), title: name, "aria-label": name }, sign);
  }

  function dead() {
    return el("p.notice", {}, "This latent is active on no image of the store, so there is nothing to show and nothing to name.");
  }

  /* ---- figures ---- */

  function panel(name, title, ...content) {
    return el(`section.panel.${name}`, {}, el("h2", {}, title), content);
  }

  const STATES = { supported: "Supported", undecided: "Undecided", unsupported: "Not supported" };

  /** Whether the label does better than labels that say nothing, in words. */
  function support(found) {
    if (!found) return null;
    const gain = found.gain === null ? "" : `; ${G.fixed(found.gain)} above the best label that says nothing (${found.best}), ${G.fixed(found.gain_low)} to ${G.fixed(found.gain_high)} at 95%`;
    return el("p.caption.support", { title: "Compared on the same images with labels of other latents, random words, and labels that say nothing" },
      el("strong", {}, STATES[found.state]), text(`: ${found.reason}${gain}.`));
  }

  function scorePanel({ card: { score, explanation, support: found } }) {
    const meaning = "AUROC: how often an unseen active image gets a higher score from the judge than an unseen silent one. 0.5 is guessing, 1 is perfect.";
    const name = el("span", { title: meaning }, "How well the label predicts");
    if (!score) {
      const why = explanation && explanation.label ? ["Not scored yet; ", el("code", {}, "interp score"), " tests the label on unseen images."] : ["There is no label to test."];
      return panel("score", name, el("p.missing", {}, why));
    }
    if (score.failure) return panel("score", name, el("p.missing", {}, "Not scored: ", why(score)));
    const stale = score.stale ? el("p.missing", {}, "This score belongs to another label, ", el("em", {}, text(score.label)), "; run ", el("code", {}, "interp score"), " again.") : null;
    const interval = score.auroc_low === null ? "" : `${G.fixed(score.auroc_low)} to ${G.fixed(score.auroc_high)}`;
    const note = score.note ? el("p.missing", {}, text(score.note), ".") : null;
    const ended = score.stopped ? el("p.caption", {}, `Judged step by step, up to ${score.n_positive + score.n_negative} images: ${score.stopped}.`) : null;
    return panel("score", name, stale, note,
      el("p.big", { title: meaning }, el("strong", {}, G.fixed(score.auroc)),
        el("span", {}, "AUROC", interval ? el("br") : null, interval ? el("span", { title: "95% interval" }, `${interval} at 95%`) : null)),
      ended,
      score.stale ? null : support(found),
      el("div.whisker-rows", {},
        whisker("all", "Against all silent images", { value: score.auroc, low: score.auroc_low, high: score.auroc_high, radius: 6 }),
        whisker("random", "Against silent images drawn at random: is the topic right?", { value: score.auroc_easy, radius: 4 }),
        whisker("look-alikes", "Against look-alikes, images of neighbouring latents: is the label specific?", { value: score.auroc_hard, radius: 4 }),
        el("span"), G.axis([[0, "0"], [0.5, "chance"], [1, "1"]]), el("span")));
  }

  /** What other judging tasks say, a sentence each. */
  function tasksPanel({ card: { tasks } }) {
    if (!tasks || tasks.length === 0) return null;
    const meaning = "Other questions to a judge about unseen images; docs/scores.md says what each means";
    return el("div.figures", {}, panel("tasks", el("span", { title: meaning }, "Other tests"), tasks.map((said) => el("p", {}, text(said)))));
  }

  function whisker(name, meaning, mark) {
    const value = mark.value === null ? "none" : G.fixed(mark.value);
    return [el("span.name", { title: meaning }, name), G.dotAndWhisker({ ...mark, name: `${meaning}: ${value}` }), el("span.value", { title: meaning }, value)];
  }

  function factsPanel({ card: { stats, score }, meta }) {
    const scored = score && !score.failure ? score : null;
    const found = scored && `${scored.n_positive} + ${scored.n_negative}`;
    const facts = [
      ["Active on", G.percent(stats.frequency), `${G.count(stats.n_active)} of ${G.count(meta.n_images)} images`],
      G.hasTokens(meta) && stats.token_frequency !== null && ["Of the tokens", G.percent(stats.token_frequency), "Share of all tokens of all images on which it is active"],
      ["Mean activation", G.act(stats.mean), `Over the active images; an image's activation ${pooled(meta)}`],
      ["Largest activation", G.act(stats.max), "Over all images, in the SAE's units"],
      ["Class entropy", stats.entropy === null ? "–" : `${G.fixed(stats.entropy, 1)} bits`, "Of the active images' classes: 0 is one class only; n bits are like 2ⁿ equally frequent classes"],
      scored && ["Balanced accuracy", G.fixed(scored.balanced_accuracy), "At a fixed score of 50; 0.5 is guessing"],
      scored && ["Follows strength", G.fixed(scored.spearman), "Spearman's rank correlation of the judge's score and the activation among the active images, -1 to 1"],
      scored && ["Tested on", found, "Unseen active + silent images"],
      scored && scored.n_missing > 0 && ["No answer", G.count(scored.n_missing), "Images without a usable answer; they count as chance"],
    ];
    return panel("numbers", "In numbers", el("dl.facts", {}, facts.filter(Boolean).map(([name, value, meaning]) =>
      el("div", { title: meaning }, el("dt", {}, name), el("dd", {}, value)))));
  }

  function histogramPanel({ card: { stats } }) {
    return panel("hist", el("span", { title: "Active images by activation; the height is logarithmic" }, "How strongly it answers"),
      G.histogram(stats.hist, stats.max),
      el("p.caption", {}, "active images by activation, logarithmic"));
  }

  function domainPanel({ card: { stats }, meta }) {
    const most = Math.max(...stats.rates.map((rate) => rate || 0));
    const rows = meta.domains.map((name, i) => ({
      name, share: most > 0 ? stats.rates[i] / most : 0, value: G.percent(stats.rates[i]), tone: tone(i),
      title: `Active on ${G.percent(stats.rates[i])} of the ${name} images`,
    }));
    const classes = stats.classes.map(([name, n]) => ({
      name, share: n / stats.classes[0][1], value: G.count(n), tone: "plain", title: `${G.count(n)} of the ${G.count(stats.n_active)} active images are of the class ${name}`,
    }));
    return panel("domains", el("span", { title: "Share of each domain's images on which the latent is active" }, "Where it answers"),
      G.bars(rows),
      most > 0 && meta.domains.length > 1 ? el("p.caption", { title: "The domain's rate over the sum of all domains' rates" }, lean(stats.rates, meta)) : null,
      classes.length ? [el("h3", {}, "Most frequent classes"), G.bars(classes)] : null);
  }

  /** Of two domains it is said of `share_of`, of more of the strongest. */
  function lean(rates, { share_of: first, domains }) {
    const total = rates.reduce((sum, rate) => sum + (rate || 0), 0), shares = rates.map((rate) => (rate || 0) / total);
    const even = 1 / domains.length;
    const name = domains.length === 2 ? first : domains[shares.indexOf(Math.max(...shares))];
    const share = shares[domains.indexOf(name)];
    if (share >= 0.98) return [text(name), " only"];
    if (share <= 0.02) return ["never or hardly ever ", text(name)];
    if (shares.every((one) => Math.abs(one - even) < 0.08)) return "no clear preference";
    return ["leans ", share > even ? "towards " : "away from ", text(name), ` (share ${G.fixed(share)})`];
  }

  /** Whether the labels found in either of two domains hold in the other. */
  function transferPanel({ card: { transfer } }) {
    if (!transfer) return null;
    const meaning = (on, at) => `AUROC on held-out ${at} images of the label found on ${on} images`;
    return panel("transfer", el("span", { title: "Explained on one domain, scored on the other" }, "Across domains"),
      el("p", {}, text(transfer.words)),
      transfer.cells.length ? el("div.whisker-rows", {},
        transfer.cells.map(([on, at, value, low, high]) => whisker(text(`${on} to ${at}`), meaning(on, at), { value, low, high, radius: 4 })),
        el("span"), G.axis([[0, "0"], [0.5, "chance"], [1, "1"]]), el("span")) : null);
  }

  const tone = (domain) => `tone${domain % 5}`;

  /* ---- images ---- */

  function tops({ card, meta, pictures }) {
    return el("section.images", {}, el("h2", {}, el("span", { title: "From the half of the images that the explainer may see" }, "Strongest images"),
      meta.tokens === "cls" ? null : heatSwitch()),
      card.top.map((row, domain) => el("div.domain-row", {},
        el("h3", {}, el(`i.swatch.${tone(domain)}`, { "aria-hidden": true }), text(meta.domains[domain])),
        row.length ? el("div.tiles.large", {}, row.map(([at, act, heat]) =>
          tile(pictures[at], meta, heat, `activation ${G.act(act)}`, el("span", { title: "Activation" }, G.act(act)))))
          : el("p.missing", {}, "Active on none of them."))));
  }

  function heatSwitch() {
    const pressed = !document.body.classList.contains("no-heat");
    return el("button.switch", { type: "button", id: "heat", "aria-pressed": String(pressed), title: "Show where the latent is active (h)", on: { click: () => G.toggleHeat() } }, "Where in the image");
  }

  G.toggleHeat = () => {
    const off = document.body.classList.toggle("no-heat");
    const button = document.getElementById("heat");
    if (button) button.setAttribute("aria-pressed", !off);
  };

  function quantiles({ card, meta, pictures }) {
    if (!card.quantiles.length) return null;
    const names = card.quantiles.length === 5 ? ["weakest fifth", "weak", "middle", "strong", "strongest fifth"] : card.quantiles.map((_, i) => `part ${i + 1} of ${card.quantiles.length}`);
    return el("section.images", {}, el("h2", {}, el("span", { title: "Active images drawn at random, sorted by activation: the tail is seen too" }, "Across its range")),
      el("div.strata", {}, card.quantiles.map((part, i) => {
        const acts = part.map(([, act]) => act);
        return el("div.stratum", {}, el("div.tiles.pair", {}, part.map(([at, act, heat]) => tile(pictures[at], meta, heat, `activation ${G.act(act)}`))),
          el("p", {}, names[i], acts.length ? el("span", { title: "Activation of these images" }, `${G.act(Math.min(...acts))} – ${G.act(Math.max(...acts))}`) : null));
      })));
  }

  function heldOut({ card, meta, pictures }) {
    if (!card.verdicts.length) return null;
    const answers = card.verdicts.map(([at, truth, act, kind, score, heat]) => {
      const right = score === null ? null : (score >= 50) === Boolean(truth); // as balanced accuracy counts
      return { at, truth, act, score, heat, kind, hard: kind === "hard", right, title: said(truth, act, kind, score) };
    });
    const half = (name, meaning, chosen) => {
      const right = chosen.filter((answer) => answer.right).length;
      return el("div.half", {}, el("h3", { title: meaning }, name, el("span.tally", {}, `${right} of ${chosen.length} right`)),
        el("div.tiles.small", {}, chosen.map((answer) => judged(answer, pictures, meta))));
    };
    const negatives = answers.filter(({ truth }) => !truth);
    const of = (wanted) => negatives.filter(({ kind }) => kind === wanted);
    const half_of = (wanted, name, meaning) => (of(wanted).length ? half(name, meaning, of(wanted)) : null);
    return el("section.images", {}, el("h2", {}, el("span", { title: "Images that the explainer never saw; the judge knows only the label" }, "Test on unseen images")),
      el("div.strip-box", {}, el("div.lanes", { "aria-hidden": true }, el("span", {}, "active"), el("span", {}, of("weak").length ? "silent or weak" : "silent")),
        el("div", {}, G.strip(answers), G.axis([[0, "0"], [0.5, "50"], [1, "100"]]),
          el("p.caption", {}, "the judge’s answer, from 0 (the label does not fit) to 100 (it fits); ",
            el("span.key.hard", {}, "look-alikes"), ", ", el("span.key.random", {}, "random images")))),
      half("Active: the label should fit", "The latent is active on these images; strongest first", answers.filter(({ truth }) => truth)),
      half_of("hard", "Silent look-alikes: it should not", "Strongest images of neighbouring latents, on which this one is silent"),
      half_of("weak", "Weakest: it should fit these less", "The latent is silent on too few images; these are those of its least activation"),
      half_of("silent", "Silent, drawn at random", "Random images on which this latent is silent"));
  }

  function said(truth, act, kind, score) {
    const fact = truth ? `active (${G.act(act)})` : { hard: "silent, a look-alike", weak: `weak (${G.act(act)})` }[kind] || "silent, random";
    return `${fact}; judge: ${score === null ? "no answer" : `${score} of 100`}`;
  }

  function judged({ at, heat, score, right, title }, pictures, meta) {
    const [sign, name] = right === null ? ["?", "no answer"] : right ? ["✓", "right"] : ["✗", "wrong"];
    const mark = el("span.mark", { title: `${name}: ${title}` }, el("b", { "aria-label": name }, sign), score);
    return tile(pictures[at], meta, heat, `${title}, ${name}`, mark, right === null ? "unsure" : name);
  }

  /** One image with an optional line below it. The whole image is shown, on white. */
  function tile([id, domain, label, path, there, box], meta, heat, fact, caption = null, state = "") {
    const about = [meta.domains[domain], label, path].filter(Boolean).join(" · ");
    const frame = el(`span.frame.${tone(domain)}`, {});
    if (there) {
      const image = el("img", { src: G.thumb(id), alt: `${label || meta.domains[domain]}, ${fact}`, loading: "lazy", decoding: "async" });
      frame.append(image);
      if (heat) frame.append(heatMap(heat, meta.grid, box));
    } else {
      frame.append(el("span.gone", {}, "image missing"));
    }
    return el(`figure.tile${state ? `.${state}` : ""}`, { title: `${about}\n${fact}` }, frame, caption ? el("figcaption", {}, caption) : null);
  }

  /** Patch activations over the part of the frame that CLIP sees, in per cent; clear is 0, red the image's largest. What lies beyond the image is cut off. */
  function heatMap(packed, [rows, columns], [left, top, width, height, beyondX, beyondY]) {
    const values = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const canvas = el("canvas.heat", { width: columns, height: rows, "aria-hidden": true });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    values.forEach((value, i) => pixels.data.set([225, 40, 90, Math.round(value * 0.72)], 4 * i));
    context.putImageData(pixels, 0, 0);
    Object.entries({ left, top, width, height }).forEach(([side, share]) => { canvas.style[side] = `${share}%`; });
    canvas.style.clipPath = `inset(${beyondY}% ${beyondX}%)`;
    return canvas;
  }

  /* ---- provenance ---- */

  function provenance({ card: { explanation: e, score: s } }) {
    const line = (name, value) => (value === null || value === "" ? null : [el("dt", {}, name), el("dd", {}, value)]);
    const model = ({ model, provider, prompt }) => [text(model), provider ? [" at ", text(provider)] : null, prompt ? [", prompt ", el("code", { title: prompt }, text(prompt.slice(0, 12)))] : null].flat();
    return el("details.provenance", {}, el("summary", {}, "Where this comes from"), el("dl", {},
      line("Explainer", e ? model(e) : "none yet"),
      e && line("Bound to", e.domain ? text(e.domain) : ""),
      e && line("How it was named", e.provenance ? text(e.provenance) : ""),
      e && line("It was shown", `${G.plural(e.n_shown, "image")}, ${G.plural(e.n_calls, "call")}, ${G.dollars(e.usd)}`),
      e && line("Its confidence", e.confidence === null ? "" : `${e.confidence} of 100, as it says itself`),
      e && line("Candidates", e.candidates.length ? e.candidates.map((name, i) => [i ? ", " : "", text(name)]).flat() : ""),
      e && line("Remarks", e.lint.length ? text(e.lint.join(", ")) : ""),
      line("Scorer", s ? model(s) : "none yet"),
      s && s.circular ? line("Circular", "it looks with the CLIP that the SAE is made of, so its scores run high") : null,
      s && line("It was asked", `about ${G.plural(s.n_positive + s.n_negative, "image")}, ${G.plural(s.n_calls, "call")}, ${G.dollars(s.usd)}`)));
  }
})();
