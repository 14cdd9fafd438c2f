"use strict";
/* One image large, over the page: with heat, class, file name, activation; arrow keys go to its neighbours. */

(() => {
  const { el, text } = G;
  let dialog = null;
  let opener = null;

  /** Open the image of a frame; `shown` is { picture, meta, heat, fact }. */
  G.view = (frame, shown) => {
    opener = frame;
    if (!dialog) {
      dialog = el("dialog.viewer", { "aria-label": "Image", on: {
        click: (event) => { if (event.target === dialog) dialog.close(); },
        close: () => opener?.focus(),
        keydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (step) { event.preventDefault(); neighbour(step); }
          if (event.key === "h") G.toggleHeat();
        },
      } });
      document.body.append(dialog);
    }
    draw(shown);
    if (!dialog.open) dialog.showModal();
  };

  function draw({ picture: [id, domain, label, path, , box], meta, heat, fact }) {
    const image = el("img", { src: G.thumb(id), alt: `${label || meta.domains[domain]}, ${fact}` });
    const place = `${meta.domains[domain]}/${path}`;
    dialog.replaceChildren(
      el("div.viewer-frame", {}, image, heat ? G.heatMap(heat, meta.grid, box) : null),
      el("div.viewer-text", {},
        el("p.viewer-class", {}, text(label || "no class")),
        el("dl", {}, row("Domain", text(meta.domains[domain])), path ? row("File", text(path)) : null, row("Latent", text(fact)), row("Image", el("code", {}, id.slice(0, 12)))),
        el("div.viewer-actions", {},
          path ? button("Copy path", () => G.copy(place, "Path copied")) : null,
          button("Previous", () => neighbour(-1)), button("Next", () => neighbour(1)), button("Close", () => dialog.close()))));
    original(image, meta.domains[domain], path, id);
  }

  const row = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
  const button = (name, click) => el("button.plain-button", { type: "button", on: { click } }, name);

  function neighbour(step) {
    const frames = [...document.querySelectorAll("main button.frame")];
    const next = frames[frames.indexOf(opener) + step];
    if (next) { next.click(); next.scrollIntoView({ block: "nearest" }); }
  }

  /** The image itself in the place of its small picture, where this is the machine on which it lies. */
  async function original(image, domain, path, id) {
    if (location.protocol !== "file:" || !path || !G.hasOriginals()) return;
    const roots = await G.once("local.js").catch(() => ({}));
    const root = roots[domain];
    // Only ever a place beside or above this folder: no address, no drive, no root.
    if (typeof root !== "string" || !/^(\.\.\/)*[^/\\:?#%][^\\:?#%]*$/.test(root)) return;
    const whole = new Image();
    whole.onload = () => { if (image.isConnected && image.src.endsWith(G.thumb(id))) image.src = whole.src; };
    whole.src = [root, ...path.split("/")].map((part, at) => (at ? encodeURIComponent(part) : encodeURI(part))).join("/");
  }
})();
