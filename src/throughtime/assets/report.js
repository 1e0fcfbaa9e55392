"use strict";
// Three things on top of a page that is complete without them: the switch between light and dark,
// the read-out of a chart under the pointer or the arrow keys, and keys that bring out their line.
// Text from files only ever goes through textContent.

(function theme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("throughtime-theme"); } catch { return null; } };
  const store = (value) => { try { localStorage.setItem("throughtime-theme", value); } catch { /* file:// may forbid it */ } };
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const show = () => { button.textContent = dark() ? "Light" : "Dark"; };
  const kept = stored();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    store(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  show();
})();

(function readouts() {
  const box = document.getElementById("readout");
  let active = null; // the chart that is being read out

  const written = (value, percent) => {
    if (percent) return (value * 100).toFixed(1) + "%";
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-4 || size >= 1e9)
      ? value.toExponential(3)
      : value.toLocaleString("en", { maximumSignificantDigits: size < 1e5 ? 5 : 12 });
    return text.replaceAll("-", "\u2212");
  };

  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle; else high = middle;
    }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };

  const line = (parent, tag, className, text) => {
    const child = document.createElement(tag);
    if (className) child.className = className;
    if (text !== undefined) child.textContent = text;
    parent.append(child);
    return child;
  };

  for (const block of document.querySelectorAll("script.points")) {
    const data = JSON.parse(block.textContent);
    const area = block.parentElement.querySelector(".area");
    const labels = area.querySelector(".labels");
    const cross = line(labels, "i", "cross");
    const marks = data.series.map((series) => line(labels, "i", "mark " + series.class));
    const scaled = (value) => data.shift === null ? value : Math.log(value + data.shift);
    let place = null;

    const hide = () => {
      active = null;
      box.hidden = true;
      cross.hidden = true;
      for (const mark of marks) mark.hidden = true;
    };

    const show = (x) => {
      const picks = data.grids.map((grid) => nearest(grid.x, x));
      let best = 0;
      picks.forEach((pick, i) => {
        if (Math.abs(data.grids[i].x[pick] - x) < Math.abs(data.grids[best].x[picks[best]] - x)) best = i;
      });
      if (active && active.area !== area) active.hide();
      active = { area, hide, again: () => show(place) };
      place = data.grids[best].x[picks[best]];
      cross.style.left = place * 100 + "%";
      cross.hidden = false;
      box.replaceChildren();
      const label = data.grids[best].label[picks[best]];
      const named = typeof label === "number" ? data.reading.replace("{}", () => written(label)) : label;
      line(box, "b", "", named);
      const list = line(box, "dl", "");
      data.series.forEach((series, i) => {
        const pick = picks[series.grid], at = data.grids[series.grid].x[pick], value = series.y[pick];
        marks[i].hidden = true;
        if (value === null || Math.abs(at - place) > 0.02) return;
        const row = line(list, "div", "");
        line(row, "i", "key " + series.class);
        line(row, "dt", "", series.name);
        const high = series.high ? " to " + written(series.high[pick], series.percent) : "";
        line(row, "dd", "", written(value, series.percent) + high);
        const [bottom, top, here] = [...data.y, value].map(scaled);
        const height = (here - bottom) / (top - bottom);
        if (height >= 0 && height <= 1) {
          marks[i].style.left = at * 100 + "%";
          marks[i].style.top = (1 - height) * 100 + "%";
          marks[i].hidden = false;
        }
      });
      box.hidden = false;
      const frame = area.getBoundingClientRect();
      const middle = frame.left + place * frame.width;
      const left = middle + 14 + box.offsetWidth < innerWidth ? middle + 14 : middle - 14 - box.offsetWidth;
      box.style.left = Math.max(6, Math.min(left, innerWidth - box.offsetWidth - 6)) + "px";
      box.style.top = Math.max(6, Math.min(frame.top + 8, innerHeight - box.offsetHeight - 6)) + "px";
    };

    const leave = () => { if (active?.area === area) hide(); };
    const move = (event) => {
      // The page scrolling under a resting pointer is no reason to leave the chart the keys are in.
      const resting = event.movementX === 0 && event.movementY === 0;
      if (resting && active && active.area !== area && active.area === document.activeElement) return;
      const frame = area.getBoundingClientRect();
      show(Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width)));
    };
    area.addEventListener("pointermove", move);
    area.addEventListener("pointerdown", move);
    area.addEventListener("pointerleave", leave);
    area.addEventListener("blur", leave);
    area.addEventListener("focus", () => { if (area.matches(":focus-visible")) show(place ?? 1); });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { hide(); return; }
      const forward = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (forward === undefined) return;
      event.preventDefault();
      const xs = data.grids.reduce((a, b) => (b.x.length > a.x.length ? b : a)).x;
      const next = nearest(xs, place ?? 1) + forward;
      show(xs[Math.max(0, Math.min(xs.length - 1, next))]);
    });
    hide();
  }
  addEventListener("scroll", () => {
    if (active && active.area === document.activeElement) active.again(); else active?.hide();
  }, { passive: true });
})();

(function keys() {
  for (const key of document.querySelectorAll(".legend [data-key]")) {
    const figure = key.closest("figure");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(...key.childNodes);
    key.append(button);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      const chosen = new Set();
      for (const other of figure.querySelectorAll("[data-key]"))
        if (other.querySelector("button")?.getAttribute("aria-pressed") === "true") chosen.add(other.dataset.key);
      for (const drawn of figure.querySelectorAll("[data-series]"))
        drawn.classList.toggle("faint", chosen.size > 0 && !chosen.has(drawn.dataset.series));
    });
  }
})();
