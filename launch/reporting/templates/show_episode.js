"use strict";
// One episode as elements. `view` is what the user has switched: {tab, reference, colour, row, open}.

const TABS = [["dialogue", "Dialogue"], ["answer", "Answer and tests"], ["tokens", "Tokens"]];

function paintEpisode(one, view, page) {
  const panels = { dialogue: dialogueTab, answer: answerTab, tokens: tokensTab };
  return [
    header(one, view, page),
    el("div", { role: "tablist" }, TABS.map(([name, label]) =>
      el("button", { role: "tab", id: "tab-" + name, "aria-selected": String(view.tab === name), onclick: () => page.show({ tab: name }) }, label))),
    view.reference ? referencePanel(one) : null,
    el("section", { id: "panel", role: "tabpanel", "aria-labelledby": "tab-" + view.tab }, panels[view.tab](one, view, page)),
  ];
}

function header(one, view, page) {
  const place = "#" + one.id.join("/");
  const ranked = one.turns.filter((turn) => turn.candidates.length).length;
  const facts = [["task", one.task_id], ...one.facts, ["ranked turns", ranked ? String(ranked) : "not recorded"]];
  return el("header", {},
    el("div", { class: "title" },
      el("span", { class: "badge s-" + one.status.replace(/\W/g, "-"), id: "status" }, one.status),
      el("h1", {}, one.outcome),
      el("a", { class: "muted", href: place, title: "Permalink" }, place)),
    one.error ? el("p", { class: "broken", role: "alert" }, "Infrastructure error. " + one.error) : null,
    el("dl", { id: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("div", { class: "switches" },
      el("label", {}, el("input", { type: "checkbox", id: "reference", checked: view.reference, onchange: () => page.show({ reference: !view.reference }) }),
        " Training-time information (the policy never sees it)"),
      one.baseline ? el("a", { id: "baseline", href: "#" + one.baseline.join("/") }, "Same task by " + one.baseline[0]) : null));
}

function referencePanel(one) {
  return el("section", { id: "privileged" },
    el("h2", {}, "Training-time information: the policy never sees this"),
    one.hidden ? [el("h3", {}, "Hidden information"), el("pre", {}, one.hidden)] : null,
    el("h3", {}, "Reference solution"),
    one.reference.length ? code(one.reference) : el("p", { class: "muted" }, "Not recorded."));
}

function dialogueTab(one, view, page) {
  const parts = [said("human", "human", one.problem)];
  one.turns.forEach((turn, index) => {
    parts.push(agentTurn(turn, index + 1, view, page, one.images && one.images.turns[index]));
    if (index < one.replies.length) parts.push(reply(one.replies[index]));
  });
  return el("div", { class: "dialogue" }, parts);
}

const said = (who, label, text) => el("div", { class: "said " + who }, el("small", {}, label), prose(text));

function reply(one) {
  const marks = [one.leaks.length ? "gives the solution away: " + one.leaks.join(", ") : null,
    one.reasked ? "asked again " + one.reasked + (one.reasked === 1 ? " time" : " times") : null].filter(Boolean);
  const label = ["human", marks.map((mark) => el("span", { class: "mark" }, mark))].flat();
  return said("human" + (one.leaks.length ? " leaks" : ""), label, one.text);
}

function agentTurn(turn, number, view, page, image) {
  const advantage = turn.advantage !== null ? " · advantage " + signed(turn.advantage) : turn.candidates.length ? " · advantage not recorded" : "";
  const side = turn.advantage === null ? "muted" : turn.advantage > 0 ? "good" : "bad";
  return el("div", { class: "turn" },
    turn.thought ? el("div", { class: "thought" }, el("small", {}, "thought, not shown to the human"), prose(turn.thought)) : null,
    el("div", { class: "said agent" },
      el("small", {}, "agent, turn " + number, el("span", { class: side + " advantage" }, advantage)),
      prose(turn.said)),
    image ? el("img", { class: "small", src: image, alt: "The page after turn " + number }) : null,
    turn.candidates.length ? candidates(turn, view, page) : null);
}

function candidates(turn, view, page) {
  const all = turn.candidates;
  const range = all.length + " candidates, " + signed(all[0].advantage) + " to " + signed(all[all.length - 1].advantage);
  const known = all[0].chosen !== null;
  const most = Math.max(...all.map((one) => Math.abs(one.advantage)), 1e-9);
  const details = el("details", { class: "candidates", open: view.open }, el("summary", {}, range + (known ? "" : " · picks not recorded")));
  const fill = () => {
    if (!details.open || details.children.length > 1) return;
    details.append(turn.log_ratios ? el("div", { class: "played" }, el("small", {}, "the turn as played, coloured by log-ratio (green: the critic makes it likelier)"),
      ratioTokens(turn.ids, turn.log_ratios, page.pieces)) : "", el("ol", {}, all.map((one) => candidate(one, most, page))));
  };
  details.addEventListener("toggle", fill);
  fill();
  return details;
}

function candidate(one, most, page) {
  const share = Math.log1p(10 * Math.abs(one.advantage)) / Math.log1p(10 * most); // logarithmic: a few are far off
  const bar = el("span", { class: "bar " + (one.advantage > 0 ? "up" : "down") });
  bar.style.width = 100 * share + "%";
  const times = (count, word) => (count ? el("span", { class: "pick " + word }, word + (count > 1 ? " ×" + count : "")) : null);
  return el("li", { class: one.chosen ? "chosen" : one.rejected ? "rejected" : "" },
    el("div", { class: "score" }, el("span", { class: "number" }, signed(one.advantage)), el("span", { class: "track" }, bar),
      times(one.chosen, "chosen"), times(one.rejected, "rejected"), one.about ? el("small", { class: "muted" }, one.about) : null),
    one.log_ratios ? ratioTokens(one.ids, one.log_ratios, page.pieces) : el("div", { class: "text" }, prose(one.text)));
}

// The page that is graded beside the one it is compared with, which only the switch shows.
function pictures(images, view) {
  const picture = (name, src) => el("figure", {}, src ? el("img", { src, alt: name }) : el("p", { class: "muted none" }, "No picture."), el("figcaption", {}, name));
  const hidden = el("figure", {}, el("p", { class: "muted none" }, "The page it is compared with is training-time information: key r shows it."), el("figcaption", {}, "Reference"));
  return [
    el("h2", {}, "Pages" + (images.similarity === null ? "" : ", similarity " + images.similarity.toFixed(3))),
    el("div", { class: "pictures" }, picture("Answer", images.answer), view.reference ? picture("Reference", images.reference) : hidden),
  ];
}

function answerTab(one, view) {
  const columns = ["test", "call", "verdict", "expected", "got"];
  return [
    one.images ? pictures(one.images, view) : null,
    el("h2", {}, "Answer"),
    one.answer.length ? code(one.answer) : el("p", { class: "muted" }, "None."),
    el("h2", {}, "Tests"),
    one.tests.length ? el("div", { class: "scroll" }, el("table", { id: "tests" },
      el("thead", {}, el("tr", {}, columns.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, one.tests.map(testRow)))) : el("p", { class: "muted" }, "The task has none that are known here."),
  ];
}

function testRow(test) {
  const recorded = test.expected !== null || test.got !== null || test.detail !== null;
  const value = (text) => (text === null ? el("span", { class: "muted" }, recorded ? "no value" : "not recorded") : el("code", {}, text));
  const got = test.got === null && test.detail !== null ? el("span", { class: "muted" }, test.detail) : value(test.got);
  const verdict = test.verdict === null ? el("span", { class: "muted" }, "not graded")
    : el("span", { class: test.verdict === "pass" ? "good" : test.verdict === "infrastructure-error" ? "broken" : "bad" }, test.verdict);
  return el("tr", {}, el("th", { scope: "row" }, test.name), el("td", {}, el("code", {}, test.call)), el("td", {}, verdict),
    el("td", {}, value(test.expected)), el("td", {}, got));
}

function tokensTab(one, view, page) {
  if (!one.rows.length) return el("p", { class: "muted" }, "No token ids in this row. python -m launch.show --tokens FILE makes them with a tokenizer.");
  const chosen = Math.min(view.row, one.rows.length - 1), rows = one.rows[chosen].rows;
  const colours = [["turns", "turn and mask"], ["ratios", "log-ratio"]];
  const more = one.more_pairs ? one.more_pairs + " more pairs of this episode are not shown." : "";
  const byRatio = view.colour === "ratios";
  return [
    el("div", { class: "switches" },
      el("select", { id: "token-row", "aria-label": "Row", onchange: (event) => page.show({ row: event.target.selectedIndex }) },
        one.rows.map((each, index) => el("option", { selected: index === chosen }, each.title))),
      colours.map(([name, label]) => el("button", { id: "by-" + name, "aria-pressed": String(view.colour === name), onclick: () => page.show({ colour: name }) }, label))),
    more ? el("p", { class: "muted" }, more) : null,
    page.texts ? null : el("p", { class: "muted" }, "The texts of the tokens are not known: the page was made without --model."),
    legend(byRatio),
    rows.map((row) => [
      rows.length > 1 ? el("h2", {}, row.title) : null,
      el("p", { class: "muted counts" }, row.counts),
      byRatio && !row.log_ratios ? el("p", { class: "muted" }, "Log-ratios are not recorded for this row.") : null,
      tokenRow(row, byRatio ? row.log_ratios : null, view, page),
    ]),
  ];
}

function legend(byRatio) {
  const swatches = byRatio
    ? [["tok up4", "the critic makes it likelier"], ["tok down4", "less likely"], ["tok uncounted", "no log-ratio"]]
    : [["tok prefix", "prefix"], ["tok counted t1", "counted, odd turn"], ["tok counted t0", "counted, even turn"], ["tok uncounted", "does not count"]];
  return el("p", { class: "legend" }, swatches.map(([style, text]) => el("span", { class: style }, text)));
}

// Each token's agent turn, 0 where it does not count.
function turnsOf(row) {
  const turns = new Array(row.ids.length).fill(0);
  for (const [turn, start, stop] of row.spans) turns.fill(turn, start, stop);
  return turns;
}

// A row's tokens, coloured by turn and mask, or with `ratios` (one a counted token, null where not recorded) by those.
function tokenRow(row, ratios, view, page) {
  const turns = turnsOf(row);
  const hidden = row.prefix > 1 && !view.reference ? row.prefix : 0; // the first tokens of a trajectory pair are the reference
  let counted = 0;
  const tokens = row.ids.map((id, place) => {
    const turn = turns[place], ratio = ratios && turn ? ratios[counted] : null;
    counted += turn > 0;
    if (ratio !== null) return ratioToken(id, ratio, page.pieces);
    const kind = place < row.prefix ? "prefix" : turn && !ratios ? "counted t" + (turn % 2) : "uncounted";
    const what = place < row.prefix ? "prefix" : turn ? "counts for turn " + turn : "does not count";
    return el("span", { class: "tok " + kind, title: "token " + place + ", id " + id + ", " + what }, tokenText(id, page.pieces));
  });
  const note = hidden ? [el("span", { class: "tok hidden" }, "[" + hidden + " tokens of training-time information, key r]")] : [];
  return el("div", { class: "tokens" }, note, tokens.slice(hidden));
}
