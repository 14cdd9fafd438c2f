"use strict";
/* How far people and the judge say the same of labels: Cohen's kappa, with an interval, of the verdicts that there are now. */

(() => {
  const R = G.review;
  const DRAWS = 2000, LEAST = 5; // as `interp verdicts show` has it: fewer latents give no interval

  /** { n, agreed, kappa, low, high } of the latents with a verdict and a score; null without any. What is not known is null. A person's "unclear" is no word on a label. */
  R.agreement = (n) => {
    const cells = [0, 0, 0, 0]; // both no, judge alone, person alone, both yes
    for (let id = 0; id < n; id++) {
      const said = R.of(id)?.verdict, judge = R.accepts(id);
      if (said && said !== "unclear" && judge !== null) cells[2 * (said !== "wrong") + judge] += 1;
    }
    const all = cells[0] + cells[1] + cells[2] + cells[3];
    if (!all) return null;
    const [low, high] = interval(cells, all);
    return { n: all, agreed: (cells[0] + cells[3]) / all, kappa: kappa(cells, all), low, high };
  };

  function kappa([no, judge, person, yes], n) {
    const chance = ((person + yes) * (judge + yes) + (no + judge) * (no + person)) / (n * n);
    return 1 - chance > 1e-9 ? ((no + yes) / n - chance) / (1 - chance) : null;
  }

  /** 2.5% to 97.5% of kappa over samples of as many latents, drawn with replacement; the same ones each time. */
  function interval(cells, n) {
    if (n < LEAST) return [null, null];
    const draw = R.chances(7), found = [];
    const ends = cells.map((_, at) => cells.slice(0, at + 1).reduce((sum, count) => sum + count, 0));
    for (let sample = 0; sample < DRAWS; sample++) {
      const drawn = [0, 0, 0, 0];
      for (let i = 0; i < n; i++) { const place = draw() * n; drawn[place < ends[0] ? 0 : place < ends[1] ? 1 : place < ends[2] ? 2 : 3] += 1; }
      const value = kappa(drawn, n);
      if (value !== null) found.push(value);
    }
    if (!found.length) return [null, null];
    found.sort((a, b) => a - b);
    return [0.025, 0.975].map((share) => found[Math.round(share * (found.length - 1))]);
  }
})();
