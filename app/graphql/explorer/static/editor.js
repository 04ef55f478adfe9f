// A text editor: a real text area, which every browser and screen reader knows, over its coloured copy.

import { el } from "./dom.js";

/**
 * `options`: label, value, id, paint(text) -> [{ text, class }], complete(text, offset) -> suggestions,
 * problems(text) -> [{ start, end, message }], onChange(text), onMove(text, offset).
 */
export class Editor {
  constructor(host, options) {
    this.options = options;
    this.offers = null;
    this.build(host);
    this.set(options.value ?? "");
  }

  build(host) {
    const listId = `${this.options.id}-offers`;
    this.area = el("textarea", {
      id: this.options.id, spellcheck: false, wrap: "off", autocomplete: "off",
      autocapitalize: "off", autocorrect: "off", "aria-label": this.options.label, "aria-autocomplete": "list",
      "aria-haspopup": "listbox", "aria-controls": listId, "aria-describedby": `${this.options.id}-said`,
      placeholder: this.options.placeholder,
      oninput: (event) => this.changed(event), onscroll: () => this.scrolled(), onkeydown: (event) => this.key(event),
      onblur: () => this.close(), onclick: () => { this.close(); this.moved(); }, onkeyup: (event) => this.released(event),
    });
    this.gutter = el("div", { class: "gutter", "aria-hidden": "true" });
    this.copy = el("pre", { class: "copy", "aria-hidden": "true" });
    this.list = el("ul", { class: "offers", id: listId, role: "listbox", tabIndex: 0, "aria-label": "Suggestions", hidden: true });
    this.said = el("span", { class: "unseen", id: `${this.options.id}-said` });
    this.announced = el("span", { class: "unseen", role: "status" });
    host.classList.add("editor");
    host.append(this.gutter, el("div", { class: "sheet" }, this.copy, this.area), this.list, this.said, this.announced);
  }

  get text() {
    return this.area.value;
  }

  /** Replaces everything; the change can be undone where the browser lets a page do that. */
  set(text) {
    this.area.value = text;
    this.paint();
    this.options.onChange?.(text);
  }

  /** Replaces a part as if it had been typed. */
  replace(from, to, text) {
    this.area.focus();
    this.area.setSelectionRange(from, to);
    if (!document.execCommand("insertText", false, text)) {
      this.area.setRangeText(text, from, to, "end");
      this.changed();
    }
  }

  /** Puts the caret at a line and column, which count from 1, and shows it. */
  goTo(line, column) {
    const lines = this.text.split("\n").slice(0, line - 1);
    const offset = lines.reduce((sum, each) => sum + each.length + 1, 0) + column - 1;
    this.area.focus();
    this.area.setSelectionRange(offset, offset);
    const height = parseFloat(getComputedStyle(this.area).lineHeight);
    this.area.scrollTop = Math.max(0, (line - 4) * height);
    this.moved();
  }

  changed(event) {
    this.paint();
    this.options.onChange?.(this.text);
    const typing = event?.inputType === "insertText" && /[_A-Za-z{(:$@. "]/.test(event.data ?? "");
    if (typing || (this.offers && event?.inputType === "deleteContentBackward")) this.open(event.data);
    else this.close();
    this.moved();
  }

  moved() {
    this.options.onMove?.(this.text, this.area.selectionStart);
  }

  released(event) {
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") this.moved();
  }

  scrolled() {
    this.copy.style.transform = `translate(${-this.area.scrollLeft}px, ${-this.area.scrollTop}px)`;
    this.gutter.style.transform = `translateY(${-this.area.scrollTop}px)`;
  }

  paint() {
    const text = this.text;
    const problems = this.options.problems?.(text) ?? [];
    this.copy.replaceChildren(...underlined(this.options.paint(text), problems), "\n");
    const lines = text.split("\n").length;
    if (this.gutter.childElementCount !== lines) {
      this.gutter.replaceChildren(...Array.from({ length: lines }, (_, place) => el("span", {}, String(place + 1))));
    }
    const wrong = new Map(problems.map((problem) => [text.slice(0, problem.start).split("\n").length, problem.message]));
    [...this.gutter.children].forEach((line, place) => line.classList.toggle("wrong", wrong.has(place + 1)));
    this.said.textContent = [...wrong].map(([line, message]) => `Line ${line}: ${message}.`).join(" ");
    this.found = problems;
  }

  /** The problem at an offset, if there is one. */
  problemAt(offset) {
    return this.found.find((problem) => problem.start <= offset && offset <= problem.end) ?? null;
  }

  key(event) {
    if (event.ctrlKey && event.key === " ") {
      event.preventDefault();
      this.open();
    } else if (this.offers) this.choose(event);
    else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.isComposing) this.newLine(event);
    else if (event.key === "}" || event.key === "]") this.dedent(event);
  }

  choose(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
    if (event.key in moves) {
      event.preventDefault();
      this.pick(Math.min(this.offers.items.length - 1, Math.max(0, this.offers.at + moves[event.key])));
    } else if (event.key === "Escape" || event.key.startsWith("Arrow")) {
      if (event.key === "Escape") event.preventDefault();
      this.close();
    } else if ((event.key === "Enter" && !event.ctrlKey && !event.metaKey) || event.key === "Tab") {
      event.preventDefault();
      this.accept(this.offers.items[this.offers.at]);
    }
  }

  newLine(event) {
    event.preventDefault();
    const { selectionStart: from, selectionEnd: to } = this.area;
    const line = this.text.slice(this.text.lastIndexOf("\n", from - 1) + 1, from);
    const indent = /^\s*/.exec(line)[0];
    const opens = /[{([]\s*$/.test(line);
    const closes = opens && /^[ \t]*[})\]]/.test(this.text.slice(to));
    this.replace(from, to, `\n${indent}${opens ? "  " : ""}${closes ? `\n${indent}` : ""}`);
    if (closes) {
      const caret = from + 1 + indent.length + 2;
      this.area.setSelectionRange(caret, caret);
    }
  }

  dedent(event) {
    const { selectionStart: from, selectionEnd: to } = this.area;
    const begin = this.text.lastIndexOf("\n", from - 1) + 1;
    if (from !== to || !/^ {2,}$/.test(this.text.slice(begin, from))) return;
    event.preventDefault();
    this.replace(from - 2, from, event.key);
  }

  open(typed = null) {
    const offset = this.area.selectionStart;
    const found = this.options.complete?.(this.text, offset);
    const asked = typed === null || typed === undefined || /[_A-Za-z$@."]/.test(typed);
    if (!found?.items.length || (!asked && found.items.length > 200)) {
      this.close();
      return;
    }
    this.offers = { ...found, to: offset, at: 0 };
    this.list.replaceChildren(...found.items.map((item, place) => this.option(item, place)));
    this.list.hidden = false;
    this.place(found.from);
    this.pick(0);
    this.announced.textContent = `${found.items.length} suggestions`;
  }

  option(item, place) {
    return el("li", {
      role: "option", id: `${this.list.id}-${place}`, "aria-selected": "false", class: item.deprecated ? "old" : "",
      onmousedown: (event) => { event.preventDefault(); this.accept(item); },
    },
    el("span", { class: "offer" }, el("b", {}, item.label), el("i", {}, item.detail)),
    el("span", { class: "note" }, item.note));
  }

  pick(place) {
    this.list.children[this.offers.at]?.setAttribute("aria-selected", "false");
    this.offers.at = place;
    const chosen = this.list.children[place];
    chosen.setAttribute("aria-selected", "true");
    chosen.scrollIntoView({ block: "nearest" });
    this.area.setAttribute("aria-activedescendant", chosen.id);
  }

  accept(item) {
    const { from } = this.offers;
    const to = this.area.selectionStart;
    this.close();
    this.replace(from, to, item.insert);
    this.area.setSelectionRange(from + item.caret, from + item.caret);
    this.close();
    this.moved();
  }

  close() {
    if (!this.offers) return;
    this.offers = null;
    this.list.hidden = true;
    this.list.replaceChildren();
    this.announced.textContent = "";
    this.area.removeAttribute("aria-activedescendant");
  }

  /** Puts the suggestions below the caret, above it where there is no room. */
  place(offset) {
    const at = this.caretBox(offset);
    const width = Math.min(430, window.innerWidth - 16);
    this.list.style.width = `${width}px`;
    this.list.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - width - 8))}px`;
    const below = window.innerHeight - at.bottom - 12;
    const room = Math.max(below, at.top - 12);
    this.list.style.maxHeight = `${Math.min(290, room)}px`;
    const upwards = below < Math.min(290, this.list.scrollHeight) && room > below;
    this.list.style.top = upwards ? "auto" : `${at.bottom + 4}px`;
    this.list.style.bottom = upwards ? `${window.innerHeight - at.top + 4}px` : "auto";
  }

  caretBox(offset) {
    const walker = document.createTreeWalker(this.copy, NodeFilter.SHOW_TEXT);
    let left = offset;
    while (walker.nextNode()) {
      const { currentNode: node } = walker;
      if (left <= node.length) {
        const range = document.createRange();
        range.setStart(node, left);
        range.collapse(true);
        return range.getClientRects()[0] ?? node.parentElement.getBoundingClientRect();
      }
      left -= node.length;
    }
    return this.copy.getBoundingClientRect();
  }
}

/** Coloured pieces as elements, with what is wrong underlined. */
function underlined(pieces, problems) {
  const nodes = [];
  let at = 0;
  for (const piece of pieces) {
    for (const [text, wrong] of parted(piece.text, at, problems)) {
      const name = [piece.class, wrong ? "wrong" : ""].filter(Boolean).join(" ");
      nodes.push(name ? el("span", { class: name }, text) : text);
    }
    at += piece.text.length;
  }
  return nodes;
}

/** A piece in parts that are wholly right or wholly wrong. */
function parted(text, at, problems) {
  const touching = problems.filter((problem) => problem.start < at + text.length && problem.end > at);
  const edges = touching.flatMap(({ start, end }) => [start - at, end - at]).filter((edge) => edge > 0 && edge < text.length);
  const cuts = [0, ...new Set(edges.sort((one, other) => one - other)), text.length];
  return cuts.slice(1).map((end, place) => {
    const begin = cuts[place];
    return [text.slice(begin, end), touching.some((each) => each.start < at + end && each.end > at + begin)];
  });
}
