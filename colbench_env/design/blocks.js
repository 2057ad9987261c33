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

  const height = Math.max(root.scrollHeight, body?.scrollHeight ?? 0);
  const blocks = [];
  const visit = (element, parentPath, nth, depth) => {
    const tag = tagOf(element);
    const path = (parentPath ? parentPath + ">" : "") + tag + (nth ? `[${nth}]` : "");
    const style = getComputedStyle(element);
    const below = backgrounds.get(parentOf(element));
    const background = over(parsed(style.backgroundColor), below);
    backgrounds.set(element, background);
    if (style.display === "none") return;
    const seen = visible(element, { opacityProperty: true, visibilityProperty: true });
    const text = ownText(element, tag);
    if (seen && (text || PICTURES.has(tag) || CONTROLS.has(tag) || painted(style))) {
      const box = boxOf(element);
      const x = box.left + scrollX, y = box.top + scrollY;
      const inside = x < innerWidth && x + box.width > 0 && y < limits.height && y + box.height > 0;
      if (inside && box.width > 0 && box.height > 0) {
        if (blocks.length >= limits.blocks) return;
        left -= text.length;
        blocks.push([tag, text, x, y, box.width, box.height, hex(over(parsed(style.color), background)),
          hex(background), parseFloat(style.fontSize), Number(style.fontWeight) >= 600, path]);
      }
    }
    if (PICTURES.has(tag) || tag === "select" || depth >= limits.depth) return;
    const counts = new Map(), places = new Map();
    for (const child of childrenOf(element)) counts.set(tagOf(child), (counts.get(tagOf(child)) ?? 0) + 1);
    for (const child of childrenOf(element)) {
      const name = tagOf(child), place = (places.get(name) ?? 0) + 1;
      places.set(name, place);
      visit(child, path, counts.get(name) > 1 ? place : 0, depth + 1);
    }
  };
  backgrounds.set(root, over(parsed(getComputedStyle(root).backgroundColor), [255, 255, 255]));
  if (body) visit(body, "", 0, 1);
  // Refused ones have an empty sheet; those whose `integrity` is another's have none.
  const unread = [...all("link")]
    .filter((link) => link instanceof HTMLLinkElement && link.relList.contains("stylesheet") && link.href && !link.sheet && !link.disabled)
    .slice(0, limits.sheets)
    .map((link) => link.href.slice(0, limits.url));
  return { height, blocks, unread };
}
