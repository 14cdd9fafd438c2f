"use strict";
/* The images of a card: strongest, across the range, held out; where the latent answers, as a heat map. */

(() => {
  const { el, text } = G;

  G.tone = (domain) => `tone${domain % 5}`;

  /** The sections of a card that show images; a click on one opens it large. */
  G.imagePanels = (view) => [tops(view), quantiles(view), heldOut(view)];

  function tops({ card, meta, pictures }) {
    return el("section.images", {}, el("h2", {}, el("span", { title: "From the half of the images that the explainer may see" }, "Strongest images"),
      meta.tokens === "cls" ? null : heatSwitch()),
      card.top.map((row, domain) => el("div.domain-row", {},
        el("h3", {}, el(`i.swatch.${G.tone(domain)}`, { "aria-hidden": true }), text(meta.domains[domain])),
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
            el("span.key.hard", {}, "look-alikes"), ", ", el("span.key.random", {}, "random images"),
            card.score && answers.length < tested(card.score) ? `; ${G.count(answers.length)} of the ${G.count(tested(card.score))} images are shown here` : null))),
      half("Active: the label should fit", "The latent is active on these images; strongest first", answers.filter(({ truth }) => truth)),
      half_of("hard", "Silent look-alikes: it should not", "Strongest images of neighbouring latents, on which this one is silent"),
      half_of("weak", "Weakest: it should fit these less", "The latent is silent on too few images; these are those of its least activation"),
      half_of("silent", "Silent, drawn at random", "Random images on which this latent is silent"));
  }

  const tested = (score) => score.n_positive + score.n_negative;

  function said(truth, act, kind, score) {
    const fact = truth ? `active (${G.act(act)})` : { hard: "silent, a look-alike", weak: `weak (${G.act(act)})` }[kind] || "silent, random";
    return `${fact}; judge: ${score === null ? "no answer" : `${score} of 100`}`;
  }

  function judged({ at, heat, score, right, title }, pictures, meta) {
    const [sign, name] = right === null ? ["?", "no answer"] : right ? ["✓", "right"] : ["✗", "wrong"];
    const mark = el("span.mark", { title: `${name}: ${title}` }, el("b", { "aria-label": name }, sign), score);
    return tile(pictures[at], meta, heat, `${title}, ${name}`, mark, right === null ? "unsure" : name);
  }

  /** One image with an optional line below it. The whole image is shown, on white; a click opens it large. */
  function tile(picture, meta, heat, fact, caption = null, state = "") {
    const [id, domain, label, path, there, box] = picture;
    const about = [meta.domains[domain], label, path].filter(Boolean).join(" · ");
    const frame = el(`${there ? "button" : "span"}.frame.${G.tone(domain)}`, there ? { type: "button", "aria-label": `${label || meta.domains[domain]}, ${fact}: open large`, on: { click: (event) => G.view(event.currentTarget, { picture, meta, heat, fact }) } } : {});
    if (there) {
      frame.append(el("img", { src: G.thumb(id), alt: `${label || meta.domains[domain]}, ${fact}`, loading: "lazy", decoding: "async" }));
      if (heat) frame.append(G.heatMap(heat, meta.grid, box));
    } else {
      frame.append(el("span.gone", {}, "image missing"));
    }
    return el(`figure.tile${state ? `.${state}` : ""}`, { title: `${about}\n${fact}` }, frame, caption ? el("figcaption", {}, caption) : null);
  }

  /** Patch activations over the part of the frame that CLIP sees, in per cent; clear is 0, red the image's largest. What lies beyond the image is cut off. */
  G.heatMap = (packed, [rows, columns], [left, top, width, height, beyondX, beyondY]) => {
    const values = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const canvas = el("canvas.heat", { width: columns, height: rows, "aria-hidden": true });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(columns, rows);
    values.forEach((value, i) => pixels.data.set([225, 40, 90, Math.round(value * 0.72)], 4 * i));
    context.putImageData(pixels, 0, 0);
    Object.entries({ left, top, width, height }).forEach(([side, share]) => { canvas.style[side] = `${share}%`; });
    canvas.style.clipPath = `inset(${beyondY}% ${beyondX}%)`;
    return canvas;
  };
})();
