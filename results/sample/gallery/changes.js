"use strict";
/* What `interp compare` found between this run and another, or between two of its domains. */

(() => {
  const { el, text } = G;
  const N_SHOWN = 12;

  /** A panel of the overview; nothing where nothing was compared. Blind mode hides names of classes. */
  G.changesPanel = (index) => {
    const found = index.changes;
    if (!found || G.review.isBlind()) return null;
    const images = found.n_before === found.n_after ? G.plural(found.n_before, "image") : `${G.count(found.n_before)} and ${G.plural(found.n_after, "image")}`;
    return el("section.panel.changes", {}, el("h2", {}, "What changes from ", text(found.before), " to ", text(found.after)),
      el("p.caption", {}, `${images}, ${found.in_classes ? "class by class" : "all together"}: ${G.count(found.n_rise)} times a latent rises, ${G.count(found.n_fall)} times one falls, of ${found.in_classes ? `${G.count(found.n_tested)} pairs of class and latent` : G.plural(found.n_tested, "latent")}; q below .05, by more than ${G.percent(found.least)} of its mean activation`),
      el("div.figures", {}, side(index, "Rise", found.shown.filter(([, , difference]) => difference > 0)), side(index, "Fall", found.shown.filter(([, , difference]) => difference < 0))));
  };

  function side(index, title, rows) {
    const cells = (row) => row.map((value, i) => el(i > 1 ? "td.right" : "td", {}, value));
    return el("div", {}, el("h3", {}, title), rows.length === 0 ? el("p.missing", {}, "None.") : el("div.table-box", { tabindex: 0, role: "group", "aria-label": title },
      el("table.plain-table", {}, el("thead", {}, el("tr", {}, ["Latent", "Class", "Difference, 95%"].map((head, i) => el(i > 1 ? "th.right" : "th", { scope: "col" }, head)))),
        el("tbody", {}, rows.slice(0, N_SHOWN).map(([id, name, difference, low, high, q]) => el("tr", {}, cells([
          el("a.plain-link", { href: G.href(id) }, text(`#${id} ${index.label[id] ?? ""}`)), text(name || "all images"),
          el("span", { title: `95% interval ${G.act(low)} to ${G.act(high)}; q ${q < 0.001 ? "below .001" : G.fixed(q)}` }, signed(difference), el("span.caption", {}, ` ${signed(low)} to ${signed(high)}`))])))))));
  }

  const signed = (value) => `${value < 0 ? "−" : "+"}${G.act(Math.abs(value))}`;
})();
