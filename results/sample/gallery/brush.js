"use strict";
/* A histogram whose range is chosen: with the mouse on it, or with two sliders below, by keyboard too. */

(() => {
  const { el, svg } = G;
  const HEIGHT = 46, BINS = 40, STEPS = 200;

  /** { name, title, values, log, write(value) -> text, range: [low, high] | null, change(range | null) }.
   * Values run from 0 to 1; on a logarithmic scale from a millionth. */
  G.brush = ({ name, title, values, log, write, change }) => {
    const least = -6;
    const toShare = (value) => (log ? Math.max(0, 1 - Math.log10(Math.max(value, 10 ** least)) / least) : value);
    const toValue = (share) => (log ? (share <= 0 ? 0 : 10 ** (least * (1 - share))) : share);
    const counts = new Array(BINS).fill(0);
    for (const value of values) if (value !== null) counts[Math.min(BINS - 1, Math.floor(toShare(value) * BINS))] += 1;
    const most = Math.max(...counts, 1);
    const bars = counts.map((n, i) => svg("rect.bar", { x: `${(100 * i) / BINS}%`, width: `${86 / BINS}%`, y: HEIGHT - (HEIGHT - 2) * Math.sqrt(n / most), height: (HEIGHT - 2) * Math.sqrt(n / most) }));
    const figure = svg("svg.brush-bars", { height: HEIGHT, width: "100%", "aria-hidden": true }, bars);
    const slider = (which, at) => el("input.brush-slider", { type: "range", min: 0, max: STEPS, step: 1, value: at, id: `${name}-${which}`, "aria-label": `${title}, ${which}`, on: { input: () => moved(which) } });
    const [low, high] = [slider("least", 0), slider("most", STEPS)];
    const said = el("output.brush-said", { for: `${name}-least ${name}-most` });

    const get = () => [Number(low.value), Number(high.value)];
    function draw() {
      const [from, to] = get();
      bars.forEach((bar, i) => bar.classList.toggle("off", (i + 0.999) / BINS <= from / STEPS || i / BINS >= to / STEPS));
      said.textContent = from === 0 && to === STEPS ? "all" : `${write(toValue(from / STEPS))} to ${write(toValue(to / STEPS))}`;
      for (const [one, at] of [[low, from], [high, to]]) one.setAttribute("aria-valuetext", write(toValue(at / STEPS)));
    }
    function moved(which) {
      const [from, to] = get();
      if (from > to) (which === "least" ? high : low).value = which === "least" ? from : to;
      tell();
    }
    function tell() {
      const [from, to] = get();
      draw();
      shown = "";
      change(from === 0 && to === STEPS ? null : [toValue(from / STEPS), toValue(to / STEPS)]);
    }

    let start = null;
    const place = (event) => {
      const box = figure.getBoundingClientRect();
      return Math.round(STEPS * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    };
    const area = el("div.brush-area", { on: {
      pointerdown: (event) => { start = place(event); area.setPointerCapture(event.pointerId); },
      pointermove: (event) => {
        if (start === null) return;
        const here = place(event);
        [low.value, high.value] = [Math.min(start, here), Math.max(start, here)];
        draw();
      },
      pointerup: (event) => {
        if (start === null) return;
        if (place(event) === start) [low.value, high.value] = [0, STEPS]; // a click chooses all again
        start = null;
        tell();
      },
      pointercancel: () => { start = null; },
    } }, figure);

    const box = el("div.brush", { role: "group", "aria-label": title }, el("div.brush-head", {}, el("span", {}, title), said), area, el("div.brush-sliders", {}, low, high));
    /** Show a range that was chosen elsewhere. */
    box.set = (range) => {
      if (JSON.stringify(range) === shown) return;
      shown = JSON.stringify(range);
      low.value = range ? Math.round(STEPS * toShare(range[0])) : 0;
      high.value = range ? Math.round(STEPS * toShare(range[1])) : STEPS;
      draw();
    };
    let shown = "";
    box.set(null);
    return box;
  };
})();
