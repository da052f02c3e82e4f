// Starts film.js on every film of a page, each with a stand-in for a notebook's model.
for (const figure of document.querySelectorAll("figure.film")) {
  const state = JSON.parse(figure.querySelector("script").textContent);
  const bytes = Uint8Array.from(atob(state.sheet), (letter) => letter.charCodeAt(0));
  state.sheet = new DataView(bytes.buffer);
  const listeners = {};
  const model = {
    get: (key) => state[key],
    set: (key, value) => {
      state[key] = value;
      for (const listener of listeners[`change:${key}`] ?? []) listener();
    },
    save_changes: () => {},
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: () => {},
  };
  render({ model, el: figure.querySelector(".stage") });
}
