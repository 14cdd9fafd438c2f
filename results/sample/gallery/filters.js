"use strict";
/* What the list can be narrowed by: choices and ranges, each shown only where the run has it. */

(() => {
  const { el } = G;

  /** Name -> { title, choices(index) -> [[value, text], ...], fits(index, value) -> (latent) -> boolean }. */
  G.CHOICES = {
    show: {
      title: "Show", first: true,
      choices: (index) => Object.entries(G.SHOWN).map(([name, [title, fits]]) => [name, `${title} (${counted(index, fits)})`]),
      fits: (index, value) => (i) => G.SHOWN[value][1](index, i),
    },
    support: {
      title: "Support",
      choices: (index) => (index.supported.some(Boolean) ? listed(index, index.supported, "Any support", { supported: "Supported", undecided: "Undecided", unsupported: "Not supported" }, "Not compared") : []),
      fits: (index, value) => (i) => (index.supported[i] ?? "none") === value,
    },
    transfer: {
      title: "Across domains",
      choices: (index) => (index.transfer ? listed(index, index.transfer, "Any across domains", { shape: "Shape", "domain-bound": "Bound to one domain", "one way": "One way", undecided: "Undecided" }, "Not looked at") : []),
      fits: (index, value) => (i) => (index.transfer?.[i] ?? "none") === value,
    },
    failure: {
      title: "Failure",
      choices: (index) => (index.failure.some(Boolean) ? listed(index, index.failure, "Failed or not", Object.fromEntries([...new Set(index.failure.filter(Boolean))].map((kind) => [kind, kind.replaceAll("_", " ")])), "No failure") : []),
      fits: (index, value) => (i) => (index.failure[i] || "none") === value,
    },
    label: {
      title: "Same label",
      choices: (index, value) => {
        let shared = 0;
        for (const n of index.groups.values()) if (n > 1) shared += n;
        if (!shared) return [];
        const one = /^\d+$/.test(value) && index.label[value] ? [[value, `As #${value}: ${index.label[value]}`]] : [];
        return [["", "Same label or not"], ["shared", `Label shared with others (${G.count(shared)})`], ["own", "Label of its own"], ...one];
      },
      fits: (index, value) => {
        if (value === "shared" || value === "own") return (i) => index.label[i] !== null && (index.groups.get(G.wording(index.label[i])) > 1) === (value === "shared");
        const wanted = index.label[value] === undefined || index.label[value] === null ? null : G.wording(index.label[value]);
        return (i) => index.label[i] !== null && G.wording(index.label[i]) === wanted;
      },
    },
    top: {
      title: "Frequent class",
      choices: (index) => {
        const { names, of } = index.top_classes;
        const counts = new Array(names.length).fill(0);
        for (const found of of) for (const at of found) counts[at] += 1;
        return names.length ? [["", "Any frequent class"], ...names.map((name, at) => [name, `${name} (${G.count(counts[at])})`])] : [];
      },
      fits: (index, value) => {
        const at = index.top_classes.names.indexOf(value);
        return (i) => index.top_classes.of[i]?.includes(at) ?? false;
      },
    },
    class: {
      title: "Class", first: true,
      choices: (index) => (index.classes ? [["", "All classes"], ...index.classes.names.map((name, i) => [name, `${name} (${G.count(index.classes.latents[i].length)})`])] : []),
    },
  };

  /** Name -> { title, values(index) -> a value a latent, log, write }. Their state is "low~high". */
  G.RANGES = {
    score: { title: "AUROC", values: (index) => index.score, write: (value) => G.fixed(value) },
    share: { titled: ({ meta }) => `Share of ${meta.share_of}`, values: ({ meta, shares }) => (meta.domains.length > 1 ? shares[meta.domains.indexOf(meta.share_of)] : null), write: (value) => G.fixed(value) },
    freq: { title: "Active on", values: (index) => index.frequency, log: true, write: (value) => G.percent(value) },
  };

  G.range = (text) => {
    const found = /^([\d.e-]+)~([\d.e-]+)$/.exec(text ?? "");
    const ends = found ? [Number(found[1]), Number(found[2])] : [NaN, NaN];
    return ends.every(Number.isFinite) && ends[0] <= ends[1] ? ends : null;
  };

  G.written = (range) => (range ? range.map((end) => Number(end.toPrecision(3))).join("~") : "");

  /** The tests that a state asks of a latent, but for the search. */
  G.tests = (index, state) => {
    const tests = [];
    for (const [name, { fits }] of Object.entries(G.CHOICES)) if (fits && state[name] && state[name] !== "all") tests.push(fits(index, state[name]));
    for (const [name, { values }] of Object.entries(G.RANGES)) {
      const range = G.range(state[name]), column = range && values(index);
      if (column) tests.push((i) => column[i] !== null && column[i] >= range[0] - 1e-9 && column[i] <= range[1] + 1e-9);
    }
    return tests;
  };

  /** Draws all of them; `change(part)` is told what was chosen. show(state) sets them. */
  G.controls = (index, first, more, change) => {
    const selects = new Map(), brushes = new Map(), listed = new Map();
    const add = (name, title, pairs, place) => {
      const select = el("select", { id: name, "aria-label": title, on: { change: () => change(name === "class" ? { class: select.value, sort: select.value ? "rank" : "score" } : { [name]: select.value }) } });
      fill(select, pairs);
      selects.set(name, select);
      place.append(el("label", { id: `of-${name}`, hidden: pairs.length === 0 }, el("span.control-name", {}, title), select));
    };
    const addChoices = (isFirst, place) => {
      for (const [name, { title, choices, first: early = false }] of Object.entries(G.CHOICES)) if (early === isFirst) add(name, title, choices(index, ""), place);
    };
    addChoices(true, first);
    add("sort", "Sort by", Object.entries(G.sorts(index)).map(([name, [title]]) => [name, title]), first);
    /** The filters that are folded away at first: the page calls it once the list is there. */
    const finish = () => {
      addChoices(false, more);
      for (const [name, { title, titled, values, log, write }] of Object.entries(G.RANGES)) {
        const column = values(index);
        if (!column || column.every((value) => value === null)) continue;
        const brush = G.brush({ name, title: title ?? titled(index), values: column, log, write, change: (range) => change({ [name]: G.written(range) }) });
        brushes.set(name, brush);
        more.append(brush);
      }
      if (last) show(last);
    };
    let last = null;
    const show = (state) => {
      last = state;
      const blind = G.review.isBlind();
      if (selects.has("top") && (listed.get("blind") ?? false) !== blind) { // the classes' names would tell what is to be guessed
        fill(selects.get("top"), blind ? [] : G.CHOICES.top.choices(index));
        selects.get("top").parentElement.hidden = selects.get("top").options.length === 0;
        listed.set("blind", blind);
      }
      if (selects.has("label") && listed.get("label") !== state.label) {
        fill(selects.get("label"), G.CHOICES.label.choices(index, state.label));
        listed.set("label", state.label);
      }
      for (const [name, select] of selects) if (select.value !== state[name]) select.value = state[name];
      for (const [name, brush] of brushes) brush.set(G.range(state[name]));
    };
    return { show, finish };
  };

  function fill(select, pairs) {
    select.replaceChildren(...pairs.map(([value, title]) => el("option", { value }, title)));
  }

  function listed(index, column, any, names, none) {
    const counts = new Map();
    for (const value of column) counts.set(value || "none", (counts.get(value || "none") ?? 0) + 1);
    return [["", any], ...[...Object.entries(names), ["none", none]].filter(([value]) => counts.has(value)).map(([value, title]) => [value, `${title} (${G.count(counts.get(value))})`])];
  }

  function counted(index, fits) {
    let n = 0;
    for (let i = 0; i < index.status.length; i++) n += fits(index, i) ? 1 : 0;
    return G.count(n);
  }
})();
