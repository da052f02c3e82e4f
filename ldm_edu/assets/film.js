// A film player: one sprite sheet, one canvas, one slider. An anywidget module that also runs in
// a plain page with a stand-in model (film_page.js). The model has
//   sheet     DataView or bytes: all frames on one picture, row by row, encoded as `mime`
//   geometry  { frames, columns, width, height }, sizes of a frame in pixels
//   labels    a text per frame            panels  captions of equal columns of the frame
//   alt       what the canvas shows       name    what the slider moves along
//   index     the frame shown             caption a text under the film, if not empty
//   dials     [{ name, places }]: more sliders; the frames run over all their places, the last
//             dial faster than those before it, and the film's own slider fastest
//   smooth    scale as a drawing, not as pixels       width  CSS pixels at most, 0 for no limit
const DELAY = 160; // ms a frame
const CALM_DELAY = 1000; // for readers who ask for reduced motion

function make(tag, className, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function button(text, label) {
  const node = make("button", "ldm-film-button", { type: "button", "aria-label": label });
  node.textContent = text;
  return node;
}

// a slider and what it says; the widest text keeps the slider from moving under the finger
function slider(name, texts) {
  const range = make("input", "ldm-film-range", {
    type: "range", min: 0, max: texts.length - 1, step: 1, "aria-label": name,
  });
  const label = make("output", "ldm-film-label", { "aria-live": "off" });
  const widest = Math.max(...texts.map((text) => text.length));
  label.style.minWidth = `${Math.min(widest, 40)}ch`;
  const show = (place, text = texts[place]) => {
    range.value = place;
    range.setAttribute("aria-valuetext", text);
    label.textContent = text;
  };
  return { range, label, show };
}

function build(model) {
  const { width, height } = model.get("geometry");
  const name = model.get("name");
  const ui = {
    // else JupyterLab takes the arrow keys for its shortcuts ...
    root: make("div", "ldm-film", { "data-lm-suppress-shortcuts": "true" }),
    canvas: make("canvas", "ldm-film-canvas", { width, height, role: "img" }),
    panels: make("div", "ldm-film-panels"),
    bar: make("div", "ldm-film-bar"),
    play: button("Play", `Play: ${name}`),
    back: button("\u2039", `One frame back: ${name}`),
    next: button("\u203a", `One frame on: ${name}`),
    main: slider(name, shotLabels(model, 0)),
    dials: model.get("dials").map((dial) => slider(dial.name, dial.places)),
  };
  ui.canvas.setAttribute("aria-label", model.get("alt"));
  ui.canvas.classList.toggle("ldm-film-smooth", model.get("smooth"));
  if (model.get("width")) ui.root.style.maxWidth = `${model.get("width")}px`;
  for (const text of model.get("panels")) {
    ui.panels.append(Object.assign(make("div", "ldm-film-panel"), { textContent: text }));
  }
  ui.bar.append(ui.play, ui.back, ui.main.range, ui.next, ui.main.label);
  ui.root.append(ui.canvas, ui.panels, ui.bar);
  ui.dials.forEach(({ range, label }, k) => {
    const bar = make("div", "ldm-film-bar ldm-film-dial");
    const text = make("span", "ldm-film-name");
    text.textContent = model.get("dials")[k].name;
    bar.append(text, range, label);
    ui.root.append(bar);
  });
  const caption = make("p", "ldm-film-caption");
  caption.textContent = model.get("caption") ?? "";
  if (caption.textContent) ui.root.append(caption);
  return ui;
}

const shots = (model) =>
  model.get("dials").reduce((count, dial) => count * dial.places.length, 1);
const length = (model) => model.get("geometry").frames / shots(model);

function shotLabels(model, shot) {
  return model.get("labels").slice(shot * length(model), (shot + 1) * length(model));
}

// a frame's index as [place of each dial ..., place within the shot], and back
function unfold(model, index) {
  let rest = Math.floor(index / length(model));
  const places = [index % length(model)];
  for (const dial of [...model.get("dials")].reverse()) {
    places.unshift(rest % dial.places.length);
    rest = Math.floor(rest / dial.places.length);
  }
  return places;
}

function fold(model, places) {
  const sizes = [...model.get("dials").map((dial) => dial.places.length), length(model)];
  return places.reduce((index, place, k) => index * sizes[k] + place, 0);
}

function render({ model, el }) {
  const ui = build(model);
  const context = ui.canvas.getContext("2d");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  let sheet = null;
  let timer = null;

  const place = () => unfold(model, model.get("index")).at(-1);
  const last = () => length(model) - 1;
  const draw = () => {
    const { columns, width, height } = model.get("geometry");
    const index = model.get("index");
    const places = unfold(model, index);
    ui.dials.forEach((dial, k) => dial.show(places[k]));
    ui.main.show(places.at(-1), model.get("labels")[index]);
    if (!sheet) return;
    const left = (index % columns) * width;
    const top = Math.floor(index / columns) * height;
    context.drawImage(sheet, left, top, width, height, 0, 0, width, height);
  };
  const turn = (k, to) => {
    const places = unfold(model, model.get("index"));
    places[k] = to;
    model.set("index", fold(model, places));
    model.save_changes();
  };
  const show = (to) => turn(ui.dials.length, Math.max(0, Math.min(last(), to)));
  const pause = () => {
    clearTimeout(timer);
    timer = null;
    ui.play.textContent = "Play";
    ui.play.setAttribute("aria-label", `Play: ${model.get("name")}`);
  };
  const tick = () => {
    if (place() >= last()) return pause();
    show(place() + 1);
    timer = setTimeout(tick, calm.matches ? CALM_DELAY : DELAY);
  };
  const play = () => {
    if (place() >= last()) show(0);
    ui.play.textContent = "Pause";
    ui.play.setAttribute("aria-label", `Pause: ${model.get("name")}`);
    timer = setTimeout(tick, calm.matches ? CALM_DELAY : DELAY);
  };
  const step = (by) => {
    pause();
    show(place() + by);
  };
  const load = async () => {
    const sheetBlob = new Blob([model.get("sheet")], { type: model.get("mime") });
    sheet = await createImageBitmap(sheetBlob);
    draw();
    ui.root.dataset.ready = "";
  };

  ui.play.addEventListener("click", () => (timer ? pause() : play()));
  ui.back.addEventListener("click", () => step(-1));
  ui.next.addEventListener("click", () => step(1));
  ui.main.range.addEventListener("input", () => {
    pause();
    show(Number(ui.main.range.value));
  });
  ui.dials.forEach(({ range }, k) => {
    range.addEventListener("input", () => turn(k, Number(range.value)));
  });
  // ... and the focus for its active cell
  ui.root.addEventListener("keydown", (event) => event.stopPropagation());
  model.on("change:index", draw);
  model.on("change:sheet", load);
  el.append(ui.root);
  draw();
  load();
  return () => {
    pause();
    model.off("change:index", draw);
    model.off("change:sheet", load);
  };
}

export default { render };
