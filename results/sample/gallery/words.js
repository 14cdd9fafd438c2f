"use strict";
/* Which latents a word means, as CLIP has it: data/words.js, fetched when something is searched for. */

(() => {
  let found = null; // word -> latents, best first
  let asked = false;

  /** The latents that the whole query means, best first; none until the file is there. */
  G.meant = (index, query) => {
    const words = plain(query ?? "");
    if (!index.has_words || !words) return [];
    if (!asked) {
      asked = true;
      G.once("data/words.js").then((data) => { found = new Map(data.words.map((word, at) => [plain(word), data.of[at]])); G.change({}); }).catch(() => {});
    }
    const ids = found?.get(words) ?? found?.get(words.replace(/s$/, "")) ?? [];
    return ids.filter((id) => !G.review.hides(id));
  };

  /** Said beside the count of what was found. */
  G.meantNote = (index, state) => {
    const meant = G.meant(index, state.q);
    if (!meant.length) return "";
    const shown = new Set(G.found()), n = meant.filter((id) => shown.has(id)).length;
    return n ? ` · ${n} by meaning` : "";
  };

  function plain(text) {
    return G.wording(text).replace(/^(a|an|the|some) /, "");
  }
})();
