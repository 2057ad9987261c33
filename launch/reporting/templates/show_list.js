"use strict";
// The list, filters, keys and permalinks. Only the rows in sight are elements; an episode is unpacked when it is shown.

const ROW = 58; // pixels, as in show.css

(async function main() {
  const index = await unpack(byId("index").textContent);
  const blocks = byId("blocks").textContent.trim().split("\n");
  const order = index.rows.map((_, place) => place);
  const places = new Map(index.rows.map((row, place) => [row[0] + "/" + row[1], place]));
  const state = { shown: order, current: -1, words: null };
  const view = { tab: "dialogue", reference: false, colour: "turns", row: 0, open: false };
  const page = { pieces: index.pieces, texts: index.texts, show };
  const list = byId("list"), rows = byId("rows"), search = byId("search"), verdict = byId("verdict"), group = byId("group"), sort = byId("sort");
  let episode = null;

  // What each order compares, of a row of the index; what has none comes last.
  const SCORE = 6, TURNS = 5;
  const ORDERS = { score: [SCORE, 1], "-score": [SCORE, -1], turns: [TURNS, 1], "-turns": [TURNS, -1] };

  function sorted(places) {
    if (!ORDERS[sort.value]) return places;
    const [column, sign] = ORDERS[sort.value];
    const value = (place) => index.rows[place][column] === null ? Infinity : sign * index.rows[place][column];
    return [...places].sort((one, other) => (value(one) === value(other) ? one - other : value(one) < value(other) ? -1 : 1));
  }

  function option(select, value, label) { select.append(el("option", { value }, label)); }

  function filters() {
    option(verdict, "", "All verdicts (" + order.length + ")");
    index.statuses.forEach((status, number) => {
      const count = index.rows.filter((row) => row[2] === number).length;
      if (count) option(verdict, number, status + " (" + count + ")");
    });
    option(group, "", "All files");
    Object.entries(index.groups).forEach(([name, path]) => option(group, name, name + ": " + path));
    group.hidden = Object.keys(index.groups).length < 2;
  }

  async function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !state.words) state.words = await unpack(byId("searched").textContent);
    state.shown = sorted(order.filter((place) => {
      const row = index.rows[place];
      return (verdict.value === "" || row[2] === Number(verdict.value)) && (group.value === "" || row[0] === group.value)
        && words.every((word) => state.words[place].includes(word));
    }));
    byId("count").textContent = state.shown.length + " of " + order.length + " episodes · ? for keys";
    list.scrollTop = 0;
    paintList();
    return words.length > 0;
  }

  // The episode beside the list is the first one found; where nothing is searched it stays if it is still in the list.
  async function follow(event) {
    const searched = await apply();
    if (!state.shown.length) return;
    if (searched || event.target === sort || !state.shown.includes(state.current)) location.replace(link(state.shown[0]));
    else keepInSight();
  }

  function paintList() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(state.shown.length, first + Math.ceil(list.clientHeight / ROW) + 10);
    rows.style.height = state.shown.length * ROW + "px";
    rows.replaceChildren(...state.shown.slice(first, last).map((place, offset) => {
      const [name, line, status, title, outcome, turns] = index.rows[place];
      const word = index.statuses[status];
      const row = el("a", { class: "row", href: "#" + name + "/" + line, "aria-current": place === state.current ? "true" : "false" },
        el("span", { class: "dot s-" + word.replace(/\W/g, "-"), title: word }),
        el("span", { class: "what" }, el("span", { class: "name" }, title), el("small", {}, name + "/" + line + " · " + outcome + " · " + turns + (turns === 1 ? " turn" : " turns"))));
      row.style.transform = "translateY(" + (first + offset) * ROW + "px)";
      return row;
    }));
  }

  function keepInSight() {
    const at = state.shown.indexOf(state.current) * ROW;
    if (at < 0) return;
    if (at < list.scrollTop) list.scrollTop = at;
    else if (at + ROW > list.scrollTop + list.clientHeight) list.scrollTop = at + ROW - list.clientHeight;
  }

  function show(change) {
    Object.assign(view, change);
    byId("episode").replaceChildren(...paintEpisode(episode, view, page).filter(Boolean));
  }

  async function open(place) {
    if (place === state.current) return;
    state.current = place;
    const found = await unpack(blocks[place]);
    if (state.current !== place) return; // another one was asked for meanwhile
    episode = found;
    show({ row: 0 });
    byId("episode").scrollTop = 0;
    document.body.dataset.ready = index.rows[place].slice(0, 2).join("/");
    keepInSight();
    paintList();
  }

  function fromLink() {
    const name = decodeURIComponent(location.hash.slice(1));
    if (places.has(name)) return open(places.get(name));
    if (!name) return open(state.shown[0] ?? 0);
    byId("episode").replaceChildren(el("p", { class: "broken", role: "alert" }, "There is no episode " + name + " in this file."));
  }

  const link = (place) => "#" + index.rows[place].slice(0, 2).join("/");
  const go = (place) => { location.hash = link(place); };

  function step(by) {
    const at = state.shown.indexOf(state.current);
    const next = state.shown[at < 0 ? 0 : Math.min(Math.max(at + by, 0), state.shown.length - 1)];
    if (next !== undefined) go(next);
  }

  const keys = {
    j: () => step(1), k: () => step(-1), "1": () => show({ tab: "dialogue" }), "2": () => show({ tab: "answer" }),
    "3": () => show({ tab: "tokens" }), c: () => show({ tab: "dialogue", open: !view.open }), r: () => show({ reference: !view.reference }),
    b: () => { if (episode.baseline) location.hash = episode.baseline.join("/"); },
    "/": () => search.focus(), "?": () => byId("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.target === search && event.key === "Escape") search.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open || event.target.matches("input[type=search], select")) return;
    if (keys[event.key] && (episode || event.key === "?")) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  [search, verdict, group, sort].forEach((input) => input.addEventListener("input", follow));
  list.addEventListener("scroll", paintList);
  addEventListener("resize", paintList);
  addEventListener("hashchange", fromLink);
  filters();
  await apply();
  await fromLink();
})();
