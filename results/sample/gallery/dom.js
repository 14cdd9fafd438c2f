"use strict";
/* Making elements, and writing numbers. All text goes through textContent; nothing is parsed as HTML. */

const G = {}; // the one global: data files call G.index(columns) and G.shard(k, cards)

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** el("p.note", { title }, "text", child, null): an element; `on` holds listeners. */
  G.el = (spec, attributes = {}, ...children) => {
    const [tag, ...classes] = spec.split(".");
    return fill(document.createElement(tag || "div"), classes, attributes, children);
  };

  G.svg = (spec, attributes = {}, ...children) => {
    const [tag, ...classes] = spec.split(".");
    return fill(document.createElementNS(SVG, tag), classes, attributes, children);
  };

  function fill(node, classes, { on = {}, ...attributes }, children) {
    if (classes.length) node.setAttribute("class", classes.join(" "));
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
    return node;
  }

  /** Text that comes from data: kept apart from its neighbours, whatever direction it runs. */
  G.text = (value) => G.el("bdi", {}, String(value));

  G.fixed = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));

  const whole = new Intl.NumberFormat("en-GB");
  G.count = (value) => whole.format(value);

  /** An activation: three significant digits. */
  G.act = (value) => {
    if (value === null) return "–";
    return value === 0 ? "0" : Math.abs(value) >= 999.5 ? G.count(Math.round(value)) : value.toPrecision(3);
  };

  /** A share as per cent, with two significant digits where it is small. */
  G.percent = (value) => {
    if (value === null) return "–";
    const percent = 100 * value;
    if (percent === 0 || percent >= 9.95) return `${percent.toFixed(0)}%`;
    return `${percent < 0.001 ? "<0.001" : Number(percent.toPrecision(2))}%`;
  };

  G.plural = (n, one, many = `${one}s`) => `${G.count(n)} ${n === 1 ? one : many}`;

  G.dollars = (value) => (value === null ? "–" : value === 0 ? "$0" : `$${Number(value.toPrecision(2))}`);

  G.thumb = (id) => `thumbs/${id.slice(0, 2)}/${id}.webp`;

  /** 43 signs of base64 -> 64 hex digits. */
  G.hex = (packed) => Array.from(atob(packed), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("");
})();
