"use strict";
/* The run as a whole: labels, scores against the nulls, domains, cost, failures, settings. */

(() => {
  const { el, svg, text } = G;
  const BINS = 40;

  G.overview = (index) => {
    const { meta } = index;
    const tally = (show) => { let n = 0; for (let i = 0; i < index.status.length; i++) n += G.SHOWN[show][1](index, i) ? 1 : 0; return n; };
    const scores = index.score.filter((value) => value !== null).sort((a, b) => a - b);
    const supported = index.supported.filter((one) => one === "supported").length;
    const figure = (value, name, title, place) => el("a", { title, href: place }, el("strong", {}, value), el("span", {}, name));
    const shown = (filters) => G.hrefWith("list", filters);
    return el("article.card.start", {},
      el("header.head", {}, el("div.eyebrow", {}, el("span.source", {}, G.source(meta))),
        el("h1", {}, text(meta.run)),
        el("p.description", {}, `${G.plural(index.status.length, "latent")} of a sparse autoencoder, looked at on ${G.plural(meta.n_images, "image")} of `,
          meta.domains.map((name, i) => [i === 0 ? "" : i === meta.domains.length - 1 ? " and " : ", ", el("em", {}, text(name))]).flat(), ".")),
      el("div.headline", {},
        figure(G.count(tally("labelled")), "labelled", "Latents with a label that is no guess", shown({ show: "labelled" })),
        tally("unclear") ? figure(G.count(tally("unclear")), "unclear", "Latents whose label is a guess", shown({ show: "unclear" })) : null,
        index.supported.some(Boolean) ? figure(G.count(supported), "supported", "Labels that do better than labels that say nothing", shown({ support: "supported" })) : null,
        figure(G.count(tally("live")), "live", "Active on some images, not on too many", shown({ show: "live" })),
        figure(G.count(tally("dense")), "dense", "Active on so many images that a single label seldom fits", shown({ show: "dense" })),
        figure(G.count(tally("dead")), "dead", "Active on no image", shown({ show: "dead" })),
        figure(scores.length ? G.fixed(scores[Math.floor(scores.length / 2)]) : "–", "median AUROC", "Of the scored latents; 0.5 is chance", shown({ sort: "score" }))),
      el("div.figures", {}, scorePanel(index, scores), planePanel(index)),
      G.changesPanel(index),
      samples(index, "Labels that predict best", "score"),
      samples(index, "Labels that predict worst", "worst"),
      el("div.figures", {}, costPanel(index.overview), failurePanel(index.overview), reviewPanel(index)),
      settingsPanel(index.overview),
      el("p.keys", {}, [["j", "next"], ["k", "previous"], ["/", "search"], ["h", "heat map"], ["o", "overview"], ["l", "list"], index.has_map ? ["p", "map"] : null].filter(Boolean).map(([key, what]) => [el("kbd", {}, key), ` ${what}  `])),
      el("p.keys.more", {}, [["1", "right"], ["2", "partly"], ["3", "wrong"], ["4", "unclear"], ["n", "next to review"], ["u", "undo"], ["e", "better label"], ["m", "note"], ["b", "blind"]].map(([key, what]) => [el("kbd", {}, key), ` ${what}  `])));
  };

  const empty = (command) => el("p.missing", {}, "Nothing yet; ", el("code", {}, command), " fills this in.");
  const panel = (name, title, ...content) => el(`section.panel.${name}`, {}, el("h2", {}, title), content);

  /** Labels by AUROC; the nulls as lines, each scaled to its own number so that shapes compare. */
  function scorePanel({ overview }, scores) {
    if (!scores.length) return panel("scores", "Scores", empty("interp score"));
    const nulls = overview.nulls.filter(({ n }) => n > 0);
    const counts = new Array(BINS).fill(0);
    for (const score of scores) counts[Math.min(BINS - 1, Math.floor(score * BINS))] += 1;
    const shares = (bins) => { const total = bins.reduce((a, b) => a + b, 0); return bins.map((n) => n / total); };
    const all = [counts, ...nulls.map(({ bins }) => bins)].map(shares), most = Math.max(...all.flat());
    const height = 150, y = (share) => height - (share / most) * (height - 10), x = (i) => (100 * i) / BINS;
    const bars = all[0].map((share, i) => svg("g", {}, svg("title", {}, `${G.plural(counts[i], "latent")} from ${(i / BINS).toFixed(3)} to ${((i + 1) / BINS).toFixed(3)}`),
      svg("rect.hit", { x: `${x(i)}%`, width: `${100 / BINS}%`, y: 0, height }), svg("rect.bar", { x: `${x(i)}%`, width: `${88 / BINS}%`, y: y(share), height: height - y(share), rx: 1.5 })));
    const lines = all.slice(1).map((bins, at) => bins.flatMap((share, i) => [
      share || bins[i - 1] ? svg(`line.null-line.tone${at % 5}`, { x1: `${x(i)}%`, x2: `${x(i + 1)}%`, y1: y(share), y2: y(share) }) : null,
      i && share !== bins[i - 1] ? svg(`line.null-line.tone${at % 5}`, { x1: `${x(i)}%`, x2: `${x(i)}%`, y1: y(bins[i - 1]), y2: y(share) }) : null]));
    const NAMES = { untrained: "labels of an untrained SAE", random: "labels of random directions", shuffled: "labels of other latents", "best other label": "the best label that says nothing" };
    return panel("scores", el("span", { title: "AUROC on unseen images; each distribution is scaled to its own number" }, "Scores against the nulls"),
      svg("svg.distribution", { height, width: "100%", role: "img", "aria-label": `Latents by AUROC${nulls.length ? `, and ${nulls.map(({ name }) => NAMES[name] ?? name).join(", ")}` : ""}` }, bars, lines.flat(2),
        svg("line.base", { x1: 0, x2: "100%", y1: height - 0.5, y2: height - 0.5 }), svg("line.chance", { x1: "50%", x2: "50%", y1: 0, y2: height })),
      G.axis([[0, "0"], [0.5, "chance"], [1, "1"]]),
      el("p.caption.null-keys", {}, el("span.null-key.own", {}, `${G.plural(scores.length, "scored latent")}`),
        nulls.map(({ name, n, mean }, at) => el(`span.null-key.tone${at % 5}`, { title: `${G.count(n)}, mean AUROC ${G.fixed(mean)}` }, `${NAMES[name] ?? name} (mean ${G.fixed(mean)})`))));
  }

  /** Of two domains: each latent by its rate in either; of more a distribution for each. */
  function planePanel(index) {
    const { meta, shares, frequency } = index;
    if (meta.domains.length === 1) return null;
    const distribution = (domain, line) => [G.distribution(shares[meta.domains.indexOf(domain)].filter((value) => value !== null), 20, `Latents by ${domain} share`, line),
      G.axis([[0, `never ${domain}`], ...(line === null ? [] : [[line, "all alike"]]), [1, `${domain} only`]])];
    const title = "Where latents answer";
    if (meta.domains.length > 2) return panel("where", title, meta.domains.map((domain) => distribution(domain, 1 / meta.domains.length)), el("p.caption", {}, "latents by each domain's share of their rates"));
    const content = [distribution(meta.share_of, null), el("p.caption", {}, `latents by ${meta.share_of} share of their rates`)];
    const [na, nb] = meta.domain_images;
    if (na && nb) {
      const least = -5, scaled = (rate) => Math.min(1, Math.max(0, 1 - Math.log10(Math.max(rate, 10 ** least)) / least));
      const rates = frequency.map((share, i) => {
        const [a, b] = [shares[0][i], shares[1][i]];
        if (a === null || !share) return [null, null];
        const total = (share * (na + nb)) / (a * na + b * nb);
        return [scaled(a * total), scaled(b * total)];
      });
      const [a, b] = meta.domains;
      content.unshift(G.scatter({ x: rates.map(([one]) => one), y: rates.map(([, one]) => one), colour: (id) => (index.score[id] === null ? "#8b9198" : G.ramp(2 * index.score[id] - 1)), zoom: false, name: `Latents by their rates on ${a} and ${b} images`, axes: { x: text(`${a} →`), y: text(`${b} →`) } }),
        el("p.caption", {}, `each latent by the share of ${a} and of ${b} images on which it is active, logarithmic; coloured by AUROC`));
    }
    return panel("where", title, content);
  }

  function costPanel({ cost }) {
    if (!cost.length) return null;
    const known = cost.every(([, , , , usd]) => usd !== null), total = cost.reduce((sum, [, , , , usd]) => sum + (usd ?? 0), 0);
    return panel("cost", `Cost: ${known ? "" : "at least "}${G.dollars(total)}`, table(["Stage", "Model", "Latents", "Calls", "Dollars"],
      cost.map(([stage, model, n, calls, usd]) => [text(stage), text(model), G.count(n), G.count(calls), G.dollars(usd)]), 2));
  }

  function failurePanel({ failures, cost }) {
    if (!failures.length) return cost.length ? panel("failures", "Failures", el("p.missing", {}, "None: every latent that was asked about has an answer.")) : null;
    return panel("failures", "Failures", table(["Stage", "Why", "Latents"], failures.map(([stage, kind, n, reason]) => [text(stage),
      el("div", {}, el("a.plain-link", { href: G.hrefWith("list", { failure: kind }) }, text(kind.replaceAll("_", " "))), reason ? el("span.reason", {}, text(reason)) : null), G.count(n)]), 2));
  }

  /** What people say of the labels, and whether the judge says the same; live, as the verdicts are. */
  function reviewPanel(index) {
    const R = G.review, { done, all } = R.progress();
    if (R.kept() === "nowhere" || !done) return null;
    const counts = R.WORDS.map((word) => [word, index.status.reduce((sum, _, id) => sum + (R.of(id)?.verdict === word), 0)]);
    const found = R.agreement(index.status.length);
    return panel("people", el("span", { title: "Right and partly stand for yes, wrong for no; the judge says yes to a label that is supported, or, where no null was graded, whose interval lies above chance" }, "People and the judge"),
      el("p", {}, `${G.count(done)} of ${G.plural(all, "label")} reviewed: ${counts.map(([word, n]) => `${G.count(n)} ${word}`).join(", ")}.`),
      found ? el("p.agreement", {}, `They agree on ${G.percent(found.agreed)} of ${G.plural(found.n, "label")}: `, found.kappa === null ? "no kappa where one of them says the same of all." : [`Cohen's kappa ${G.fixed(found.kappa)}`, found.low === null ? "." : ` (${G.fixed(found.low)} to ${G.fixed(found.high)} at 95%).`]) : null);
  }

  function settingsPanel({ settings, versions, k }) {
    const rows = settings.map(([stage, name, value]) => [text(stage), text(name), text(value)]);
    if (!rows.length && !k) return null;
    return el("details.provenance", {}, el("summary", {}, "Settings"),
      k ? el("p.caption", {}, `k = ${k} latents a token; ${Object.entries(versions).map(([name, value]) => `${name} ${value}`).join(", ")}`) : null,
      rows.length ? table(["Stage", "Setting", "Value"], rows, 3) : null);
  }

  function table(heads, rows, nNames) {
    return el("div.table-box", { tabindex: 0, role: "group", "aria-label": heads.join(", ") }, el("table.plain-table", {}, el("thead", {}, el("tr", {}, heads.map((head, i) => el(i >= nNames ? "th.right" : "th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, i) => el(i >= nNames ? "td.right" : "td", {}, value)))))));
  }

  /** A row of pictures that lead to the first latents of an order; nothing without two rows of scores. */
  function samples(index, title, sort) {
    const ids = G.select(index, { q: "", show: "labelled", sort }).filter((id) => index.score[id] !== null);
    if (ids.length < 16) return null;
    return el("section.images", {}, el("h2", {}, title), el("div.tiles.large", {}, ids.slice(0, 8).map((id) =>
      el("a.sample", { href: G.href(id), title: `#${id}, AUROC ${G.fixed(index.score[id])}` },
        el("span.frame", {}, index.thumb[id] ? el("img", { src: G.thumb(G.hex(index.thumb[id])), alt: "" }) : null),
        el("span.sample-name", {}, text(index.label[id])), el("span.sample-score", {}, G.fixed(index.score[id]))))));
  }
})();
