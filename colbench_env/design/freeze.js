// Runs before a page's own scripts, in every frame: chance has a seed, and nothing opens, asks, prints or goes away.
// (Time stands still by Playwright's clock.)
(() => {
  let state = 0x9e3779b9;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  Math.random = () => next() / 4294967296;
  Crypto.prototype.getRandomValues = function (array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let index = 0; index < bytes.length; index++) bytes[index] = next() & 255;
    return array;
  };
  // The stopped clock has gone on for some real milliseconds before it was stopped.
  const now = performance.now.bind(performance), requestFrame = window.requestAnimationFrame.bind(window);
  const start = now();
  performance.now = () => now() - start;
  window.requestAnimationFrame = (callback) => requestFrame(() => callback(performance.now()));
  window.open = () => null;
  window.close = window.print = window.alert = () => undefined;
  window.confirm = () => false;
  window.prompt = () => null;
  for (const name of ["RTCPeerConnection", "webkitRTCPeerConnection", "WebTransport", "SharedWorker", "Worker"])
    delete window[name];
  for (const name of ["back", "forward", "go"]) History.prototype[name] = () => undefined;
  window.navigation?.addEventListener("navigate", (event) => {
    if (event.cancelable && !event.hashChange) event.preventDefault();
  });
})();
