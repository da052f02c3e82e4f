// A picture to paint a mask on, and beside it what the kernel makes of the part that is painted.
// An anywidget module; its sisters are painter.css and, for buttons and bars, film.css. Model:
//   picture, result   PNG bytes: what is painted on, and what the kernel made (may be empty)
//   side              pixels of the picture, which is square
//   strokes           [{ points: [[x, y], ...], radius, erase }], in pixels of the picture
//   prompt            the text in the line: the caption that the new part should follow
//   line, button      what the line and the button are called
//   answer            what the new picture is called
//   asked             how often the button was pressed: the kernel answers each time
//   said              what the kernel says: working, done, or what was wrong
//   alt               what the picture shows
// Keys on the picture: arrows move the brush (with Shift by one pixel), Space puts it down and
// lifts it.
const ZOOM = 8; // pixels of the veil a pixel of the picture
const MOVE = 3; // pixels of the picture an arrow key
const PATIENCE = 6000; // ms without a word from the kernel
const SILENT = "No answer yet. If it stays so, the kernel has gone: run the cell again.";

const BODY = `
  <div class="ldm-paint-pictures">
    <figure>
      <div class="ldm-paint-stage">
        <canvas class="ldm-paint-picture" aria-hidden="true"></canvas>
        <canvas class="ldm-paint-veil" role="application" tabindex="0"></canvas>
        <div class="ldm-paint-brush" aria-hidden="true"></div>
      </div>
      <figcaption>paint over a part of this picture</figcaption>
    </figure>
    <figure>
      <div class="ldm-paint-stage">
        <canvas class="ldm-paint-result" role="img"></canvas>
      </div>
      <figcaption class="ldm-paint-answer"></figcaption>
    </figure>
  </div>
  <div class="ldm-film-bar">
    <span>Brush</span>
    <input class="ldm-film-range" type="range" min="1" max="12" value="5" aria-label="Brush">
    <output class="ldm-film-label" aria-live="off"></output>
    <label><input type="checkbox" class="ldm-paint-erase"> Erase</label>
    <button type="button" class="ldm-film-button ldm-paint-undo">Undo</button>
    <button type="button" class="ldm-film-button ldm-paint-clear">Clear</button>
  </div>
  <div class="ldm-film-bar">
    <label class="ldm-paint-caption"><span></span> <input type="text" class="ldm-paint-prompt">
    </label>
    <button type="button" class="ldm-film-button ldm-paint-go"></button>
  </div>
  <p class="ldm-film-caption" aria-live="polite"></p>`;

// the path of a round brush, as a canvas draws it; masks.py covers the same points
function paint(context, { points, radius, erase }) {
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.lineWidth = 2 * radius * ZOOM;
  const [first, ...others] = points.map(([x, y]) => [x * ZOOM, y * ZOOM]);
  context.beginPath();
  context.arc(...first, radius * ZOOM, 0, 2 * Math.PI); // a path of one point has no line
  context.fill();
  context.beginPath();
  context.moveTo(...first);
  for (const point of others) context.lineTo(...point);
  context.stroke();
}

async function show(canvas, bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "ldm-film ldm-paint";
  root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes keys for its shortcuts
  root.innerHTML = BODY;
  const [
    picture, veil, brush, result, below, size, width, erase, undo, clear, prompt, go, said,
  ] = [
    ".ldm-paint-picture", ".ldm-paint-veil", ".ldm-paint-brush", ".ldm-paint-result",
    ".ldm-paint-answer", ".ldm-film-range", "output", ".ldm-paint-erase", ".ldm-paint-undo", ".ldm-paint-clear",
    ".ldm-paint-prompt", ".ldm-paint-go", "p",
  ].map((selector) => root.querySelector(selector));
  const side = model.get("side");
  const context = veil.getContext("2d");
  let at = [side / 2, side / 2]; // the brush
  let stroke = null; // the one under way
  let waiting = null;

  const radius = () => Number(size.value);
  const tell = (text) => { said.textContent = text; };
  const draw = () => {
    veil.width = veil.height = side * ZOOM; // which clears it, and its settings
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = "#e69f00";
    for (const each of [...model.get("strokes"), ...(stroke ? [stroke] : [])]) {
      paint(context, each);
    }
    undo.disabled = clear.disabled = !model.get("strokes").length;
  };
  const place = () => {
    brush.style.left = `${(100 * at[0]) / side}%`;
    brush.style.top = `${(100 * at[1]) / side}%`;
    brush.style.width = brush.style.height = `${(200 * radius()) / side}%`;
    brush.classList.toggle("ldm-paint-down", stroke !== null);
    width.textContent = `${2 * radius()} pixels wide`;
    size.setAttribute("aria-valuetext", width.textContent);
  };
  const set = (values) => {
    for (const [key, value] of Object.entries(values)) model.set(key, value);
    model.save_changes();
  };
  const press = () => {
    stroke = { points: [at], radius: radius(), erase: erase.checked };
    draw();
    place();
  };
  const move = (to) => {
    at = to.map((value) => Math.round(10 * Math.max(0, Math.min(side, value))) / 10);
    if (stroke) stroke.points.push(at);
    if (stroke) draw();
    place();
  };
  const lift = () => {
    if (!stroke) return;
    const strokes = [...model.get("strokes"), stroke];
    stroke = null;
    set({ strokes });
    place();
  };
  const seen = (event) => {
    const box = veil.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((p) => (p * side) / box.width);
  };

  veil.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    lift(); // a brush that keys put down
    veil.setPointerCapture(event.pointerId);
    move(seen(event));
    press();
  });
  veil.addEventListener("pointermove", (event) => {
    if (!stroke || veil.hasPointerCapture(event.pointerId)) move(seen(event));
  });
  for (const end of ["pointerup", "pointercancel"]) veil.addEventListener(end, lift);
  veil.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 1 : MOVE;
    const step = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (event.key === " " || event.key === "Enter") (stroke ? lift : press)();
    else if (event.key in step) move(at.map((value, k) => value + step[event.key][k]));
    else return;
    event.preventDefault();
    tell(`Brush at ${at.join(", ")}, ${stroke ? "down" : "up"}.`);
  });
  veil.addEventListener("blur", lift);
  size.addEventListener("input", place);
  undo.addEventListener("click", () => set({ strokes: model.get("strokes").slice(0, -1) }));
  clear.addEventListener("click", () => set({ strokes: [] }));
  const ask = () => {
    tell("Asking the model ...");
    clearTimeout(waiting);
    waiting = setTimeout(() => tell(SILENT), PATIENCE);
    set({ prompt: prompt.value, asked: model.get("asked") + 1 });
  };
  go.addEventListener("click", ask);
  prompt.addEventListener("keydown", (event) => { if (event.key === "Enter") ask(); });
  // ... and the focus for its active cell
  root.addEventListener("keydown", (event) => event.stopPropagation());

  const answer = () => {
    clearTimeout(waiting);
    tell(model.get("said"));
  };
  const begin = async () => {
    await show(picture, model.get("picture"));
    draw();
  };
  const end = () => {
    const asked = model.get("asked") > 0;
    result.classList.toggle("ldm-paint-waits", !asked);
    below.textContent = asked ? model.get("answer") : "the answer comes here";
    if (model.get("result").byteLength) show(result, model.get("result"));
  };
  const listeners = {
    "change:strokes": draw, "change:said": answer, "change:picture": begin, "change:result": end,
  };
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  veil.setAttribute("aria-label", `${model.get("alt")} Arrow keys move the brush, Space puts it`
    + " down and lifts it.");
  result.setAttribute("aria-label", `${model.get("alt")} Now with the painted part changed.`);
  root.querySelector(".ldm-paint-caption span").textContent = model.get("line");
  root.querySelector(".ldm-paint-go").textContent = model.get("button");
  prompt.value = model.get("prompt");
  el.append(root);
  place();
  answer();
  begin();
  end();
  return () => {
    clearTimeout(waiting);
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };
