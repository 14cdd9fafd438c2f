"use strict";
/* One latent as a card. What is not there is said to be missing; it is never shown as 0. */

(() => {
  const { el, text } = G;

  /** The card's element; `meta` is the run's, `around` holds the ids before and after it in the list. */
  G.card = (card, meta, around) => {
    const view = { card, meta, pictures: card.images };
    return el("article.card", { "aria-labelledby": "title" },
      head(view, around),
      card.blind ? G.imagePanels(view).slice(0, 2) : card.stats.status === "dead" ? dead() : [
        el("div.figures", {}, scorePanel(view), factsPanel(view)),
        el("div.figures", {}, histogramPanel(view), domainPanel(view)),
        el("div.figures", {}, transferPanel(view), causalPanel(view)),
        tasksPanel(view),
        G.relatedPanel(view),
        G.imagePanels(view),
      ],
      card.blind ? null : G.provenance(view));
  };

  /* ---- head ---- */

  function head({ card, meta }, around) {
    const said = card.explanation;
    return el("header.head", {},
      el("div.eyebrow", {},
        el("a.back", { href: G.hrefWith("list", G.state()), title: "Back to the list" }, "‹ All latents"),
        el("span.number", { title: "The latent's number in the SAE" }, `#${card.id}`),
        badges(card, meta),
        el("span.source", { title: "The CLIP model, the layer and the tokens that the SAE reads" },
          G.source(meta)),
        el("span.actions", {}, action("Copy link", "Copy this card's address, with the list as it is", () => G.copy(location.href, "Link copied")),
          action("Save data", "Save the figures and words of this card as a JSON file; `interp cards --single` makes a page of it with its pictures", () => download(card, meta)),
          action("Print", "Print this card, or save it as a PDF", () => window.print())),
        el("span.steps", {}, G.steps(around))),
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

  G.steps = ({ before, after }) => [step(before, "‹", "Previous latent in the list (k)"), step(after, "›", "Next latent in the list (j)")];

  function step(id, sign, name) {
    return id === null ? el("span.step.off", { "aria-hidden": true }, sign) : el("a.step", { href: G.href(id), title: name, "aria-label": name }, sign);
  }

  function action(name, title, click) {
    return el("button.plain-button", { type: "button", title, on: { click } }, name);
  }

  /** A page on the disk may not read its own pictures back, so the file holds figures and texts; images by id, class and path. */
  function download(card, meta) {
    const content = JSON.stringify({ run: meta.run, clip: meta.clip, layer: meta.layer, tokens: meta.tokens, domains: meta.domains, ...card }, null, 1);
    const link = el("a", { href: URL.createObjectURL(new Blob([content], { type: "application/json" })), download: `latent-${String(card.id).padStart(5, "0")}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
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
    const gain = found.gain === null ? "" : `; ${G.fixed(Math.abs(found.gain))} ${found.gain < 0 ? "below" : "above"} the best label that says nothing (${found.best}; gain ${G.fixed(found.gain_low)} to ${G.fixed(found.gain_high)} at 95%)`;
    return el("p.caption.support", { title: "Compared on the same images with labels of other latents, random words, and labels that say nothing" },
      el("strong", {}, STATES[found.state]), text(`: ${found.reason}${gain}.`));
  }

  function scorePanel({ card: { score, explanation, support: found, nulls = [] }, meta }) {
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
        whisker("this label", "Against all silent images", { value: score.auroc, low: score.auroc_low, high: score.auroc_high, radius: 6 }),
        whisker("random", "Against silent images drawn at random: is the topic right?", { value: score.auroc_easy, radius: 4 }),
        whisker("look-alikes", "Against look-alikes, images of neighbouring latents: is the label specific?", { value: score.auroc_hard, radius: 4 }),
        score.stale ? null : nullRows(nulls, meta, score),
        el("span"), G.axis([[0, "0"], [0.5, "chance"], [1, "1"]]), el("span")));
  }

  const NULLS = { generic: "says nothing", domain: "its domain", class: "commonest class", shuffled: "other labels", word: "other words", control: "another's label" };

  /** What labels reach that say nothing of the latent, on the same axis: on its own images, and those of the run's controls. */
  function nullRows(nulls, meta, score) {
    const best = nulls.length ? Math.max(...nulls.map(([, , value]) => value ?? 0)) : null;
    const own = nulls.map(([kind, words, value, low, high]) => {
      const first = value === best ? ", the best of these" : "";
      return whisker(kind === "domain" ? text(`“${words}”`) : NULLS[kind] ?? kind, `On the same images: ${words}${first}`, { value, low, high, radius: first ? 5 : 4, hollow: true, guide: score.auroc });
    });
    const bands = (meta.nulls ?? []).filter(({ name }) => name === "untrained" || name === "random" || (name === "shuffled" && !nulls.some(([kind]) => kind === "control")));
    const NAMES = { untrained: "untrained SAE", random: "random directions", shuffled: "shuffled labels" };
    const ran = bands.map(({ name, mean, low, high, n }) => whisker(NAMES[name], `Labels of the control “${name}” in this run, by the same judge: mean of ${G.count(n)}, and where 95% of them lie`, { value: mean, low, high, radius: 4, hollow: true, guide: score.auroc }));
    if (!own.length && !ran.length) return null;
    return [el("h3.nulls-head", { title: "Labels that say nothing of this latent, tested in the same way" }, "Held against"), own.flat(), ran.flat()];
  }

  /** What other judging tasks say, a sentence each. */
  function tasksPanel({ card: { tasks } }) {
    if (!tasks || tasks.length === 0) return null;
    const meaning = "Other questions to a judge about unseen images; docs/scores.md says what each means";
    return el("div.figures", {}, panel("tasks", el("span", { title: meaning }, "Other tests"), tasks.map((said) => el("p", {}, text(said)))));
  }

  function whisker(name, meaning, mark) {
    const value = mark.shown ?? (mark.value === null ? "none" : G.fixed(mark.value));
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
      name, share: most > 0 ? stats.rates[i] / most : 0, value: G.percent(stats.rates[i]), tone: G.tone(i),
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

  /** Whether the labels found in either of two domains hold in the other: rows explain, columns test. */
  function transferPanel({ card: { transfer } }) {
    if (!transfer) return null;
    const names = [...new Set(transfer.cells.flatMap(([on, at]) => [on, at]))];
    const of = (on, at) => transfer.cells.find(([from, to]) => from === on && to === at);
    const cell = (on, at) => {
      const found = of(on, at);
      if (!found) return el("td.square.none", { title: "Not scored" }, "–");
      const [, , value, low, high] = found;
      const square = el("td.square", { title: `AUROC on held-out ${at} images of the label found on ${on} images` },
        el("strong", {}, G.fixed(value)), low === null ? null : el("span", {}, `${G.fixed(low)} to ${G.fixed(high)}`), G.dotAndWhisker({ value, low, high, height: 12, radius: 3 }));
      square.style.setProperty("--strength", `${Math.round(100 * Math.max(0, 2 * value - 1))}%`);
      return square;
    };
    return panel("transfer", el("span", { title: "Explained on one domain, scored on the other" }, "Across domains"),
      el("p", {}, text(transfer.words)),
      names.length ? el("table.squares", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "found on"), names.map((name) => el("th", { scope: "col" }, "tested on ", text(name))))),
        el("tbody", {}, names.map((on) => el("tr", {}, el("th", { scope: "row" }, text(on)), names.map((at) => cell(on, at)))))) : null);
  }

  /** What editing the latent does to its label, on one axis around 0. */
  function causalPanel({ card: { causal, edits = [] } }) {
    if (!causal) return null;
    const ends = edits.flatMap(([, value, low, high]) => [value, low, high]).filter((end) => end !== null).map(Math.abs);
    const reach = Math.max(0.5, ...ends) * 1.1;
    const share = (value) => (value === null ? null : (value / reach + 1) / 2);
    const rows = edits.map(([name, value, low, high]) => whisker(name, `The latent ${name}: ${G.fixed(value)}, ${G.fixed(low)} to ${G.fixed(high)} at 95%`, { value: share(value), low: share(low), high: share(high), radius: 5, shown: G.fixed(value) }));
    return panel("causal", el("span", { title: "The latent is edited in its network; does the image move as the label says?" }, "What editing it does"),
      edits.length ? el("div.whisker-rows", {}, rows, el("span"), G.axis([[0, G.fixed(-reach, 1)], [0.5, "no effect"], [1, G.fixed(reach, 1)]]), el("span")) : null,
      el("p.caption", {}, text(causal)));
  }
})();
