// Turns a page of cells into slides: a new one begins at each cell tagged "slide". Keys: left and
// right turn, where no slider has the focus; Page Down and Page Up, which a clicker sends, first
// scroll through what is below or above the screen.
const slides = [];
for (const cell of document.querySelectorAll("main > .jp-Cell")) {
  if (!slides.length || cell.matches(".celltag_slide, :has(.celltag_slide)")) {
    slides.push(document.createElement("section"));
    slides.at(-1).className = "slide";
    cell.before(slides.at(-1));
  }
  slides.at(-1).append(cell);
}

const bar = document.createElement("nav");
bar.className = "slide-bar";
bar.setAttribute("aria-label", "Slides");
const place = Object.assign(document.createElement("output"), { className: "slide-place" });
const turn = (text, label, by) => {
  const node = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  node.setAttribute("aria-label", label);
  node.addEventListener("click", () => go(current() + by));
  return node;
};
bar.append(turn("\u2039", "Slide before", -1), place, turn("\u203a", "Next slide", 1));
document.body.append(bar);
document.body.classList.add("slides");

const current = () => slides.findIndex((slide) => !slide.hidden);
function go(to) {
  const shown = Math.max(0, Math.min(slides.length - 1, to));
  slides.forEach((slide, k) => { slide.hidden = k !== shown; });
  place.textContent = `${shown + 1} / ${slides.length}`;
  history.replaceState(null, "", `#${shown + 1}`);
  window.scrollTo(0, 0);
}

const STEPS = { PageDown: 1, ArrowRight: 1, PageUp: -1, ArrowLeft: -1 };
document.addEventListener("keydown", (event) => {
  const by = STEPS[event.key];
  if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
  const page = event.key.startsWith("Page");
  if (!page && event.target.matches("input")) return;
  event.preventDefault();
  event.stopPropagation();
  const below = document.documentElement.scrollHeight - window.innerHeight - window.scrollY > 1;
  if (page && (by > 0 ? below : window.scrollY > 0)) window.scrollBy(0, 0.85 * by * window.innerHeight);
  else if (slides[current() + by]) go(current() + by);
}, true); // before a film keeps its keys to itself
const asked = () => go(Number(location.hash.slice(1)) - 1 || 0);
window.addEventListener("hashchange", asked);
asked();
