"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { viewer, lesions, windows, knots } = data;
  const element = (id) => document.getElementById(id);
  const names = Object.keys(windows);
  const canvas = element("slice");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const state = { index: 0, window: "soft tissue", threshold: data.threshold, lesion: null };
  const decoded = new Map();
  let drawn = 0;

  // HU by gray value, the inverse of the knots.
  const hu = Array.from({ length: 256 }, (_, gray) => {
    const [values, grays] = knots;
    let k = 0;
    while (k < grays.length - 2 && gray > grays[k + 1]) k += 1;
    const share = (gray - grays[k]) / (grays[k + 1] - grays[k]);
    return values[k] + share * (values[k + 1] - values[k]);
  });

  function nearestIndex(slice) {
    let best = 0;
    viewer.numbers.forEach((number, i) => {
      if (Math.abs(number - slice) < Math.abs(viewer.numbers[best] - slice)) best = i;
    });
    return best;
  }

  function picture(index) {
    if (!decoded.has(index)) {
      // Keep only the slices that were decoded last.
      if (decoded.size > 60) decoded.delete(decoded.keys().next().value);
      const image = new Image();
      image.src = "data:image/jpeg;base64," + viewer.images[index];
      decoded.set(index, image.decode().then(() => image));
    }
    return decoded.get(index);
  }

  async function draw() {
    const ticket = (drawn += 1);
    const image = await picture(state.index);
    if (ticket !== drawn) return;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const [low, high] = windows[state.window];
    const table = hu.map((value) => Math.max(0, Math.min(255, (255 * (value - low)) / (high - low))));
    for (let i = 0; i < pixels.data.length; i += 4) {
      const gray = table[pixels.data[i]];
      pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = gray;
    }
    context.putImageData(pixels, 0, 0);
    canvas.dataset.slice = viewer.names[state.index];
  }

  function showBoxes() {
    const center = viewer.numbers[state.index] + 0.5;
    const here = lesions.filter(
      (one) => one.score >= state.threshold && one.range[0] <= center && center < one.range[1]
    );
    element("boxes").replaceChildren(
      ...here.map((one) => {
        const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        const [x1, y1, , x2, y2] = one.box;
        const sides = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
        Object.entries(sides).forEach(([key, value]) => rect.setAttribute(key, value));
        if (one.id === state.lesion) rect.setAttribute("class", "current");
        return rect;
      })
    );
  }

  function showSlice(index) {
    state.index = Math.max(0, Math.min(viewer.numbers.length - 1, index));
    element("slider").value = state.index;
    element("where").textContent =
      `slice ${viewer.names[state.index]} · z ${viewer.places[state.index].toFixed(1)} mm`;
    showBoxes();
    return draw();
  }

  function showWindow(name) {
    state.window = name;
    document.querySelectorAll("[data-window]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.window === name))
    );
    return draw();
  }

  function visible() {
    return lesions.filter((one) => one.score >= state.threshold);
  }

  function showThreshold(value) {
    state.threshold = Math.round(100 * Math.max(data.threshold, Math.min(1, value))) / 100;
    if (value <= data.threshold) state.threshold = data.threshold;
    element("threshold").value = state.threshold;
    element("shown-threshold").textContent = state.threshold.toFixed(2);
    const ids = new Set(visible().map((one) => String(one.id)));
    document.querySelectorAll(".lesion, .mark").forEach((node) => {
      node.hidden = !ids.has(node.dataset.id);
    });
    element("count").textContent =
      `${ids.size} of ${lesions.length} ${lesions.length === 1 ? "lesion" : "lesions"}`;
    element("none").hidden = ids.size > 0;
    showBoxes();
  }

  function showLesion(id, scroll) {
    const lesion = lesions.find((one) => one.id === id);
    if (!lesion) return;
    state.lesion = id;
    document.querySelectorAll(".lesion, .mark").forEach((node) =>
      node.classList.toggle("current", node.dataset.id === String(id))
    );
    showWindow(lesion.window);
    showSlice(nearestIndex(lesion.key));
    if (scroll) {
      document.querySelector(`.lesion[data-id="${id}"]`).scrollIntoView({ block: "nearest" });
    }
  }

  function stepLesion(step) {
    const ids = visible().map((one) => one.id);
    if (!ids.length) return;
    const at = ids.indexOf(state.lesion);
    const next = at < 0 ? (step > 0 ? 0 : ids.length - 1) : at + step;
    showLesion(ids[Math.max(0, Math.min(ids.length - 1, next))], true);
  }

  element("slider").addEventListener("input", (event) => showSlice(Number(event.target.value)));
  element("threshold").addEventListener("input", (event) => showThreshold(Number(event.target.value)));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      showSlice(state.index - Math.sign(event.deltaY));
    },
    { passive: false }
  );
  document.querySelectorAll("[data-window]").forEach((button) =>
    button.addEventListener("click", () => showWindow(button.dataset.window))
  );
  document.querySelectorAll(".lesion, .mark").forEach((node) =>
    node.addEventListener("click", (event) => {
      showLesion(Number(node.dataset.id), node.classList.contains("mark"));
      const shot = event.target.closest(".shot");
      if (shot) showSlice(nearestIndex(Number(shot.dataset.slice)));
    })
  );
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      ArrowUp: () => showSlice(state.index + 1),
      ArrowDown: () => showSlice(state.index - 1),
      PageUp: () => showSlice(state.index + 10),
      PageDown: () => showSlice(state.index - 10),
      Home: () => showSlice(viewer.numbers.length - 1),
      End: () => showSlice(0),
      ArrowRight: () => stepLesion(1),
      ArrowLeft: () => stepLesion(-1),
      "+": () => showThreshold(state.threshold + 0.05),
      "-": () => showThreshold(state.threshold - 0.05),
    };
    names.forEach((name, i) => (actions[String(i + 1)] = () => showWindow(name)));
    if (event.key === "Enter" && document.activeElement.classList.contains("lesion")) {
      actions.Enter = () => showLesion(Number(document.activeElement.dataset.id), false);
    }
    // Range inputs handle their own keys.
    if (!actions[event.key] || (event.target.type === "range" && event.key.length > 1)) return;
    event.preventDefault();
    actions[event.key]();
  });

  showWindow(state.window);
  showSlice(Math.floor(viewer.numbers.length / 2));
  showThreshold(data.threshold);
  if (lesions.length) showLesion(lesions[0].id, false);
})();
