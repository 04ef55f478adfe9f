// The few things that every part needs of the page. Nothing is ever parsed as HTML.

/** An element with properties, listeners (`onclick`), attributes (`aria-…`, `role`, `for`) and children. */
export function el(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** `call`, once it was not asked for again for so many milliseconds. */
export function settled(milliseconds, call) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}

/** A store that forgets instead of failing where the browser allows none. */
export function stored(area) {
  return {
    get(name) {
      try {
        return JSON.parse(window[area].getItem(`carillon.${name}`));
      } catch {
        return null;
      }
    },
    set(name, value) {
      try {
        if (value === null) window[area].removeItem(`carillon.${name}`);
        else window[area].setItem(`carillon.${name}`, JSON.stringify(value));
      } catch {
        // full or forbidden: this visit works all the same
      }
    },
  };
}

/** What outlives the tab: operations, history, layout. Never the key. */
export const lasting = stored("localStorage");
/** What ends with the tab: the key. */
export const passing = stored("sessionStorage");
