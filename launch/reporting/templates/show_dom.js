"use strict";
// All text of the data enters the page through el() and append(), as text nodes: nothing in it can become an element.

function el(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const byId = (id) => document.getElementById(id);

// A packed text (base64 of gzip of JSON) to its data.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(plain).text());
}

const signed = (number) => (number > 0 ? "+" : number < 0 ? "−" : "±") + Math.abs(number).toFixed(3);

// Source code as pygments cut it up: [kind, text].
const code = (pieces) => el("pre", { class: "code" }, pieces.map(([kind, text]) => (kind ? el("span", { class: "c-" + kind }, text) : text)));

// A message: what stands between ``` is code.
function prose(text) {
  const parts = text.split("```");
  if (parts.length < 3) return [text];
  return parts.map((part, index) => (index % 2 ? el("code", { class: "fence" }, part.replace(/^\w*\n/, "")) : part));
}

// The text of a token; a line end is shown, and then done.
function tokenText(id, pieces) {
  const text = pieces[id];
  return text === undefined ? "‹" + id + "›" : text.replace(/\n/g, "⏎\n");
}

// How strongly a log-ratio colours: 1 (weak) to 4.
const strength = (ratio) => Math.min(4, Math.ceil(Math.abs(ratio) / 0.25)) || 0;

function ratioToken(id, ratio, pieces) {
  const side = strength(ratio) ? (ratio > 0 ? " up" : " down") + strength(ratio) : "";
  return el("span", { class: "tok" + side, title: "id " + id + ", log-ratio " + signed(ratio) }, tokenText(id, pieces));
}

const ratioTokens = (ids, ratios, pieces) => el("div", { class: "tokens" }, ids.map((id, i) => ratioToken(id, ratios[i], pieces)));
