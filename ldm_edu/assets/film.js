// A film player: one sprite sheet, one canvas, one slider. An anywidget module that also runs in
// a plain page with a stand-in model. The model has
//   sheet     DataView or bytes: all frames on one picture, row by row, encoded as `mime`
//   geometry  { frames, columns, width, height }, sizes of a frame in pixels
//   labels    a text per frame            panels  captions of equal columns of the frame
//   alt       what the canvas shows       name    what the slider moves along
//   index     the frame shown
const DELAY = 160; // ms a frame
const CALM_DELAY = 1000; // for readers who ask for reduced motion

function make(tag, className, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function build(model) {
  const { frames, width, height } = model.get("geometry");
  const name = model.get("name");
  const button = (text, label) => {
    const node = make("button", "ldm-film-button", { type: "button", "aria-label": label });
    node.textContent = text;
    return node;
  };
  const ui = {
    root: make("div", "ldm-film"),
    canvas: make("canvas", "ldm-film-canvas", { width, height, role: "img" }),
    panels: make("div", "ldm-film-panels"),
    bar: make("div", "ldm-film-bar"),
    play: button("Play", `Play: ${name}`),
    back: button("\u2039", `One frame back: ${name}`),
    next: button("\u203a", `One frame on: ${name}`),
    range: make("input", "ldm-film-range", {
      type: "range", min: 0, max: frames - 1, step: 1, "aria-label": name,
    }),
    label: make("output", "ldm-film-label", { "aria-live": "off" }),
  };
  ui.canvas.setAttribute("aria-label", model.get("alt"));
  for (const text of model.get("panels")) {
    ui.panels.append(Object.assign(make("div", "ldm-film-panel"), { textContent: text }));
  }
  // the widest label keeps the slider from moving under the finger
  const widest = Math.max(...model.get("labels").map((text) => text.length));
  ui.label.style.minWidth = `${Math.min(widest, 40)}ch`;
  ui.bar.append(ui.play, ui.back, ui.range, ui.next, ui.label);
  ui.root.append(ui.canvas, ui.panels, ui.bar);
  return ui;
}

function render({ model, el }) {
  const ui = build(model);
  const context = ui.canvas.getContext("2d");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  let sheet = null;
  let timer = null;

  const draw = () => {
    const { columns, width, height } = model.get("geometry");
    const index = model.get("index");
    const label = model.get("labels")[index] ?? `${index}`;
    ui.range.value = index;
    ui.range.setAttribute("aria-valuetext", label);
    ui.label.textContent = label;
    if (!sheet) return;
    const left = (index % columns) * width;
    const top = Math.floor(index / columns) * height;
    context.drawImage(sheet, left, top, width, height, 0, 0, width, height);
  };
  const last = () => model.get("geometry").frames - 1;
  const show = (index) => {
    model.set("index", Math.max(0, Math.min(last(), index)));
    model.save_changes();
  };
  const pause = () => {
    clearTimeout(timer);
    timer = null;
    ui.play.textContent = "Play";
    ui.play.setAttribute("aria-label", `Play: ${model.get("name")}`);
  };
  const tick = () => {
    if (model.get("index") >= last()) return pause();
    show(model.get("index") + 1);
    timer = setTimeout(tick, calm.matches ? CALM_DELAY : DELAY);
  };
  const play = () => {
    if (model.get("index") >= last()) show(0);
    ui.play.textContent = "Pause";
    ui.play.setAttribute("aria-label", `Pause: ${model.get("name")}`);
    timer = setTimeout(tick, calm.matches ? CALM_DELAY : DELAY);
  };
  const step = (by) => {
    pause();
    show(model.get("index") + by);
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
  ui.range.addEventListener("input", () => {
    pause();
    show(Number(ui.range.value));
  });
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
