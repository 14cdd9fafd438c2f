"use strict";
/* The small figures of a card, as SVG. x runs in per cent, so that lettering keeps its size. */

(() => {
  const { el, svg } = G;
  const x = (share) => `${(100 * share).toFixed(2)}%`;

  /** Dot and whisker on 0..1 with the chance line at .5; `low`/`high` may be missing; `guide` is a second line. */
  G.dotAndWhisker = ({ value, low = null, high = null, height = 22, radius = 5, name = "", hollow = false, guide = null }) => {
    const y = height / 2;
    const marks = [
      svg("line.track", { x1: 0, x2: "100%", y1: y, y2: y }),
      svg("line.chance", { x1: x(0.5), x2: x(0.5), y1: 1, y2: height - 1 }),
    ];
    if (guide !== null) marks.push(svg("line.guide", { x1: x(guide), x2: x(guide), y1: -2, y2: height + 2 }));
    if (low !== null && high !== null) {
      marks.push(svg("line.whisker", { x1: x(low), x2: x(high), y1: y, y2: y }));
      marks.push(...[low, high].map((end) => svg("line.whisker", { x1: x(end), x2: x(end), y1: y - 3.5, y2: y + 3.5 })));
    }
    if (value !== null) marks.push(svg(`circle.dot${hollow ? ".hollow" : ""}`, { cx: x(value), cy: y, r: radius }));
    return svg("svg.whiskers", { height, width: "100%", ...named(name) }, marks);
  };

  /** Ticks under whiskers and strips: `marks` are [share, text]. */
  G.axis = (marks) =>
    svg("svg.axis", { height: 18, width: "100%", "aria-hidden": true },
      marks.map(([share, text]) => svg("text", { x: x(share), y: 13, "text-anchor": anchor(share) }, text)));

  /** Active images per activation bin; the height is logarithmic, so that a single image is seen. */
  G.histogram = (counts, largest) => {
    const height = 150;
    const top = Math.log10(Math.max(...counts, 9) + 1);
    const y = (n) => height - (height - 4) * (Math.log10(n + 1) / top);
    const bars = counts.map((n, i) => {
      const from = G.act((largest * i) / counts.length), to = G.act((largest * (i + 1)) / counts.length);
      const bar = svg("rect.bar", { x: x(i / counts.length), width: x(0.82 / counts.length), y: y(n), height: height - y(n), rx: 1.5 });
      const hit = svg("rect.hit", { x: x(i / counts.length), width: x(1 / counts.length), y: 0, height });
      return svg("g", {}, svg("title", {}, `${G.plural(n, "image")} with activation ${from} to ${to}`), hit, bar);
    });
    const lines = [1, 10, 100, 1000, 10000, 100000, 1000000].filter((n) => Math.log10(n + 1) <= top).map((n) => [
      svg("line.grid", { x1: 0, x2: "100%", y1: y(n), y2: y(n) }),
      svg("text.tick", { x: -7, y: y(n) + 3.5, "text-anchor": "end" }, n >= 1000 ? `${n / 1000}k` : n),
    ]);
    const total = counts.reduce((a, b) => a + b, 0);
    return el("div.histogram", {},
      svg("svg", { height, width: "100%", ...named(`Histogram of the activation of ${G.plural(total, "image")}; counts on a logarithmic scale`) },
        lines.flat(), bars, svg("line.base", { x1: 0, x2: "100%", y1: height - 0.5, y2: height - 0.5 })),
      G.axis([[0, "0"], [0.5, G.act(largest / 2)], [1, G.act(largest)]]));
  };

  /** One bar per line: rows are { name, share (of the longest), value, title, tone }. */
  G.bars = (rows) =>
    el("dl.bars", {}, rows.map(({ name, share, value, title, tone }) => [
      el("dt", { title }, G.text(name)),
      el("dd", { title },
        svg("svg", { height: 10, width: "100%", "aria-hidden": true },
          svg("rect.rail", { x: 0, y: 0, width: "100%", height: 10, rx: 5 }),
          share > 0 ? svg(`rect.fill.${tone}`, { x: 0, y: 0, width: x(Math.max(share, 0.012)), height: 10, rx: 5 }) : null),
        el("span.value", {}, value)),
    ]));

  /** The judge's answers 0..100 on two lanes: dots of active images above, silent ones below. */
  G.strip = (answers) => {
    const height = 74;
    const dots = answers.filter(({ score }) => score !== null).map(({ score, truth, hard, title }, i) => {
      const lane = truth ? 20 : 54, spread = ((i * 7) % 5) - 2; // fixed jitter: equal scores stay countable
      const kind = truth ? "active" : hard ? "hard" : "random";
      return svg(`circle.answer.${kind}`, { cx: x(score / 100), cy: lane + spread * 3.4, r: 4.5 }, svg("title", {}, title));
    });
    return svg("svg.strip", { height, width: "100%", ...named("Judge's score of every held-out image, active images above, silent ones below") },
      svg("line.track", { x1: 0, x2: "100%", y1: 20, y2: 20 }), svg("line.track", { x1: 0, x2: "100%", y1: 54, y2: 54 }),
      svg("line.chance", { x1: x(0.5), x2: x(0.5), y1: 2, y2: height - 2 }), dots);
  };

  /** How many latents fall in each of `n` equal bins of [0, 1]. */
  G.distribution = (values, n, name, line = null) => {
    const counts = new Array(n).fill(0);
    for (const value of values) counts[Math.min(n - 1, Math.floor(value * n))] += 1;
    const height = 120, most = Math.max(...counts, 1);
    const bars = counts.map((count, i) =>
      svg("g", {}, svg("title", {}, `${G.plural(count, "latent")} from ${(i / n).toFixed(2)} to ${((i + 1) / n).toFixed(2)}`),
        svg("rect.hit", { x: x(i / n), width: x(1 / n), y: 0, height }),
        svg("rect.bar", { x: x(i / n), width: x(0.86 / n), y: height - (count / most) * (height - 14), height: (count / most) * (height - 14), rx: 2 })));
    return svg("svg.distribution", { height, width: "100%", ...named(name) }, bars,
      svg("line.base", { x1: 0, x2: "100%", y1: height - 0.5, y2: height - 0.5 }),
      line === null ? null : svg("line.chance", { x1: x(line), x2: x(line), y1: 0, y2: height }));
  };

  function named(name) {
    return name ? { role: "img", "aria-label": name } : { "aria-hidden": true };
  }

  function anchor(share) {
    return share === 0 ? "start" : share === 1 ? "end" : "middle";
  }
})();
