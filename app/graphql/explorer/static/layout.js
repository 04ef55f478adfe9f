// The page around the work: colours, tabs, and the lines between the panels, which mouse and keyboard move.

import { byId, lasting } from "./dom.js";

const root = document.documentElement;

/** Lets the reader choose light or dark; "auto" is what the system says. */
export function themed() {
  const choice = byId("theme");
  choice.value = lasting.get("theme") ?? "auto";
  const apply = () => {
    root.dataset.theme = choice.value;
    lasting.set("theme", choice.value);
  };
  choice.addEventListener("change", apply);
  apply();
}

/** Makes tabs of a tablist: arrows move between them. Returns a function that opens the tab of a panel. */
export function tabbed(tabs) {
  const open = (tab, focus = false) => {
    for (const each of tabs) {
      each.setAttribute("aria-selected", String(each === tab));
      each.tabIndex = each === tab ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = each !== tab;
    }
    if (focus) tab.focus();
  };
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (move) open(tabs[(place + move + tabs.length) % tabs.length], true);
    });
  });
  return (panel) => open(tabs.find((tab) => tab.getAttribute("aria-controls") === panel));
}

/** Lets a separator set a CSS length, in percent of its container; `invert` where it grows the other way. */
export function splitting(id, property, { vertical = false, invert = false } = {}) {
  const handle = byId(id);
  const [least, most] = ["aria-valuemin", "aria-valuemax"].map((name) => Number(handle.getAttribute(name)));
  const set = (percent) => {
    const value = Math.min(most, Math.max(least, percent));
    root.style.setProperty(property, `${value}%`);
    handle.setAttribute("aria-valuenow", String(Math.round(value)));
    lasting.set(id, value);
  };
  set(lasting.get(id) ?? Number(handle.getAttribute("aria-valuenow")));
  handle.addEventListener("keydown", (event) => {
    const steps = vertical ? { ArrowUp: -2, ArrowDown: 2 } : { ArrowLeft: -2, ArrowRight: 2 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    set(Number(handle.getAttribute("aria-valuenow")) + steps[event.key] * (invert ? -1 : 1));
  });
  handle.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    handle.setPointerCapture(event.pointerId);
    const move = (moved) => {
      const box = handle.parentElement.getBoundingClientRect();
      const before = handle.previousElementSibling.getBoundingClientRect();
      const part = vertical ? (moved.clientY - box.top) / box.height
        : (moved.clientX - (invert ? box.left : before.left)) / box.width;
      set(100 * (invert ? 1 - part : part));
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("pointerup", () => handle.removeEventListener("pointermove", move), { once: true });
  });
}
