"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [HOST, GROUPS, STATE, VALUES, NUMBERS, DIFFERS, FAULTS, FAILURE, WHY, HINT, GROUP] = Array(11).keys();
  const CHUNK = 200;
  const LONG_LIST = 80;
  const RANK = new Map(Object.keys(data.states).map((key, at) => [key, at]));
  const compare = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;
  const $ = (id) => document.getElementById(id);
  const head = document.querySelector("#table thead");
  const body = document.querySelector("#table tbody");
  const pieces = [...document.querySelectorAll("[data-pick]")];
  const state = { pick: "", query: "", column: -1, value: null, sort: null, down: false, every: false };
  let found = [];
  let drawn = 0;

  const make = (name, text, kind) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text; // never markup: hosts are not trusted
    if (kind) node.className = kind;
    return node;
  };
  const note = (row) => (row[STATE] === "away" ? row[WHY] : row[FAULTS].map((at) => data.faults[at]).join("; "));
  const text = (row, at) => (at === -2 ? row[HOST] : at === -3 ? note(row) : row[VALUES][at] ?? "");
  const haystack = data.rows.map((row) =>
    [row[HOST], row[GROUPS], data.states[row[STATE]], note(row), ...row[VALUES]].join("\n").toLowerCase());

  const picked = (row) => {
    const [kind, what] = state.pick.split(":");
    if (kind === "state") return row[STATE] === what;
    if (kind === "group") return row[GROUP] === Number(what);
    if (kind === "fault") return row[FAULTS].includes(Number(what));
    if (kind === "failure") return row[FAILURE] === Number(what);
    return true;
  };
  const matches = (row, at) => {
    if (!picked(row)) return false;
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const where = state.column === -1 ? haystack[at] : text(row, state.column).toLowerCase();
    if (!words.every((word) => where.includes(word))) return false;
    return state.value === null || text(row, state.column) === state.value;
  };
  const first = (a, b) => RANK.get(a[STATE]) - RANK.get(b[STATE]) || compare(a[HOST], b[HOST]);
  const order = (a, b) => {
    if (state.sort === null) return first(a, b);
    const at = state.sort;
    const way = state.down ? -1 : 1;
    if (at >= 0 && data.columns[at].number) {
      const [x, y] = [a[NUMBERS][at], b[NUMBERS][at]];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || first(a, b);
      return way * (x - y) || first(a, b);
    }
    const [x, y] = [text(a, at), text(b, at)];
    return (x === "") - (y === "") || way * compare(x, y) || first(a, b);
  };
  const shownColumns = () => data.columns.map((_, at) => at).filter((at) => state.every || data.columns[at].shown);

  const heading = (at, title) => {
    const cell = make("th");
    cell.scope = "col";
    if (state.sort === at) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    const button = make("button", title);
    button.type = "button";
    button.addEventListener("click", () => {
      if (state.sort !== at) [state.sort, state.down] = [at, false];
      else if (!state.down) state.down = true;
      else [state.sort, state.down] = [null, false];
      draw();
      head.querySelectorAll("button")[[...head.querySelectorAll("button")].findIndex((b) => b.textContent === title)].focus();
    });
    cell.append(button);
    return cell;
  };
  const details = (row, width) => {
    const line = make("tr", undefined, "details");
    const cell = make("td");
    cell.colSpan = width;
    const list = make("dl");
    const add = (name, value, kind) => {
      const pair = make("div", undefined, kind);
      pair.append(make("dt", name), make("dd", value || "\u2013"));
      list.append(pair);
    };
    if (row[WHY]) add("why", row[WHY]);
    if (row[HINT]) add("what to do", row[HINT]);
    row[FAULTS].forEach((at) => add("wrong", data.faults[at], "bad"));
    if (row[GROUPS]) add("groups", row[GROUPS]);
    row[VALUES].forEach((value, at) => {
      const odd = row[DIFFERS].includes(at);
      add(data.columns[at].title, odd ? `${value || "nothing"} (usually ${data.columns[at].norm || "nothing"})` : value, odd ? "odd" : "");
    });
    cell.append(list);
    line.append(cell);
    return line;
  };
  const line = (row, columns) => {
    const node = make("tr", undefined, row[STATE]);
    const host = make("th");
    host.scope = "row";
    const open = make("button", row[HOST], "open");
    open.type = "button";
    open.setAttribute("aria-expanded", "false");
    host.append(open);
    const why = make("td", undefined, "note");
    why.append(make("span", row[STATE] === "ok" ? "ok" : row[STATE] === "away" ? "not asked" : row[STATE], "badge"));
    if (note(row)) why.append(make("span", note(row)));
    node.append(host, why);
    if (row[STATE] === "away") why.colSpan = columns.length + 1;
    else for (const at of columns) {
      const cell = make("td", text(row, at), data.columns[at].number ? "number" : "");
      cell.dataset.title = data.columns[at].title;
      if (row[DIFFERS].includes(at)) {
        cell.classList.add("odd");
        cell.title = `usually ${data.columns[at].norm || "nothing"}`;
        if (!cell.textContent) cell.textContent = "nothing";
      }
      node.append(cell);
    }
    open.addEventListener("click", () => {
      const isOpen = open.getAttribute("aria-expanded") === "true";
      open.setAttribute("aria-expanded", String(!isOpen));
      if (isOpen) node.nextElementSibling.remove();
      else node.after(details(row, columns.length + 2));
    });
    return node;
  };
  const append = (count) => {
    const columns = shownColumns();
    body.append(...found.slice(drawn, drawn + count).map((row) => line(row, columns)));
    drawn = Math.min(found.length, drawn + count);
    $("more").hidden = drawn >= found.length;
  };
  const draw = () => {
    found = data.rows.filter(matches).sort(order);
    const row = make("tr");
    row.append(heading(-2, "host"), heading(-3, "finding"), ...shownColumns().map((at) => heading(at, data.columns[at].title)));
    head.replaceChildren(row);
    body.replaceChildren();
    drawn = 0;
    append(CHUNK);
    if (!found.length) {
      const cell = make("td", "No host matches.", "none");
      cell.colSpan = shownColumns().length + 2;
      const empty = make("tr");
      empty.append(cell);
      body.append(empty);
    }
    const all = data.rows.length;
    $("shown").textContent = found.length === all ? `${all} hosts` : `${found.length} of ${all} hosts`;
    $("clear").hidden = !(state.pick || state.query || state.column !== -1 || state.value !== null);
    $("order").value = state.sort === null ? "" : `${state.sort}${state.down ? "-" : ""}`;
    pieces.forEach((piece) => piece.setAttribute("aria-pressed", String(Boolean(state.pick) && piece.dataset.pick === state.pick)));
  };
  const option = (value, title) => {
    const node = make("option", title);
    node.value = value;
    return node;
  };
  const offerValues = () => {
    state.value = null;
    const counts = new Map();
    if (state.column !== -1) {
      for (const row of data.rows) {
        const value = text(row, state.column);
        counts.set(value, (counts.get(value) ?? 0) + 1);
      }
    }
    const values = [...counts.keys()].sort(compare);
    $("value").hidden = values.length < 2 || values.length > LONG_LIST;
    const titles = values.map((value, at) => option(String(at), `${value || "nothing"} (${counts.get(value)})`));
    $("value").replaceChildren(option("", "any value"), ...titles);
    $("value").onchange = () => {
      state.value = $("value").value === "" ? null : values[Number($("value").value)];
      draw();
    };
  };

  const named = [[-2, "host"], [-3, "finding"], ...data.columns.map((column, at) => [at, column.title])];
  $("column").append(option("-1", "in any column"), ...named.map(([at, title]) => option(at, `in ${title}`)));
  $("order").append(option("", "findings first"), ...named.flatMap(([at, title]) =>
    [option(at, `by ${title}, up`), option(`${at}-`, `by ${title}, down`)]));
  $("column").addEventListener("change", () => { state.column = Number($("column").value); offerValues(); draw(); });
  $("order").addEventListener("change", () => {
    const chosen = $("order").value;
    state.sort = chosen === "" ? null : parseInt(chosen, 10);
    state.down = chosen.length > 1 && chosen.endsWith("-");
    draw();
  });
  $("query").addEventListener("input", () => { state.query = $("query").value; draw(); });
  $("every").addEventListener("change", () => { state.every = $("every").checked; draw(); });
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  const clear = () => {
    Object.assign(state, { pick: "", query: "", column: -1, value: null });
    $("query").value = "";
    $("column").value = "-1";
    offerValues();
  };
  $("clear").addEventListener("click", () => { clear(); draw(); });
  pieces.forEach((piece) => piece.addEventListener("click", () => {
    const pick = state.pick === piece.dataset.pick ? "" : piece.dataset.pick;
    clear();
    state.pick = pick;
    draw();
    if (piece.classList.contains("pick") && pick) $("tools").scrollIntoView({ block: "start" });
  }));
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && drawn < found.length) append(CHUNK);
  }, { rootMargin: "600px" }).observe($("more"));
  addEventListener("beforeprint", () => append(found.length));
  draw();
})();
