"use strict";
/* Latents that are like the one of the card: by direction, by images, by label; each a picture that links to its card. */

(() => {
  const { el, text } = G;
  const KINDS = [
    ["cosine", "Nearest directions", "By the cosine of their rows in the decoder", (value) => `cosine ${G.fixed(value)}`],
    ["together", "On the same images", "By the strongest images that both have, of those that either has", (value) => `${G.percent(value)} in common`],
    ["same", "Of the same label", "Their labels are the same but for case and blanks", () => ""],
  ];

  G.relatedPanel = ({ card: { related = {}, id } }) => {
    const found = KINDS.filter(([kind]) => related[kind]?.length);
    if (!found.length) return null;
    return el("section.images.related", {}, el("h2", {}, "Related latents"),
      found.map(([kind, title, meaning, write]) => el("div.related-row", {},
        el("h3", { title: meaning }, title, kind === "same" ? el("a.all-same", { href: G.hrefWith("list", { label: String(id) }) }, "all of them") : null),
        el("div.tiles.relatives", {}, related[kind].map((one) => relative(...(Array.isArray(one) ? one : [one, null]), write))))));
  };

  function relative(id, value, write) {
    const { label, thumb, score } = G.listed(id);
    return el("a.sample", { href: G.href(id), title: `#${id}: ${label ?? "no label"}` },
      el("span.frame", {}, thumb ? el("img", { src: G.thumb(G.hex(thumb)), alt: "", loading: "lazy" }) : null),
      el("span.sample-name", {}, label === null ? `#${id}` : text(label)),
      el("span.sample-score", {}, [write(value), score === null ? "" : `AUROC ${G.fixed(score)}`].filter(Boolean).join(" · ")));
  }
})();
