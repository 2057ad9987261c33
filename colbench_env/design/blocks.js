// The page's size and its blocks; runs in a world of its own, so that the page's scripts cannot change what is called.
(limits) => {
  // A form's fields and a document's named elements hide what is called like them; the prototypes do not.
  const getter = (kind, name) => Function.prototype.call.bind(Object.getOwnPropertyDescriptor(kind.prototype, name).get);
  const childrenOf = getter(Element, "children"), childNodesOf = getter(Node, "childNodes");
  const tagOf = getter(Element, "localName"), parentOf = getter(Node, "parentElement");
  const boxOf = Function.prototype.call.bind(Element.prototype.getBoundingClientRect);
  const visible = Function.prototype.call.bind(Element.prototype.checkVisibility);
  const root = getter(Document, "documentElement")(document), body = getter(Document, "body")(document);
  const all = (selector) => Document.prototype.querySelectorAll.call(document, selector);
  const clientLeft = getter(Element, "clientLeft"), clientTop = getter(Element, "clientTop");
  const clientWidth = getter(Element, "clientWidth"), clientHeight = getter(Element, "clientHeight");
  const offsetWidth = getter(HTMLElement, "offsetWidth"), offsetHeight = getter(HTMLElement, "offsetHeight");
  const make = Function.prototype.call.bind(Document.prototype.createElement);

  const canvas = make(document, "canvas").getContext("2d", { willReadFrequently: true });
  const colours = new Map();

  // [red, green, blue, alpha] of a computed colour, all from 0 to 255 but alpha, from 0 to 1
  const parsed = (text) => {
    if (!colours.has(text)) {
      const parts = /^rgba?\(([^)]*)\)$/.exec(text);
      if (parts) {
        const [red, green, blue, alpha = 1] = parts[1].split(/[,/ ]+/).map(Number);
        colours.set(text, [red, green, blue, alpha]);
      } else {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
        colours.set(text, [red, green, blue, alpha / 255]);
      }
    }
    return colours.get(text);
  };
  const over = ([red, green, blue, alpha], below) =>
    [red, green, blue].map((part, index) => part * alpha + below[index] * (1 - alpha));
  const hex = (colour) => "#" + colour.map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");

  const backgrounds = new Map([[null, [255, 255, 255]]]);
  const CONTROLS = new Set(["input", "textarea", "select", "button", "progress", "meter"]);
  const PICTURES = new Set(["img", "svg", "video", "canvas", "iframe", "object", "embed", "hr"]);
  const FIELDS = new Set(["input", "textarea", "select"]);
  const HOLDS_FIXED = ["transform", "translate", "rotate", "scale", "perspective", "filter", "backdropFilter"];
  const UNCLIPPED = /^(inline|contents|table-(row|column|header|footer).*)$/; // where `overflow` does nothing
  const FAINTEST = 0.02; // opacity: five of 255 levels at most
  const PAGE = { left: 0, top: 0, right: innerWidth, bottom: limits.height };
  const SIDES = ["Top", "Right", "Bottom", "Left"];

  let left = limits.page_text;
  const ownText = (element, tag) => {
    let text = "";
    if (tag === "select") text = element.selectedOptions[0]?.text ?? "";
    else if (tag === "textarea") text = element.value || element.placeholder;
    else if (tag === "input") {
      if (!["checkbox", "radio", "range", "color", "password"].includes(element.type))
        text = element.value || element.placeholder;
    } else for (const node of childNodesOf(element)) if (node.nodeType === 3) text += " " + node.data;
    return text.slice(0, limits.text).replace(/\s+/g, " ").trim().slice(0, left);
  };
  const painted = (style) =>
    parsed(style.backgroundColor)[3] > 0 || style.backgroundImage !== "none" || style.boxShadow !== "none" ||
    SIDES.some((side) => parseFloat(style[`border${side}Width`]) > 0 && parsed(style[`border${side}Color`])[3] > 0);

  // What clips: boxes {left, top, right, bottom} in the viewport, which is not scrolled.
  const meet = (one, other) => ({
    left: Math.max(one.left, other.left), top: Math.max(one.top, other.top),
    right: Math.min(one.right, other.right), bottom: Math.min(one.bottom, other.bottom),
  });
  // A single pixel is what texts for screen readers are hidden in.
  const isSeen = ({ left, top, right, bottom }) => right > left && bottom > top && (right - left > 1 || bottom - top > 1);
  const isReadable = ({ left, top, right, bottom }) => right - left > 1 && bottom - top > 1;
  const around = (box, xs, ys) => ({
    left: box.left + Math.min(...xs), right: box.left + Math.max(...xs),
    top: box.top + Math.min(...ys), bottom: box.top + Math.max(...ys),
  });
  // In: "50% 10px", 200   Out: [100, 10]; empty for what is not read here (calc)
  const lengths = (text, whole) => {
    const found = text.trim().split(/\s+/).map((part) => parseFloat(part) * (part.endsWith("%") ? whole / 100 : 1));
    return found.some(Number.isNaN) || text.includes("(") ? [] : found;
  };
  // What `clip` and `clip-path` leave of an element and of all that is inside; of round shapes those without a radius.
  const cut = (style, box, clip) => {
    const rect = /^rect\((.*)\)$/.exec(style.clip);
    if (rect && ["absolute", "fixed"].includes(style.position)) {
      const [top, right, bottom, left] = rect[1].split(",").map((side) => (side.trim() === "auto" ? null : parseFloat(side)));
      clip = meet(clip, around(box, [left ?? -Infinity, right ?? Infinity], [top ?? -Infinity, bottom ?? Infinity]));
    }
    const [, shape, given] = /^(\w+)\((.*)\)/.exec(style.clipPath) ?? [];
    if (shape === "inset") {
      const sides = given.split(" round ")[0];
      const [top, , bottom = top] = lengths(sides, box.height);
      const [first, right = first, , left = right] = lengths(sides, box.width);
      if (top !== undefined)
        clip = meet(clip, { left: box.left + left, right: box.right - right, top: box.top + top, bottom: box.bottom - bottom });
    } else if (shape === "polygon") {
      const corners = given.replace(/^\w+, /, "").split(",");
      const xs = corners.map((corner) => lengths(corner, box.width)[0]);
      const ys = corners.map((corner) => lengths(corner, box.height)[1]);
      if (![...xs, ...ys].includes(undefined)) clip = meet(clip, around(box, xs, ys));
    } else if (/^(circle|ellipse)$/.test(shape) && /^0(px|%)/.test(given)) clip = meet(clip, around(box, [0], [0]));
    return clip;
  };
  // The part of its contents that an element's `overflow` leaves.
  const contentsOf = (element, style, box, clip) => {
    if ((style.overflowX === "visible" && style.overflowY === "visible") || UNCLIPPED.test(style.display)) return clip;
    if (element === body) return clip; // it is the whole page's
    const html = element instanceof HTMLElement;
    const x = (html && box.width / offsetWidth(element)) || 1, y = (html && box.height / offsetHeight(element)) || 1;
    const left = box.left + clientLeft(element) * x, top = box.top + clientTop(element) * y;
    const inner = { left, top, right: left + clientWidth(element) * x, bottom: top + clientHeight(element) * y };
    if (style.overflowX === "visible") [inner.left, inner.right] = [-Infinity, Infinity];
    if (style.overflowY === "visible") [inner.top, inner.bottom] = [-Infinity, Infinity];
    return meet(clip, inner);
  };
  // Whether a glyph of the element's own text is to be seen in `window`.
  const showsText = (element, style, tag, window) => {
    if (!(parseFloat(style.fontSize) > 0)) return false;
    const filled = parsed(style.webkitTextFillColor)[3] > 0 || style.backgroundClip.includes("text");
    if (!filled && style.textShadow === "none" && !(parseFloat(style.webkitTextStrokeWidth) > 0)) return false;
    if (FIELDS.has(tag)) return isSeen(meet(boxOf(element), window));
    if (style.contentVisibility === "hidden" || (tag === "details" && !element.hasAttribute("open"))) return false;
    const range = Document.prototype.createRange.call(document);
    return [...childNodesOf(element)].some((node) => {
      if (node.nodeType !== 3 || !node.data.trim()) return false;
      range.selectNodeContents(node);
      return [...range.getClientRects()].some((box) => isReadable(meet(box, window)));
    });
  };

  const height = Math.max(root.scrollHeight, body?.scrollHeight ?? 0);
  const blocks = [];
  // `clips`: what is left of the page for those in the flow, the absolutely positioned and the fixed ones.
  const visit = (element, parentPath, nth, depth, clips, opacity) => {
    const tag = tagOf(element);
    const path = (parentPath ? parentPath + ">" : "") + tag + (nth ? `[${nth}]` : "");
    const style = getComputedStyle(element);
    const below = backgrounds.get(parentOf(element));
    const background = over(parsed(style.backgroundColor), below);
    backgrounds.set(element, background);
    if (style.display === "none") return;
    opacity *= style.filter.includes("opacity(0)") ? 0 : Number(style.opacity);
    const box = boxOf(element), position = style.position in clips ? style.position : "flow";
    const clip = cut(style, box, clips[position]), window = contentsOf(element, style, box, clip);
    const seen = opacity > FAINTEST && visible(element, { opacityProperty: true, visibilityProperty: true });
    if (seen && box.width > 0 && box.height > 0) {
      let text = ownText(element, tag);
      if (text && !showsText(element, style, tag, window)) text = "";
      const shown = PICTURES.has(tag) || CONTROLS.has(tag) || painted(style);
      if (text || (shown && isSeen(meet(box, clip)))) {
        if (blocks.length >= limits.blocks) return;
        left -= text.length;
        blocks.push([tag, text, box.left + scrollX, box.top + scrollY, box.width, box.height,
          hex(over(parsed(style.color), background)), hex(background), parseFloat(style.fontSize),
          Number(style.fontWeight) >= 600, path]);
      }
    }
    if (PICTURES.has(tag) || tag === "select" || depth >= limits.depth) return;
    const contains = HOLDS_FIXED.some((name) => style[name] !== "none");
    const inside = {
      flow: window,
      absolute: contains || style.position !== "static" ? window : meet(clips.absolute, cut(style, box, PAGE)),
      fixed: contains ? window : meet(clips.fixed, cut(style, box, PAGE)),
    };
    const counts = new Map(), places = new Map();
    for (const child of childrenOf(element)) counts.set(tagOf(child), (counts.get(tagOf(child)) ?? 0) + 1);
    for (const child of childrenOf(element)) {
      const name = tagOf(child), place = (places.get(name) ?? 0) + 1;
      places.set(name, place);
      visit(child, path, counts.get(name) > 1 ? place : 0, depth + 1, inside, opacity);
    }
  };
  backgrounds.set(root, over(parsed(getComputedStyle(root).backgroundColor), [255, 255, 255]));
  if (body) visit(body, "", 0, 1, { flow: PAGE, absolute: PAGE, fixed: PAGE }, 1);
  // Refused ones have an empty sheet; those whose `integrity` is another's have none.
  const unread = [...all("link")]
    .filter((link) => link instanceof HTMLLinkElement && link.relList.contains("stylesheet") && link.href && !link.sheet && !link.disabled)
    .slice(0, limits.sheets)
    .map((link) => link.href.slice(0, limits.url));
  return { height, blocks, unread };
}
