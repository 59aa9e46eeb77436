// State of the page, and what changes it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { lesions, windows, review } = data;
  const element = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const byId = new Map(lesions.map((one) => [one.id, one]));
  const volume = new SliceVolume(data);
  const planes = all(".stage").map((stage) => new Plane(stage, volume));
  const [axial] = planes;
  const storage = `mmdet_lesion review ${review.fingerprint}`;
  const state = {
    position: data.size.map((size) => size >> 1),
    window: windows[data.window],
    threshold: data.threshold,
    lesion: null,
    hover: null,
    tool: "window",
    decisions: {},
  };
  let scheduled = false;

  const visible = () => lesions.filter((one) => one.score >= state.threshold);
  const limited = (value, low, high) => Math.max(low, Math.min(high, value));

  // Draw at most once per frame of the screen.
  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      draw();
    });
  }

  function draw() {
    const shown = visible();
    // Boxes drawn later lie above: the chosen one comes first in the order of importance.
    shown.sort((a, b) => (b.id === state.lesion) - (a.id === state.lesion) || a.id - b.id);
    planes.forEach((plane) => plane.draw(state, shown));
    const z = state.position[2];
    element("slider").value = z;
    const label = data.labels[z] ? ` · ${data.labels[z]}` : "";
    const center = axial.toVoxels(axial.extent.map((side) => side / 2), z);
    element("where").textContent = `slice ${data.names[z]}${label} · z ${world(center)[2].toFixed(1)} mm`;
    showClasses();
    if (volume.slices[z]) axial.canvas.dataset.slice = data.names[z];
    planes.forEach((plane) => (plane.canvas.dataset.index = plane.index));
  }

  function showClasses() {
    all(".mark, .lesion").forEach((node) => {
      const id = Number(node.dataset.id);
      node.classList.toggle("current", id === state.lesion);
      node.classList.toggle("hover", id === state.hover);
      node.classList.toggle("rejected", state.decisions[id] === "rejected");
    });
  }

  function hover(id) {
    if (id === state.hover) return;
    state.hover = id;
    showClasses();
  }

  // World position of continuous voxel coordinates.
  function world([x, y, z]) {
    const m = data.world;
    return [0, 3, 6].map((row, i) => m[row] * x + m[row + 1] * y + m[row + 2] * z + m[9 + i]);
  }

  function moveTo(position) {
    state.position = position.map((value, axis) =>
      limited(Math.round(value), 0, data.size[axis] - 1)
    );
    volume.focus = state.position[2];
    schedule();
  }

  function step(plane, by) {
    const position = [...state.position];
    position[plane.axis] += by;
    moveTo(position);
  }

  // The plane in focus, or the large one.
  function activePlane() {
    const main = document.querySelector(".stages").dataset.main;
    return planes.find((one) => one.canvas === document.activeElement) ||
      planes.find((one) => one.name === main);
  }

  function setWindow(low, high) {
    const width = limited(high - low, 1, 6000);
    const center = limited((low + high) / 2, -2000, 4000);
    state.window = [center - width / 2, center + width / 2];
    element("center").value = Math.round(center);
    element("width").value = Math.round(width);
    all("[data-window]").forEach((button) => {
      const [a, b] = windows[button.dataset.window];
      const same = a === state.window[0] && b === state.window[1];
      button.setAttribute("aria-pressed", String(same));
    });
    schedule();
  }

  function setTool(tool) {
    state.tool = tool;
    document.querySelector(".stages").dataset.tool = tool;
    all("[data-tool]").forEach((node) => {
      if (node.localName === "button") {
        node.setAttribute("aria-pressed", String(node.dataset.tool === tool));
      }
    });
  }

  function setMain(name) {
    document.querySelector(".stages").dataset.main = name;
    resize();
  }

  function zoom(factor) {
    const plane = activePlane();
    if (factor === "fit") plane.fit();
    else plane.zoomBy(Number(factor), plane.crosshair(state));
    schedule();
  }

  function setThreshold(value) {
    const rounded = Math.round(100 * Math.min(1, value)) / 100;
    state.threshold = rounded <= data.threshold ? data.threshold : rounded;
    element("threshold").value = state.threshold;
    element("shown-threshold").textContent = state.threshold.toFixed(2);
    const ids = new Set(visible().map((one) => one.id));
    all(".lesion").forEach((node) => (node.hidden = !ids.has(Number(node.dataset.id))));
    element("count").textContent =
      `${ids.size} of ${lesions.length} ${lesions.length === 1 ? "lesion" : "lesions"}`;
    element("none").hidden = ids.size > 0;
    drawOverview();
    schedule();
  }

  const card = (id) => document.querySelector(`.lesion[data-id="${id}"]`);

  function chooseLesion(id, scroll) {
    const lesion = byId.get(id);
    if (!lesion) return;
    state.lesion = id;
    setWindow(...windows[lesion.window]);
    const { box } = lesion;
    moveTo([(box[0] + box[3] - 1) / 2, (box[1] + box[4] - 1) / 2, lesion.key]);
    planes.forEach((plane) => plane.reveal(plane.rectangle(box)));
    if (scroll) card(id).scrollIntoView({ block: "nearest" });
  }

  function stepLesion(by) {
    const ids = visible().map((one) => one.id);
    if (!ids.length) return;
    const at = ids.indexOf(state.lesion);
    const next = at < 0 ? (by > 0 ? 0 : ids.length - 1) : at + by;
    chooseLesion(ids[limited(next, 0, ids.length - 1)], true);
  }

  // Review: kept by the browser, where it keeps anything for files, and downloaded as JSON.
  function decide(id, decision) {
    if (!byId.has(id)) return;
    if (state.decisions[id] === decision) delete state.decisions[id];
    else state.decisions[id] = decision;
    try {
      localStorage.setItem(storage, JSON.stringify(state.decisions));
    } catch {
      // Without storage, the review lasts as long as the page.
    }
    showDecisions();
  }

  function restoreDecisions() {
    try {
      const kept = JSON.parse(localStorage.getItem(storage)) || {};
      Object.entries(kept).forEach(([id, decision]) => {
        if (byId.has(Number(id)) && ["accepted", "rejected"].includes(decision)) {
          state.decisions[id] = decision;
        }
      });
    } catch {
      // As above.
    }
    showDecisions();
  }

  function showDecisions() {
    all("[data-decision]").forEach((button) => {
      const { id } = button.closest(".lesion").dataset;
      const pressed = state.decisions[id] === button.dataset.decision;
      button.setAttribute("aria-pressed", String(pressed));
    });
    const made = Object.values(state.decisions);
    const accepted = made.filter((one) => one === "accepted").length;
    element("reviewed").textContent =
      made.length ? `${accepted} accepted, ${made.length - accepted} rejected` : "";
    showClasses();
  }

  function download() {
    const content = {
      format: "review 1.0",
      created: new Date().toISOString(),
      ...review,
      lesions: review.lesions.map((one) => ({
        ...one,
        decision: state.decisions[one.id] || null,
      })),
    };
    const link = document.createElement("a");
    const blob = new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
    link.href = URL.createObjectURL(blob);
    link.download = "review.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // A notch of a wheel is one slice; touchpads send many small movements.
  let turned = 0;
  function turnWheel(plane, event) {
    turned += event.deltaY * (event.deltaMode ? 40 : 1);
    if (Math.abs(turned) < 60) return;
    step(plane, -Math.sign(turned));
    turned = 0;
  }

  // Mouse, pen and touch on the planes.
  function pointFrom(plane, event) {
    const { left, top } = plane.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  function showProbe(plane, point) {
    const voxels = plane.toVoxels(plane.toPlane(point), plane.index);
    const inside = voxels.every((value, axis) => value >= 0 && value < data.size[axis]);
    const found = inside && volume.voxel(...voxels.map(Math.floor));
    const signs = ["RL", "AP", "IS"];
    const place = world(voxels).map((v, i) => `${signs[i][Number(v >= 0)]} ${Math.abs(v).toFixed(0)}`);
    element("probe").textContent = found
      ? `${place.join(" ")} mm · ${found.exact ? "" : "≈ "}${found.hu} HU`
      : "";
  }

  function startDrag(plane, event) {
    const start = pointFrom(plane, event);
    const tool = event.button === 2 ? "window" : event.button === 1 ? "pan" : state.tool;
    const before = { window: state.window, middle: plane.middle };
    let moved = false;
    let ruler = null;
    const move = (next) => {
      const point = pointFrom(plane, next);
      const [dx, dy] = [point[0] - start[0], point[1] - start[1]];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      if (tool === "window") {
        const [low, high] = before.window;
        const speed = Math.max(1, (high - low) / 400);
        const width = Math.max(1, high - low + 2 * dx * speed);
        const center = (low + high) / 2 + dy * speed;
        setWindow(center - width / 2, center + width / 2);
      } else if (tool === "pan") {
        plane.middle = before.middle;
        plane.move(-dx / plane.scale, -dy / plane.scale);
      } else {
        if (!ruler) {
          ruler = { index: plane.index, start: plane.toPlane(start), end: null };
          plane.rulers.push(ruler);
        }
        ruler.end = plane.toPlane(point);
      }
      schedule();
    };
    const stop = (last) => {
      plane.canvas.removeEventListener("pointermove", move);
      plane.canvas.removeEventListener("pointerup", stop);
      plane.canvas.removeEventListener("pointercancel", stop);
      if (!moved && last.type === "pointerup" && event.button === 0) click(plane, start);
    };
    plane.canvas.setPointerCapture(event.pointerId);
    plane.canvas.addEventListener("pointermove", move);
    plane.canvas.addEventListener("pointerup", stop);
    plane.canvas.addEventListener("pointercancel", stop);
  }

  function click(plane, point) {
    const id = plane.overlay.at(...point);
    if (id !== null && id !== state.lesion) chooseLesion(id, true);
    else moveTo(plane.toVoxels(plane.toPlane(point), plane.index).map(Math.floor));
  }

  planes.forEach((plane) => {
    const { canvas } = plane;
    canvas.addEventListener("pointerdown", (event) => startDrag(plane, event));
    canvas.addEventListener("pointermove", (event) => {
      const point = pointFrom(plane, event);
      showProbe(plane, point);
      hover(plane.overlay.at(...point));
    });
    canvas.addEventListener("pointerleave", () => {
      element("probe").textContent = "";
      hover(null);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => {
      plane.fit();
      schedule();
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.ctrlKey) {
          plane.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, pointFrom(plane, event));
          schedule();
        } else turnWheel(plane, event);
      },
      { passive: false }
    );
  });

  // Overview and list.
  const overviews = all(".overview .frame").map((frame) => {
    const svg = frame.querySelector("svg");
    return { frame, overlay: new Overlay(svg), boxes: JSON.parse(svg.dataset.boxes) };
  });

  function drawOverview() {
    const shown = visible();
    overviews.forEach(({ frame, overlay, boxes }) => {
      const [width, height] = [frame.clientWidth, frame.clientHeight];
      overlay.draw(
        shown.map((one) => {
          const [x, y, w, h] = boxes[lesions.indexOf(one)];
          return { id: one.id, x: x * width, y: y * height, w: w * width, h: h * height };
        }),
        width,
        height
      );
    });
    showClasses();
  }

  overviews.forEach(({ frame, overlay }) => {
    const found = (event) => {
      const { left, top } = frame.getBoundingClientRect();
      return overlay.at(event.clientX - left, event.clientY - top);
    };
    frame.addEventListener("pointermove", (event) => hover(found(event)));
    frame.addEventListener("pointerleave", () => hover(null));
    frame.addEventListener("click", (event) => chooseLesion(found(event), true));
  });

  const titleOf = ({ plane, index }) => (plane === "axial" ? `slice ${data.names[index]}` : plane);
  const crops = new Crops(
    all(".crop").map((figure) => {
      const lesion = byId.get(Number(figure.closest(".lesion").dataset.id));
      return new Crop(figure, lesion, volume, data.finest);
    }),
    (crop) => [windows[crop.lesion.window], titleOf(crop)]
  );
  const widest = new Map();
  crops.all.forEach(({ figure, native }) => {
    const row = figure.parentElement;
    widest.set(row, Math.max(widest.get(row) || CROP.width, native));
    row.style.setProperty("--crop", `${Math.ceil(widest.get(row))}px`);
  });

  all(".lesion").forEach((node) => {
    const id = Number(node.dataset.id);
    node.addEventListener("click", (event) => {
      const decision = event.target.closest("[data-decision]");
      if (decision) decide(id, decision.dataset.decision);
      else chooseLesion(id, false);
    });
    node.addEventListener("pointerenter", () => hover(id));
    node.addEventListener("pointerleave", () => hover(null));
    node.addEventListener("focusin", () => id !== state.lesion && chooseLesion(id, false));
  });

  // Controls.
  element("slider").addEventListener("input", (event) =>
    moveTo([state.position[0], state.position[1], Number(event.target.value)])
  );
  element("threshold").addEventListener("input", (event) => setThreshold(Number(event.target.value)));
  element("download").addEventListener("click", download);
  ["center", "width"].forEach((id) =>
    element(id).addEventListener("change", () => {
      const [center, width] = [Number(element("center").value), Number(element("width").value)];
      setWindow(center - width / 2, center + width / 2);
    })
  );
  all("[data-window]").forEach((button) =>
    button.addEventListener("click", () => setWindow(...windows[button.dataset.window]))
  );
  all("button[data-tool]").forEach((button) =>
    button.addEventListener("click", () => setTool(button.dataset.tool))
  );
  all("[data-zoom]").forEach((button) =>
    button.addEventListener("click", () => zoom(button.dataset.zoom))
  );
  all(".enlarge").forEach((button) =>
    button.addEventListener("click", () => setMain(button.dataset.main))
  );

  function pan(du, dv) {
    const plane = activePlane();
    plane.move((du * 40) / plane.scale, (dv * 40) / plane.scale);
    schedule();
  }

  function nextMain() {
    const names = planes.map((plane) => plane.name);
    const at = names.indexOf(document.querySelector(".stages").dataset.main);
    setMain(names[(at + 1) % names.length]);
  }

  function deleteRulers() {
    planes.forEach((plane) => (plane.rulers = []));
    schedule();
  }

  // The plane that has the focus, or the axial one.
  const slicePlane = () => planes.find((one) => one.canvas === document.activeElement) || axial;
  const actions = {
    ArrowUp: () => step(slicePlane(), 1),
    ArrowDown: () => step(slicePlane(), -1),
    PageUp: () => step(slicePlane(), 10),
    PageDown: () => step(slicePlane(), -10),
    Home: () => step(slicePlane(), Infinity),
    End: () => step(slicePlane(), -Infinity),
    ArrowRight: () => stepLesion(1),
    ArrowLeft: () => stepLesion(-1),
    "+": () => setThreshold(state.threshold + 0.05),
    "-": () => setThreshold(state.threshold - 0.05),
    a: () => decide(state.lesion, "accepted"),
    r: () => decide(state.lesion, "rejected"),
    w: () => setTool("window"),
    p: () => setTool("pan"),
    m: () => setTool("ruler"),
    z: () => zoom(1.25),
    Z: () => zoom(0.8),
    f: () => zoom("fit"),
    v: nextMain,
    Escape: deleteRulers,
  };
  const panning = {
    ArrowUp: () => pan(0, -1),
    ArrowDown: () => pan(0, 1),
    ArrowLeft: () => pan(-1, 0),
    ArrowRight: () => pan(1, 0),
  };
  Object.values(windows).forEach((range, i) => {
    actions[String(i + 1)] = () => setWindow(...range);
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key, target } = event;
    // Inputs handle their own keys.
    if (target.type === "number" || (target.type === "range" && key.length > 1)) return;
    if (key === "Enter" && target.classList.contains("lesion")) {
      chooseLesion(Number(target.dataset.id), false);
      return;
    }
    const action = (event.shiftKey && panning[key]) || actions[key];
    if (!action) return;
    event.preventDefault();
    action();
  });

  function resize() {
    planes.forEach((plane) => plane.resize());
    drawOverview();
    schedule();
  }

  async function start() {
    element("blocked").hidden = returnsPixels(volume.context);
    setTool(state.tool);
    setWindow(...state.window);
    planes.forEach((plane) => plane.resize());
    setThreshold(data.threshold);
    restoreDecisions();
    if (lesions.length) chooseLesion(lesions[0].id, false);
    let last = 0;
    const stale = (z) => {
      // The shown slice at once, the others some at a time.
      const now = performance.now();
      if (z !== state.position[2] && now - last < 300) return;
      last = now;
      planes.forEach((plane) => (plane.stale = true));
      schedule();
      crops.drawPending();
    };
    const exact = lesions.filter((one) => one.block).map((one) => volume.addBlock(one.block));
    await Promise.all([volume.load(stale), ...exact]);
    stale(state.position[2]);
    crops.redraw();
    crops.drawAll(CROP.early);
    document.body.dataset.loaded = "true";
  }

  window.addEventListener("resize", resize);
  window.addEventListener("beforeprint", () => crops.drawAll());
  start();
})();
