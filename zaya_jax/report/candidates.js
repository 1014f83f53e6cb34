"use strict";
// A card's parents and descendants, keys from card to card, and the sheet of an opened card. The page reads without this.
(() => {
  const root = document.documentElement;
  const MARKS = ["self", "parent", "child", "descendant", "near", "far"];
  let lit = null;

  // Lines of a graph by the card they leave and by the card they reach.
  function lines(graph) {
    if (!graph.lines) {
      graph.lines = {leave: new Map(), reach: new Map()};
      for (const path of graph.querySelectorAll("path[data-from]")) {
        for (const [map, id] of [[graph.lines.leave, path.dataset.from], [graph.lines.reach, path.dataset.to]]) {
          if (!map.has(id)) map.set(id, []);
          map.get(id).push(path);
        }
      }
    }
    return graph.lines;
  }

  function mark(path, end, kind, strength) {
    path.classList.add(strength);
    document.getElementById(path.dataset[end]).classList.add(kind);
  }

  function descend({leave}, ids, depth) {
    const next = new Set();
    for (const path of ids.flatMap((id) => leave.get(id) ?? [])) {
      mark(path, "to", depth ? "descendant" : "child", depth ? "far" : "near");
      next.add(path.dataset.to);
    }
    if (next.size) descend({leave}, [...next], depth + 1);
  }

  function light(card) {
    if (card === lit) return;
    if (lit) {
      const old = lit.closest(".graph");
      old.classList.remove("lit");
      old.querySelectorAll(MARKS.map((name) => `.${name}`).join()).forEach((part) => part.classList.remove(...MARKS));
    }
    lit = card;
    if (!card) return;
    const graph = card.closest(".graph"), found = lines(graph);
    graph.classList.add("lit");
    card.classList.add("self");
    for (const path of found.reach.get(card.id) ?? []) mark(path, "from", "parent", "near");
    descend(found, [card.id], 0);
  }

  const cardOf = (node) => node?.closest?.("details.candidate") ?? null;
  const opened = () => document.querySelector(".problem[open] details.candidate[open]");
  // An opened card keeps the light; otherwise the last that was pointed at or focused has it.
  const settle = (card) => light(opened() ?? card ?? cardOf(document.activeElement));

  function open(card) {
    card.closest(".problem").open = true;
    card.open = true;
    const face = card.querySelector("summary");
    face.focus({preventScroll: true});
    face.scrollIntoView({block: "nearest", inline: "nearest"});
  }

  function close(card) {
    card.open = false;
    card.querySelector("summary").focus();
  }

  // A card there is: of the same column above or below, or of the same row in another round.
  function neighbour(card, key) {
    let [place, round, index] = card.id.slice(1).split(/-[rc]/).map(Number);
    const [across, down] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[key];
    for (;;) {
      round += across;
      index += down;
      const next = document.getElementById(`p${place}-r${round}-c${index}`);
      if (!next || next.matches("details")) return next;
    }
  }

  function press(event) {
    const card = cardOf(event.target);
    if (event.key === "Escape" && opened()) close(opened());
    if (!card || !event.key.startsWith("Arrow") || !event.target.matches("summary") || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = neighbour(card, event.key);
    if (next && card.open) open(next);
    else next?.querySelector("summary").focus();
  }

  // Into a closed problem, or to a card, which opens.
  function go(id) {
    const target = document.getElementById(id);
    if (target?.matches("details.candidate")) return open(target);
    const problem = target?.closest(".problem");
    if (!problem) return;
    problem.open = true;
    problem.scrollIntoView();
    problem.querySelector("summary").focus({preventScroll: true});
  }

  function click(event) {
    const link = event.target.closest("a[href^='#']");
    if (link) {
      event.preventDefault();
      go(link.getAttribute("href").slice(1));
    } else if (event.target.closest(".close")) {
      close(cardOf(event.target));
    }
  }

  function toggle(event) {
    const card = event.target;
    if (card.matches(".problem") && !card.open) card.querySelectorAll("details.candidate[open]").forEach((inner) => { inner.open = false; });
    if (!card.matches("details.candidate")) return;
    settle();
    if (!card.open) return;
    // Browsers that do not know a group of details by its name.
    document.querySelectorAll("details.candidate[open]").forEach((other) => { if (other !== card) other.open = false; });
    const sheet = card.querySelector(".sheet");
    sheet.tabIndex = 0;
    if (sheet.querySelector(".close")) return;
    const button = document.createElement("button");
    button.className = "close";
    button.textContent = "×";
    button.setAttribute("aria-label", "Close");
    sheet.prepend(button);
    card.querySelector("summary").scrollIntoView({block: "nearest", inline: "nearest"});
  }

  try {
    const shut = [];
    document.addEventListener("pointerover", (event) => settle(cardOf(event.target)));
    document.addEventListener("focusin", (event) => settle(cardOf(event.target)));
    document.addEventListener("focusout", () => setTimeout(settle));
    document.addEventListener("keydown", press);
    document.addEventListener("click", click);
    document.addEventListener("toggle", toggle, true);
    addEventListener("beforeprint", () => {
      light(null);
      for (const problem of document.querySelectorAll(".problem:not([open])")) { problem.open = true; shut.push(problem); }
    });
    addEventListener("afterprint", () => { for (const problem of shut.splice(0)) problem.open = false; });
    if (location.hash) go(location.hash.slice(1));
    root.dataset.script = "ready";
  } catch (error) {
    root.dataset.script = `failed: ${error}`;
  }
})();
