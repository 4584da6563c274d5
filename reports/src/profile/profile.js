"use strict";
(() => {
  const root = document.documentElement, $ = id => document.getElementById(id);
  root.classList.add("js");
  const theme = $("theme");
  theme.hidden = false;
  theme.onclick = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme:dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  };
  for (const button of document.querySelectorAll("button.more")) {
    button.hidden = false;
    button.onclick = () => { button.previousElementSibling.querySelector("table").classList.add("all"); button.remove(); };
  }
  const data = JSON.parse($("data").textContent), names = data.names, HIGH = 19;
  const METRICS = [["live at the peak", 1], ["allocated", 1], ["short-lived", 0], ["never freed", 1]];
  let metric = data.totals.findIndex(total => total > 0), focus = [data.root];
  if (metric < 0) return;
  $("graph").hidden = false;
  const flame = $("flame"), detail = $("detail"), hint = detail.textContent, up = $("up"), find = $("find");
  const bytes = value => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (value >= 1024 && unit < 4) { value /= 1024; unit++; }
    return (unit ? value.toPrecision(3) : value.toFixed(0)) + " " + units[unit];
  };
  const amount = value => METRICS[metric][1] ? bytes(value) : value.toLocaleString("en") + " blocks";
  const percent = (part, whole) => (whole > 0 ? 100 * part / whole : 0).toFixed(1) + " %";
  const hue = text => {
    let hash = 2166136261;
    for (const letter of text) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619);
    return (hash >>> 0) % 360;
  };
  // One colour a module path or a namespace, so that neighbours that belong together look alike.
  const colour = name => {
    const [fn, place] = names[name];
    const family = place.replace(/:\d+$/, "") || fn.split("::")[0];
    return `hsl(${hue(family)} var(--flame-s) var(--flame-l))`;
  };
  const say = call => {
    const [fn, place] = names[call[0]], value = call[1][metric];
    detail.textContent = `${fn}${place ? "  " + place : ""}: ${amount(value)}, ${percent(value, data.totals[metric])} of all`;
  };
  const matches = call => {
    const text = find.value.trim().toLowerCase();
    return text && names[call[0]].some(part => part.toLowerCase().includes(text));
  };
  const box = (call, left, width, depth, total, path, above) => {
    const element = document.createElement("div"), [fn] = names[call[0]];
    element.style.cssText = `left:${left}%;width:${width}%;top:${depth * HIGH}px;background:${colour(call[0])}`;
    element.textContent = width * total > 1200 ? fn : "";
    if (above) element.className = "above";
    if (matches(call)) element.classList.add("hit");
    element.onmouseenter = () => say(call);
    element.onclick = () => { focus = path; draw(); say(call); };
    flame.append(element);
  };
  const draw = () => {
    flame.replaceChildren();
    const pixels = flame.clientWidth || 800, top = focus[focus.length - 1], whole = top[1][metric];
    let deepest = 0, drawn = 0;
    focus.forEach((call, depth) => box(call, 0, 100, depth, pixels, focus.slice(0, depth + 1), depth < focus.length - 1));
    const walk = (call, left, depth, path) => {
      deepest = Math.max(deepest, depth);
      const below = call[2].filter(child => child[1][metric] > 0).sort((a, b) => b[1][metric] - a[1][metric]);
      for (const child of below) {
        const width = whole > 0 ? 100 * child[1][metric] / whole : 0;
        if (width * pixels < 60 || drawn > 6000) break;
        drawn++;
        const way = [...path, child];
        box(child, left, width, depth + 1, pixels, way, false);
        walk(child, left, depth + 1, way);
        left += width;
      }
    };
    walk(top, 0, focus.length - 1, focus);
    flame.style.height = (deepest + 1) * HIGH + "px";
    up.hidden = focus.length < 2;
    for (const button of $("metrics").children) button.setAttribute("aria-checked", button.value == metric);
    search();
  };
  const search = () => {
    let sum = 0;
    const walk = call => { if (matches(call)) sum += call[1][metric]; else call[2].forEach(walk); };
    if (find.value.trim()) { walk(data.root); $("found").textContent = `${amount(sum)}, ${percent(sum, data.totals[metric])}`; }
    else $("found").textContent = "";
  };
  METRICS.forEach(([label], index) => {
    if (!(data.totals[index] > 0)) return;
    const button = document.createElement("button");
    button.type = "button"; button.textContent = label; button.value = index; button.setAttribute("role", "radio");
    button.onclick = () => { metric = index; focus = [data.root]; detail.textContent = hint; draw(); };
    $("metrics").append(button);
  });
  const back = () => { if (focus.length > 1) { focus = [data.root]; detail.textContent = hint; draw(); } };
  up.onclick = back;
  find.oninput = draw;
  addEventListener("keydown", event => { if (event.key === "Escape") back(); });
  addEventListener("resize", draw);
  draw();
})();
