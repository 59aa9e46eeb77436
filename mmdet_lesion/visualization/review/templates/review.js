// State of the page, and what changes it.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { candidates, windows } = data;
  const element = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const byId = new Map(candidates.map((one) => [one.id, one]));
  const mosaics = new Mosaics(element("images").textContent, huLevels(data.knots), 6);
  const decisions = new Decisions(data.fingerprint, data.ids);
  const viewName = `mmdet_lesion review ${data.fingerprint}`;
  const state = {
    current: null,
    mosaic: null,
    slice: 0,
    window: "auto",
    boxes: true,
    // Candidates that were shown before the current one.
    history: [],
    listed: [],
    view: { show: "all", kind: "all", lowest: 0, order: "score" },
  };
  const TITLES = { accept: "accepted", reject: "rejected", skip: "skipped" };
  const KINDS = { mined: "mined", hard_negative: "hard negative" };
  const limited = (value, low, high) => Math.max(low, Math.min(high, value));
  const largest = (one) => Math.max(...one.size);
  const doubt = (one) => Math.abs(one.score - data.score_thr);
  const text = (a, b) => (a < b ? -1 : Number(a > b));
  const ORDERS = {
    score: (a, b) => b.score - a.score,
    uncertainty: (a, b) => doubt(a) - doubt(b),
    size: (a, b) => largest(b) - largest(a),
    volume: (a, b) => text(a.volume, b.volume) || a.key - b.key,
  };

  // List: one node per candidate of the page, made once.
  const nodes = new Map(
    candidates.map((one) => {
      const node = document.createElement("li");
      node.dataset.id = one.id;
      const parts = [one.score.toFixed(3), one.id, `${largest(one).toFixed(0)} mm`];
      const spans = ["", ...parts].map((part) => {
        const span = document.createElement("span");
        span.textContent = part;
        return span;
      });
      spans[0].className = "dot";
      node.title = one.id;
      node.append(...spans);
      return [one.id, node];
    })
  );

  function fits(one) {
    const { show, kind, lowest } = state.view;
    const decision = decisions.of(one.id);
    return (
      (show === "all" || (show === "open" ? !decision : decision === show)) &&
      (kind === "all" || one.kind === kind) &&
      one.score >= lowest
    );
  }

  function list() {
    const order = ORDERS[state.view.order];
    // Equal candidates stay in the order of the page.
    const found = candidates.filter(fits).sort(order).map((one) => one.id);
    const same = found.length === state.listed.length && found.every((id, i) => id === state.listed[i]);
    state.listed = found;
    if (!same) element("list").replaceChildren(...found.map((id) => nodes.get(id)));
    element("listed").textContent =
      `${found.length} of ${candidates.length} candidates` +
      (data.ids.length > candidates.length ? " of this page" : "");
    if (!same && found.includes(state.current)) scrollTo(nodes.get(state.current));
    showDecisions();
  }

  function showDecisions() {
    nodes.forEach((node, id) => (node.className = decisions.of(id) || ""));
    const total = data.ids.length;
    const counts = DECISIONS.map((one) => decisions.count(one));
    const open = total - counts.reduce((a, b) => a + b, 0);
    const parts = DECISIONS.map((one, i) => `${counts[i]} ${TITLES[one]}`);
    let line = [...parts, `${open} open`].join(" · ");
    if (total > candidates.length) {
      const here = candidates.filter((one) => !decisions.of(one.id)).length;
      line += ` (${here} on this page)`;
    }
    element("counts").textContent = line;
    DECISIONS.forEach((one, i) => {
      document.querySelector(`#meter .${one}`).style.width = `${(100 * counts[i]) / (total || 1)}%`;
    });
    const decision = decisions.of(state.current);
    all("[data-decision]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.decision === decision))
    );
    const badge = element("decision");
    badge.className = `badge ${decision || ""}`;
    badge.textContent = state.current === null ? "" : decision ? TITLES[decision] : "open";
    badge.hidden = state.current === null;
    element("clear").disabled = !decision;
    element("back").disabled = !state.history.length;
    element("unsaved").hidden = decisions.kept;
  }

  // Scroll the list alone: scrollIntoView would move the page, too.
  function scrollTo(node) {
    const frame = element("list");
    const top = node.offsetTop - frame.offsetTop - frame.clientTop;
    const bottom = top + node.offsetHeight;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (bottom > frame.scrollTop + frame.clientHeight) {
      frame.scrollTop = bottom - frame.clientHeight;
    }
  }

  // Candidate.
  async function show(id) {
    if (id === state.current) return;
    if (state.current !== null) nodes.get(state.current).removeAttribute("aria-current");
    state.current = id;
    state.mosaic = null;
    const one = byId.get(id);
    nodes.get(id).setAttribute("aria-current", "true");
    scrollTo(nodes.get(id));
    showFacts(one);
    showDecisions();
    let mosaic = null;
    try {
      mosaic = await mosaics.get(one);
    } catch {
      say("The image of this candidate is damaged; write the page again.", true);
    }
    // The reader may have gone on while the image was decoded.
    if (state.current !== id || !mosaic) return;
    state.mosaic = mosaic;
    state.slice = one.key;
    element("empty").hidden = true;
    const slider = element("slider");
    [slider.min, slider.max] = [one.first, one.first + one.count - 1];
    resize();
    document.body.dataset.shown = id;
    const next = nextOpen();
    if (next !== null) mosaics.get(byId.get(next)).catch(() => {});
  }

  function go(id) {
    if (id === null || id === undefined || id === state.current) return;
    if (state.current !== null) state.history.push(state.current);
    show(id);
  }

  function showFacts(one) {
    const [x, y, z] = one.size.map((side) => side.toFixed(1));
    const slices = one.boxes.map((box) => box[0]);
    const range = slices.length > 1 ? `${slices[0]}–${slices[slices.length - 1]}` : `${slices[0]}`;
    const sources = [...new Set(one.known.map((box) => box[5]))].join(", ");
    const around = one.known.length
      ? `${one.known.length} in view (${sources}), ${one.known_in_volume} in the volume`
      : `none in view, ${one.known_in_volume} in the volume`;
    const rows = [
      ["Score", one.score.toFixed(3)],
      ["Size", `${x} × ${y} × ${z} mm`],
      ["Slices", `${range}, key slice ${one.key}`],
      ["Volume", one.volume],
      ["Kind", KINDS[one.kind]],
      ["Annotations", around],
    ];
    element("brief").textContent = `${one.score.toFixed(3)} · ${largest(one).toFixed(0)} mm`;
    element("name").textContent = one.id;
    element("facts").replaceChildren(
      ...rows.map(([title, value]) => {
        const row = document.createElement("div");
        const [dt, dd] = ["dt", "dd"].map((name) => document.createElement(name));
        [dt.textContent, dd.textContent] = [title, value];
        row.append(dt, dd);
        return row;
      })
    );
    element("automatic").textContent = ` (${one.window})`;
  }

  // Pictures.
  const range = () =>
    windows[state.window === "auto" ? byId.get(state.current).window : state.window];

  function fitCanvas(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    return context;
  }

  function draw() {
    const { mosaic, slice } = state;
    if (!mosaic) return;
    const stage = element("stage");
    const place = [0, 0, stage.clientWidth, stage.clientHeight];
    const context = fitCanvas(element("slice"), place[2], place[3]);
    mosaic.draw(context, slice, range(), place, { boxes: state.boxes, line: 2 });
    const key = slice === mosaic.key ? " · key slice" : "";
    element("where").textContent = `slice ${slice}${key}`;
    element("slice").dataset.slice = slice;
    element("slider").value = slice;
    drawStrip();
  }

  function drawStrip() {
    const { mosaic } = state;
    const strip = element("strip");
    const { columns, rows, side, height } = mosaic.thumbnails(strip.clientWidth);
    strip.style.height = `${rows * height}px`;
    const context = fitCanvas(strip, strip.clientWidth, rows * height);
    for (let i = 0; i < mosaic.count; i += 1) {
      const z = mosaic.first + i;
      const [x, y] = [(i % columns) * side, Math.floor(i / columns) * height];
      const place = [x + 1, y + 1, side - 2, height - 2];
      mosaic.draw(context, z, range(), place, { boxes: state.boxes, line: 1 });
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = "#e2e6ea";
      context.strokeStyle = "#000";
      context.lineWidth = 3;
      context.strokeText(z, x + 4, y + 13);
      context.fillText(z, x + 4, y + 13);
      if (z === state.slice || z === mosaic.key) {
        context.strokeStyle = z === state.slice ? "#ff5c7a" : "#b9c0c8";
        context.lineWidth = z === state.slice ? 3 : 1;
        context.strokeRect(x + 1, y + 1, side - 2, height - 2);
      }
    }
  }

  let scheduled = false;
  function resize() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      draw();
    });
  }

  function setSlice(z) {
    const { mosaic } = state;
    if (!mosaic) return;
    state.slice = limited(z, mosaic.first, mosaic.first + mosaic.count - 1);
    resize();
  }

  function setWindow(name) {
    state.window = name;
    all("[data-window]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.window === name))
    );
    resize();
  }

  function toggleBoxes() {
    state.boxes = !state.boxes;
    element("boxes").setAttribute("aria-pressed", String(state.boxes));
    resize();
  }

  // Decisions.
  function say(sentence, wrong = false) {
    element("message").textContent = sentence;
    element("message").classList.toggle("error", wrong);
  }

  // The next open candidate of the list after the current one, or from its start.
  function nextOpen() {
    const at = state.listed.indexOf(state.current);
    const turned = [...state.listed.slice(at + 1), ...state.listed.slice(0, Math.max(at, 0))];
    const found = turned.find((id) => !decisions.of(id));
    return found === undefined ? null : found;
  }

  function decide(decision) {
    // What is not shown yet cannot be decided.
    if (!state.mosaic) return;
    say("");
    const { current, listed } = state;
    const at = listed.indexOf(current);
    const next = ["all", "open"].includes(state.view.show) ? nextOpen() : listed[at + 1];
    decisions.set(current, decision);
    list();
    if (next === null || next === undefined) finish();
    else go(next);
  }

  function finish() {
    const open = data.ids.length - decisions.made.size;
    const here = candidates.filter((one) => !decisions.of(one.id)).length;
    if (!open) say("All candidates are decided: download the decisions.");
    else if (!here) say("All candidates of this page are decided: go on with another page.");
    else say("No open candidate is left in the list: change what is shown.");
  }

  function clear() {
    if (state.current === null) return;
    decisions.set(state.current, null);
    list();
  }

  function back() {
    const id = state.history.pop();
    if (id !== undefined) show(id);
  }

  function step(by) {
    const { listed } = state;
    const at = listed.indexOf(state.current);
    if (at < 0) go(listed[0]);
    else if (listed[at + by] !== undefined) go(listed[at + by]);
  }

  function goToOpen() {
    const id = nextOpen();
    if (id !== null) go(id);
    else if (decisions.of(state.current)) finish();
  }

  function download() {
    const blob = new Blob([decisions.toText(data.candidates_path)], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "decisions.json";
    link.click();
    decisions.changed = false;
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async function load() {
    const [file] = element("file").files;
    element("file").value = "";
    if (!file) return;
    try {
      say(`${decisions.load(await file.text())} decisions loaded.`);
    } catch (error) {
      say(error.message, true);
    }
    list();
  }

  // What is listed, which the browser keeps, too.
  function setView(changes) {
    Object.assign(state.view, changes);
    try {
      localStorage.setItem(viewName, JSON.stringify(state.view));
    } catch {
      // The list starts with its defaults next time.
    }
    list();
    if (!state.listed.includes(state.current)) go(state.listed[0]);
  }

  function restoreView() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(viewName));
    } catch {
      // As above.
    }
    const valid = {
      show: (value) => ["all", "open", ...DECISIONS].includes(value),
      kind: (value) => value === "all" || value in KINDS,
      lowest: (value) => value >= 0 && value <= 1,
      order: (value) => value in ORDERS,
    };
    Object.entries(valid).forEach(([key, check]) => {
      if (kept && check(kept[key])) state.view[key] = kept[key];
      element(key).value = state.view[key];
    });
  }

  function toggleHelp(open = element("keys").hidden) {
    element("keys").hidden = !open;
    element("help").setAttribute("aria-expanded", String(open));
  }

  const actions = {
    a: () => decide("accept"),
    r: () => decide("reject"),
    s: () => decide("skip"),
    c: clear,
    b: back,
    Backspace: back,
    u: goToOpen,
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    ArrowUp: () => setSlice(state.slice + 1),
    ArrowDown: () => setSlice(state.slice - 1),
    k: () => state.mosaic && setSlice(state.mosaic.key),
    h: toggleBoxes,
    "?": () => toggleHelp(),
    Escape: () => toggleHelp(false),
  };
  ["auto", ...Object.keys(windows)].forEach((name, i) => {
    actions[String(i)] = () => setWindow(name);
  });
  // Keys that are held down scroll, but do not decide.
  const repeated = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    if (target.localName === "select" || target.type === "number") return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!actions[key]) return;
    event.preventDefault();
    if (!event.repeat || repeated.has(key)) actions[key]();
  });

  const clicks = {
    back, clear, download,
    previous: () => step(-1),
    next: () => step(1),
    open: goToOpen,
    upper: () => setSlice(state.slice + 1),
    lower: () => setSlice(state.slice - 1),
    key: actions.k,
    boxes: toggleBoxes,
    help: () => toggleHelp(),
    load: () => element("file").click(),
  };
  Object.entries(clicks).forEach(([id, action]) => element(id).addEventListener("click", action));
  all("[data-decision]").forEach((button) =>
    button.addEventListener("click", () => decide(button.dataset.decision))
  );
  all("[data-window]").forEach((button) =>
    button.addEventListener("click", () => setWindow(button.dataset.window))
  );
  element("file").addEventListener("change", load);
  element("slider").addEventListener("input", (event) => setSlice(Number(event.target.value)));
  element("list").addEventListener("click", (event) => {
    const node = event.target.closest("li");
    if (node) go(node.dataset.id);
  });
  ["show", "kind", "order"].forEach((id) =>
    element(id).addEventListener("change", (event) => {
      setView({ [id]: event.target.value });
      // Keys are for the candidate again.
      event.target.blur();
    })
  );
  element("lowest").addEventListener("change", (event) => {
    const value = limited(Number(event.target.value) || 0, 0, 1);
    event.target.value = value;
    setView({ lowest: value });
    event.target.blur();
  });

  // A notch of a wheel is one slice; touchpads send many small movements.
  let turned = 0;
  element("stage").addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      turned += event.deltaY * (event.deltaMode ? 40 : 1);
      if (Math.abs(turned) < 60) return;
      setSlice(state.slice - Math.sign(turned));
      turned = 0;
    },
    { passive: false }
  );
  element("strip").addEventListener("click", (event) => {
    if (!state.mosaic) return;
    const { left, top, width } = event.currentTarget.getBoundingClientRect();
    const { columns, side, height } = state.mosaic.thumbnails(width);
    const column = Math.floor((event.clientX - left) / side);
    const index = Math.floor((event.clientY - top) / height) * columns + column;
    if (column < columns && index < state.mosaic.count) setSlice(state.mosaic.first + index);
  });

  // Another page of the review has decided.
  window.addEventListener("storage", (event) => {
    if (event.key !== decisions.name) return;
    decisions.read();
    list();
  });
  window.addEventListener("pageshow", (event) => {
    // The browser shows a page from before its decisions were changed by another one.
    if (!event.persisted || !decisions.kept) return;
    decisions.read();
    list();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!decisions.kept && decisions.changed) event.preventDefault();
  });
  new ResizeObserver(resize).observe(element("stage"));

  function start() {
    const probe = document.createElement("canvas").getContext("2d");
    element("blocked").hidden = returnsPixels(probe);
    restoreView();
    setWindow(state.window);
    list();
    const first = nextOpen() ?? state.listed[0];
    if (first !== undefined) show(first);
    else {
      element("empty").hidden = false;
      element("empty").textContent = candidates.length
        ? "No candidate fits the filter."
        : "There are no candidates.";
    }
    document.body.dataset.loaded = "true";
  }

  start();
})();
