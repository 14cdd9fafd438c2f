"use strict";
/* Many points on a canvas: hover shows a picture, a click or Enter opens the card, wheel and keys zoom. */

(() => {
  const { el, text } = G;
  const NEAR = 12; // px within which a point is meant

  /** { x, y (values in 0..1 by latent, null: not shown), colour(id) -> css, faint(id) -> boolean, name, height, axes, zoom } */
  G.scatter = ({ x, y, colour, faint = () => false, name, axes = null, zoom = true }) => {
    const canvas = el("canvas.points", { tabindex: 0, role: "application", "aria-label": `${name}. Arrow keys go from point to point, Enter opens the card${zoom ? ", plus and minus zoom, 0 shows all" : ""}.` });
    const tip = el("div.tip", { hidden: true, "aria-hidden": true });
    const said = el("p.sr", { role: "status" });
    const box = el(`div.scatter${axes ? ".with-axes" : ""}`, {}, axes ? [el("span.axis-y", {}, axes.y), el("span.axis-x", {}, axes.x)] : null, canvas, tip, said);
    const ids = [...x.keys()].filter((i) => x[i] !== null && y[i] !== null);
    let view = { x: 0, y: 0, scale: 1 }, at = null, drag = null, asked = false;

    let area = null; // width and height; asked for anew when the canvas has changed
    const size = () => (area ??= [canvas.clientWidth, canvas.clientHeight]);
    const px = (id) => {
      const [w, h] = size();
      return [14 + (w - 28) * ((x[id] - view.x) * view.scale), h - 14 - (h - 28) * ((y[id] - view.y) * view.scale)];
    };

    function draw() {
      asked = false;
      if (area && !(area[0] && area[1])) area = null; // it was not in the document yet
      const [w, h] = size(), ratio = window.devicePixelRatio || 1;
      if (!w || !h) return;
      if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) [canvas.width, canvas.height] = [Math.round(w * ratio), Math.round(h * ratio)];
      const context = canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, w, h);
      const radius = Math.min(7, Math.max(1.6, (ids.length > 3000 ? 1.8 : ids.length > 600 ? 2.8 : 4.2) * Math.sqrt(view.scale)));
      for (const dim of [true, false]) {
        for (const id of ids) {
          if (faint(id) !== dim) continue;
          const [left, top] = px(id);
          if (left < -9 || top < -9 || left > w + 9 || top > h + 9) continue;
          context.globalAlpha = dim ? 0.12 : 0.85;
          context.fillStyle = colour(id);
          context.beginPath();
          context.arc(left, top, radius, 0, 6.3);
          context.fill();
        }
      }
      context.globalAlpha = 1;
      if (at !== null) {
        const [left, top] = px(at);
        context.strokeStyle = getComputedStyle(canvas).color;
        context.lineWidth = 2;
        context.beginPath();
        context.arc(left, top, radius + 4, 0, 6.3);
        context.stroke();
      }
    }
    const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };

    function nearest(left, top, within, fits = () => true) {
      let best = null, far = within * within;
      for (const id of ids) {
        if (faint(id) || !fits(id)) continue;
        const [a, b] = px(id), d = (a - left) ** 2 + (b - top) ** 2;
        if (d < far) [best, far] = [id, d];
      }
      return best;
    }

    function point(id, aloud = false) {
      at = id;
      tip.hidden = id === null;
      canvas.style.cursor = id === null ? "" : "pointer";
      if (id !== null) {
        const { label, thumb, score } = G.listed(id), [left, top] = px(id), [w, h] = size();
        tip.replaceChildren(thumb ? el("img", { src: G.thumb(G.hex(thumb)), alt: "" }) : "", el("span", {}, label === null ? "no label" : text(label)), el("span.tip-facts", {}, `#${id}${score === null ? "" : ` · AUROC ${G.fixed(score)}`}`));
        tip.style.left = `${Math.min(Math.max(0, left + 14), w - 190)}px`;
        tip.style.top = `${top > h - 130 ? top - 120 : top + 14}px`;
        if (aloud) said.textContent = `Latent ${id}, ${label ?? "no label"}`;
      }
      redraw();
    }

    function scale(factor, left, top) {
      const [w, h] = size(), next = Math.min(60, Math.max(1, view.scale * factor));
      const [u, v] = [(left - 14) / (w - 28), (h - 14 - top) / (h - 28)];
      view = { x: view.x + u / view.scale - u / next, y: view.y + v / view.scale - v / next, scale: next };
      keep();
    }
    function keep() {
      const room = 1 - 1 / view.scale;
      view.x = Math.min(Math.max(view.x, Math.min(0, room)), Math.max(0, room));
      view.y = Math.min(Math.max(view.y, Math.min(0, room)), Math.max(0, room));
      redraw();
    }

    const here = (event) => { const frame = canvas.getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; };
    const on = (kind, listener, options) => canvas.addEventListener(kind, listener, options);
    on("pointermove", (event) => {
      const [left, top] = here(event);
      if (!drag) return point(nearest(left, top, NEAR));
      const [w, h] = size();
      if (Math.hypot(left - drag.left, top - drag.top) > 4) drag.moved = true;
      if (zoom && drag.moved) {
        view = { ...view, x: drag.x - (left - drag.left) / (w - 28) / view.scale, y: drag.y + (top - drag.top) / (h - 28) / view.scale };
        keep();
      }
    });
    on("pointerdown", (event) => { const [left, top] = here(event); drag = { left, top, x: view.x, y: view.y, moved: false }; canvas.setPointerCapture(event.pointerId); });
    on("pointerup", (event) => {
      const [left, top] = here(event), id = nearest(left, top, NEAR);
      if (drag && !drag.moved && id !== null) location.hash = G.href(id);
      drag = null;
    });
    on("pointerleave", () => { if (document.activeElement !== canvas) point(null); });
    on("blur", () => point(null));
    if (zoom) on("wheel", (event) => { event.preventDefault(); scale(event.deltaY < 0 ? 1.25 : 0.8, ...here(event)); }, { passive: false });
    on("keydown", (event) => {
      const [w, h] = size(), step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) {
        event.preventDefault();
        const [left, top] = at === null ? [w / 2, h / 2] : px(at);
        const ahead = (id) => { const [a, b] = px(id), along = (a - left) * step[0] + (b - top) * step[1], across = Math.abs((a - left) * step[1]) + Math.abs((b - top) * step[0]); return id !== at && along > 0 && across <= along; };
        const id = at === null ? nearest(left, top, Infinity) : nearest(left, top, Infinity, ahead);
        if (id !== null) point(id, true);
      } else if (event.key === "Enter" && at !== null) location.hash = G.href(at);
      else if (zoom && "+-=0".includes(event.key)) { event.preventDefault(); if (event.key === "0") { view = { x: 0, y: 0, scale: 1 }; redraw(); } else scale(event.key === "-" ? 0.7 : 1.4, ...(at === null ? [w / 2, h / 2] : px(at))); }
    });
    new ResizeObserver(() => { area = null; redraw(); }).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    box.redraw = redraw;
    box.zoom = (factor) => { const [w, h] = size(); if (factor === null) { view = { x: 0, y: 0, scale: 1 }; redraw(); } else scale(factor, w / 2, h / 2); };
    return box;
  };

  /** A colour between two of the page's, for a share of 0..1. */
  G.ramp = (share) => {
    const stops = [[184, 58, 50], [201, 150, 47], [120, 160, 90], [35, 120, 130], [40, 90, 160]];
    const at = Math.min(0.9999, Math.max(0, share)) * (stops.length - 1), low = Math.floor(at);
    return `rgb(${stops[low].map((value, i) => Math.round(value + (at - low) * (stops[low + 1][i] - value))).join(" ")})`;
  };
})();
