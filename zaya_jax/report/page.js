
"use strict";
// Values under the pointer, and runs that a legend hides. Everything else on the page works without this.
(() => {
  const root = document.documentElement;
  const pair = (words) => words.split(" ").map(Number);
  const show = (value) => Math.abs(value) >= 1e5 || Number.isInteger(value)
    ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));

  // "M x y l dx dy ..." as points, in shares of the area's width and height.
  function points(path) {
    const size = pair(path.ownerSVGElement.getAttribute("viewBox"))[2];
    const xs = [], ys = [];
    for (const stroke of path.getAttribute("d").split("M").slice(1)) {
      const numbers = stroke.split("h")[0].match(/-?\d+/g).map(Number);
      let [x, y] = numbers;
      xs.push(x / size); ys.push(1 - y / size);
      for (let i = 2; i + 1 < numbers.length; i += 2) {
        x += numbers[i]; y += numbers[i + 1];
        xs.push(x / size); ys.push(1 - y / size);
      }
    }
    return {xs, ys};
  }

  function nearest(xs, x) {
    let low = 0, high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  }

  function along(share, [low, high], log) {
    return log ? low * (high / low) ** share : low + share * (high - low);
  }

  // Steps are whole; a place on the axis need not be.
  function position(area, x) {
    return area.dataset.across === "step" ? Math.round(x) : x;
  }

  // What there is at a place of a chart: the x of the nearest point, and a line a curve.
  function curves(area, x) {
    const xAxis = pair(area.dataset.x), yAxis = pair(area.dataset.y), rows = [];
    let best = null;
    for (const path of area.querySelectorAll("path[data-label]")) {
      if (path.style.display === "none") continue;
      path.points ??= points(path);
      const i = nearest(path.points.xs, x);
      if (i < 0 || !(Math.abs(path.points.xs[i] - x) < .02 || path.points.xs.length < 100)) continue;
      if (best === null || Math.abs(path.points.xs[i] - x) < Math.abs(best - x)) best = path.points.xs[i];
      rows.push([path, `${path.dataset.label}: ${show(along(path.points.ys[i], yAxis, area.dataset.log))}`]);
    }
    return best === null ? null : [`${area.dataset.across} ${show(position(area, along(best, xAxis)))}`, rows, best];
  }

  function cell(area, heat, x, y) {
    const layers = Number(heat.dataset.layers), values = pair(heat.dataset.values);
    heat.cells ??= atob(heat.dataset.cells);
    const columns = heat.cells.length / layers, layer = Math.min(Math.floor(y * layers), layers - 1);
    const code = heat.cells.charCodeAt(layer * columns + Math.min(Math.floor(x * columns), columns - 1));
    const value = code === 255 ? "–" : show(Number(along(code / 254, values).toPrecision(3)));
    const at = position(area, along(x, pair(area.dataset.x)));
    return [`${area.dataset.across} ${show(at)}`, [[null, `layer ${layer}: ${value}`]], x];
  }

  function element(name, className, text = "") {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.textContent = text;
    return made;
  }

  function clear(area) {
    area.querySelectorAll(".cursor, .tip").forEach((old) => old.remove());
  }

  function point(area, event) {
    clear(area);
    const box = area.getBoundingClientRect();
    const x = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const y = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 1);
    const heat = area.querySelector(".heat");
    const found = heat ? cell(area, heat, x, y) : curves(area, x);
    if (!found) return;
    const cursor = element("div", "cursor"), tip = element("div", "tip");
    cursor.style.left = `${100 * found[2]}%`;
    tip.append(element("b", "", found[0]));
    for (const [path, text] of found[1]) {
      const row = element("div", path ? path.getAttribute("class") : "");
      row.append(element("span", "", text));
      tip.append(row);
    }
    tip.style[found[2] < .5 ? "left" : "right"] = `calc(${100 * Math.min(found[2], 1 - found[2])}% + .7rem)`;
    area.append(cursor, tip);
  }

  // Hides or shows a run on the whole page, or in the part of it where its number means the same.
  function toggle(legend) {
    const scope = legend.closest("[data-scope]") ?? document, run = legend.dataset.run;
    const on = legend.getAttribute("aria-pressed") === "false";
    scope.querySelectorAll(`li[data-run="${run}"]`).forEach((item) => item.setAttribute("aria-pressed", on));
    scope.querySelectorAll(`.area [data-run="${run}"]`).forEach((part) => { part.style.display = on ? "" : "none"; });
  }

  try {
    for (const area of document.querySelectorAll(".area")) {
      area.addEventListener("pointermove", (event) => point(area, event));
      area.addEventListener("pointerdown", (event) => point(area, event));
      area.addEventListener("pointerleave", () => clear(area));
    }
    for (const item of document.querySelectorAll("li[data-run]")) {
      item.setAttribute("role", "button");
      item.setAttribute("aria-pressed", "true");
      item.tabIndex = 0;
      item.title = "hide or show this run";
      item.addEventListener("click", () => toggle(item));
      item.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(item); });
    }
    root.dataset.script = "ready";
  } catch (error) {
    root.dataset.script = `failed: ${error}`;
  }
})();
