// Brings a page to rest: pictures are there, animations are over, nothing is scrolled. Runs in a world of its own.
async (limits) => {
  // A document's named elements hide what is called like them; the prototype does not.
  const all = (selector) => Document.prototype.querySelectorAll.call(document, selector);
  const elements = all("*").length;
  if (elements > limits.elements) return { elements };
  const still = new CSSStyleSheet();
  still.replaceSync("*, *::before, *::after { caret-color: transparent !important; transition: none !important; }");
  const sheets = Object.getOwnPropertyDescriptor(Document.prototype, "adoptedStyleSheets");
  sheets.set.call(document, [...sheets.get.call(document), still]);
  await Promise.all([...all("img")].filter((image) => image instanceof HTMLImageElement).map((image) => image.decode().catch(() => null)));
  for (const animation of Document.prototype.getAnimations.call(document)) {
    try { animation.finish(); } catch { animation.cancel(); } // an endless one has no end
  }
  for (const picture of all("svg")) {
    if (!(picture instanceof SVGSVGElement)) continue;
    picture.pauseAnimations();
    picture.setCurrentTime(0);
  }
  for (const marquee of all("marquee")) {
    const copy = marquee.cloneNode(true);
    copy.scrollAmount = 0; // it does not move
    marquee.replaceWith(copy);
  }
  scrollTo({ left: 0, top: 0, behavior: "instant" });
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  return { elements };
}
