// Brings a page to rest: pictures are there, animations are over, nothing is scrolled. Runs in a world of its own.
async (limits) => {
  const elements = document.getElementsByTagName("*").length;
  if (elements > limits.elements) return { elements };
  const still = new CSSStyleSheet();
  still.replaceSync("*, *::before, *::after { caret-color: transparent !important; transition: none !important; }");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, still];
  await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
  for (const animation of document.getAnimations()) {
    try { animation.finish(); } catch { animation.cancel(); } // an endless one has no end
  }
  for (const picture of document.querySelectorAll("svg")) {
    picture.pauseAnimations();
    picture.setCurrentTime(0);
  }
  for (const marquee of document.querySelectorAll("marquee")) {
    const copy = marquee.cloneNode(true);
    copy.scrollAmount = 0; // it does not move
    marquee.replaceWith(copy);
  }
  scrollTo({ left: 0, top: 0, behavior: "instant" });
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  return { elements };
}
